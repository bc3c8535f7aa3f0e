"""The binding and the header are two statements of one ABI: here they are compared."""

import ctypes
import re
from ctypes import (
    POINTER,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path

import pytest
from reprise import _abi

HEADER = Path(__file__).resolve().parents[3] / "client" / "c" / "reprise.h"

SCALARS = {
    "int32_t": c_int32,
    "int64_t": c_int64,
    "uint32_t": c_uint32,
    "uint64_t": c_uint64,
    "uint8_t": c_uint8,
    "size_t": c_size_t,
    "double": ctypes.c_double,
    "reprise_code": c_int32,
}
STRUCTS = {
    "reprise_error": _abi.Error,
    "reprise_plane": _abi.Plane,
    "reprise_memory": _abi.Memory,
    "reprise_device_memory": _abi.DeviceMemory,
    "reprise_fetch_result": _abi.FetchResult,
    "reprise_store_result": _abi.StoreResult,
    "reprise_hint": _abi.Hint,
    "reprise_hint_result": _abi.HintResult,
}
HANDLES = {f"reprise_{name}" for name in ("client", "spec", "plan", "run", "op")}


def header() -> str:
    return re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)


def ctype_of(declaration: str) -> object:
    """The ctypes type of one C parameter, result or member, e.g. `const uint8_t* keys`."""
    text = declaration.replace("const ", "").replace(" const", "").strip()
    array = re.search(r"\[(\d+)\]$", text)
    base = re.match(r"\w+", text).group(0)
    stars = text.count("*")
    if base in HANDLES:
        return c_void_p if stars == 1 else POINTER(c_void_p)
    if base == "void":
        return {0: None, 1: c_void_p, 2: POINTER(c_void_p)}[stars]
    if base == "char":
        if array:
            return ctypes.c_char * int(array.group(1))
        return c_char_p if stars == 1 else POINTER(c_char_p)
    kind = STRUCTS.get(base) or SCALARS[base]
    if array or stars:
        return POINTER(kind)
    return kind


def functions() -> dict[str, tuple[object, tuple[object, ...]]]:
    found = {}
    for result, name, arguments in re.findall(
        r"REPRISE_EXPORT\s+([\w\s*]+?)\s*\b(reprise_\w+)\(([^)]*)\);", header()
    ):
        names = [] if arguments.strip() == "void" else arguments.split(",")
        found[name] = (ctype_of(result), tuple(ctype_of(argument) for argument in names))
    return found


def test_every_function_of_the_header_is_bound_with_its_types() -> None:
    declared = functions()
    assert len(declared) == header().count("REPRISE_EXPORT ") - 1  # one is the macro itself
    assert list(_abi.SIGNATURES) == list(declared)
    for name, signature in declared.items():
        assert _abi.SIGNATURES[name] == signature, name


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_structs_have_the_members_of_the_header_in_order(name: str) -> None:
    body = re.search(rf"typedef struct {name} {{(.*?)}} {name};", header(), re.S).group(1)
    members = []
    for declaration in filter(None, (line.strip() for line in body.split(";"))):
        member = re.search(r"(\w+)(\[\d+\])?$", declaration).group(1)
        members.append((member, ctype_of(declaration)))
    assert [(row[0], row[1]) for row in STRUCTS[name]._fields_] == members


def test_the_library_speaks_this_packages_version() -> None:
    declared = int(re.search(r"#define REPRISE_ABI_VERSION (\d+)", HEADER.read_text()).group(1))
    assert declared == _abi.ABI_VERSION == _abi.library().reprise_abi_version()


def test_a_missing_library_is_one_sentence_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(_abi.RepriseError, match="REPRISE_LIBRARY") as caught:
        _abi._load(tmp_path / "libreprise.so")
    assert caught.value.code_name == "UNIMPLEMENTED"


def test_a_library_without_our_functions_is_refused() -> None:
    with pytest.raises(_abi.RepriseError, match="has no reprise_abi_version"):
        _abi._load(Path("libc.so.6"))


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_timeouts_that_are_no_time_are_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout"):
        _abi.microseconds(timeout)


def test_timeouts_are_microseconds() -> None:
    assert _abi.microseconds(None) == 0
    assert _abi.microseconds(1.5) == 1_500_000
    assert _abi.microseconds(1e-9) == 1
    assert _abi.microseconds(float(10**30)) == 2**62
