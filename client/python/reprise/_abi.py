"""The C ABI (`client/c/reprise.h`) as ctypes sees it: structs, signatures, and the loaded library.

One table, `SIGNATURES`, holds every function of the header; `library()` applies it to the library
found at `$REPRISE_LIBRARY` or in this package, and checks the ABI version. ctypes drops the GIL
during each call.
"""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from reprise.errors import TRANSIENT_CODES, UNIMPLEMENTED, RepriseError

ABI_VERSION = 2
OK = 0


class Error(ctypes.Structure):
    """reprise_error."""

    _fields_ = [("code", c_int32), ("message", ctypes.c_char * 1020)]

    def text(self) -> str:
        """The sentence, or the empty string."""
        return bytes(self.message).decode("utf-8", "replace")


class Plane(ctypes.Structure):
    """reprise_plane."""

    _fields_ = [
        ("base", c_void_p),
        ("page_stride", c_int64),
        ("head_stride", c_int64),
        ("token_stride", c_int64),
    ]


class Memory(ctypes.Structure):
    """reprise_memory."""

    _fields_ = [("buffers", POINTER(c_void_p)), ("plan", c_void_p), ("pages", POINTER(c_int64))]


class DeviceMemory(ctypes.Structure):
    """reprise_device_memory."""

    _fields_ = [
        ("buffers", POINTER(c_void_p)),
        ("plan", c_void_p),
        ("pages", POINTER(c_int64)),
        ("stream", c_uint64),
        ("device", c_int32),
    ]


class FetchResult(ctypes.Structure):
    """reprise_fetch_result."""

    _fields_ = [
        ("blocks", c_uint32),
        ("corrupt", c_uint32),
        ("bytes", c_uint64),
        ("stream_blocks", c_uint32),
        ("view_blocks", c_uint32),
        ("nccl_blocks", c_uint32),
        ("hbm_blocks", c_uint32),
        ("dram_blocks", c_uint32),
        ("nvme_blocks", c_uint32),
        ("shards", c_uint32),
        ("tcp_blocks", c_uint32),
    ]


class StoreResult(ctypes.Structure):
    """reprise_store_result."""

    _fields_ = [
        ("stored", c_uint32),
        ("present", c_uint32),
        ("refused", c_uint32),
        ("bytes", c_uint64),
    ]


class Hint(ctypes.Structure):
    """reprise_hint."""

    _fields_ = [
        ("claim_id", c_char_p),
        ("ttl_us", c_int64),
        ("verb", c_int32),
        ("priority", c_uint32),
        ("first_block", c_uint32),
    ]


class HintResult(ctypes.Structure):
    """reprise_hint_result."""

    _fields_ = [
        ("ttl_us", c_int64),
        ("outcome", c_int32),
        ("blocks", c_uint32),
        ("shards", c_uint32),
        ("why", ctypes.c_char * 512),
    ]


_handle = c_void_p
_error = POINTER(Error)
_bytes = POINTER(c_uint8)
# client, spec, session, keys, how many, first block, timeout; into an operation or a run
_acquire = (
    _handle, _handle, c_char_p, _bytes, c_size_t, c_uint32, c_int64, POINTER(_handle), _error
)  # fmt: skip
_tokens = POINTER(c_uint32)

#: name -> (result, arguments), one row per function of reprise.h, in its order.
SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "reprise_abi_version": (c_int32, ()),
    "reprise_version": (c_char_p, ()),
    "reprise_client_open": (c_int32, (c_char_p, POINTER(_handle), _error)),
    "reprise_client_close": (None, (_handle,)),
    "reprise_client_stats": (c_char_p, (_handle,)),
    "reprise_spec_open": (c_int32, (_handle, c_char_p, POINTER(_handle), _error)),
    "reprise_spec_close": (None, (_handle,)),
    "reprise_spec_block_bytes": (c_uint64, (_handle,)),
    "reprise_spec_stored_bytes": (c_uint64, (_handle,)),
    "reprise_spec_fingerprint": (None, (_handle, _bytes)),
    "reprise_fingerprint": (
        c_int32,
        (c_char_p, _bytes, POINTER(c_uint64), POINTER(c_uint64), _error),
    ),
    "reprise_block_keys": (
        c_int32,
        (
            _tokens,
            c_size_t,
            c_uint32,
            _bytes,
            c_void_p,
            c_size_t,
            c_void_p,
            c_size_t,
            _bytes,
            _error,
        ),
    ),  # fmt: skip
    "reprise_vllm_block_keys": (
        c_int32,
        (_tokens, c_size_t, c_uint32, c_char_p, c_char_p, _bytes, _error),
    ),
    "reprise_sglang_page_keys": (
        c_int32,
        (_tokens, c_size_t, c_uint32, c_char_p, c_char_p, _bytes, _error),
    ),
    "reprise_checksum": (None, (c_void_p, c_uint64, c_uint64, _bytes)),
    "reprise_plan_create": (
        c_int32,
        (_handle, POINTER(Plane), c_size_t, c_uint32, POINTER(_handle), _error),
    ),
    "reprise_plan_free": (None, (_handle,)),
    "reprise_op_done": (c_int32, (_handle,)),
    "reprise_op_wait": (c_int32, (_handle, c_int64)),
    "reprise_op_cancel": (None, (_handle,)),
    "reprise_op_free": (None, (_handle,)),
    "reprise_acquire_start": (c_int32, _acquire),
    "reprise_acquire_result": (c_int32, (_handle, POINTER(_handle), _error)),
    "reprise_acquire": (c_int32, _acquire),
    "reprise_run_blocks": (c_uint32, (_handle,)),
    "reprise_run_release": (None, (_handle,)),
    "reprise_fetch_start": (
        c_int32,
        (_handle, c_uint32, c_uint32, POINTER(Memory), c_int64, POINTER(_handle), _error),
    ),
    "reprise_fetch_result_take": (c_int32, (_handle, POINTER(FetchResult), _error)),
    "reprise_store_start": (
        c_int32,
        (
            _handle,
            _handle,
            c_char_p,
            _bytes,
            c_size_t,
            c_uint32,
            _tokens,
            c_size_t,
            POINTER(Memory),
            c_int64,
            POINTER(_handle),
            _error,
        ),
    ),  # fmt: skip
    "reprise_store_result_take": (c_int32, (_handle, POINTER(StoreResult), _error)),
    "reprise_prefetch": (c_int32, (_handle, _handle, c_char_p, _bytes, c_size_t, _error)),
    "reprise_note_prefill": (c_int32, (_handle, _handle, c_uint64, c_double, _error)),
    "reprise_explain": (
        c_int32,
        (
            _handle,
            _handle,
            _bytes,
            c_size_t,
            _tokens,
            c_size_t,
            c_int64,
            POINTER(c_char_p),
            _error,
        ),
    ),  # fmt: skip
    "reprise_gpu_count": (c_int32, (_error,)),
    "reprise_device_of": (c_int32, (c_void_p, POINTER(c_int32), _error)),
    "reprise_plan_create_on": (
        c_int32,
        (_handle, POINTER(Plane), c_size_t, c_uint32, c_int32, POINTER(_handle), _error),
    ),
    "reprise_fetch_start_on": (
        c_int32,
        (_handle, c_uint32, c_uint32, POINTER(DeviceMemory), c_int64, POINTER(_handle), _error),
    ),
    "reprise_store_start_on": (
        c_int32,
        (
            _handle,
            _handle,
            c_char_p,
            _bytes,
            c_size_t,
            c_uint32,
            _tokens,
            c_size_t,
            POINTER(DeviceMemory),
            c_int64,
            POINTER(_handle),
            _error,
        ),
    ),  # fmt: skip
    "reprise_hint_start": (
        c_int32,
        (
            _handle,
            _handle,
            c_char_p,
            _bytes,
            c_size_t,
            POINTER(Hint),
            c_int64,
            POINTER(_handle),
            _error,
        ),
    ),  # fmt: skip
    "reprise_hint_result_take": (c_int32, (_handle, POINTER(HintResult), _error)),
}

_lock = threading.Lock()
_loaded: ctypes.CDLL | None = None

# The largest that glibc adapts to is 32 MiB, its own bookkeeping included.
_LARGE_BLOCK_BYTES = (32 << 20) - (64 << 10)


def library_path() -> Path:
    """Where libreprise.so is looked for: `$REPRISE_LIBRARY`, else inside this package."""
    chosen = os.environ.get("REPRISE_LIBRARY")
    return Path(chosen) if chosen else Path(__file__).parent / "_native" / "libreprise.so"


def library() -> ctypes.CDLL:
    """The loaded library. Raises RepriseError when it is missing, broken or of another version."""
    global _loaded
    if _loaded is None:
        with _lock:
            if _loaded is None:
                _loaded = _load(library_path())
    return _loaded


def _load(path: Path) -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as failure:
        raise RepriseError(
            UNIMPLEMENTED,
            f"cannot load libreprise.so from {path}: {failure}; install the reprise wheel for this "
            "platform, or set REPRISE_LIBRARY to a built libreprise.so",
        ) from failure
    for name, (result, arguments) in SIGNATURES.items():
        try:
            function = getattr(loaded, name)
        except AttributeError as failure:
            raise RepriseError(
                UNIMPLEMENTED, f"{path} has no {name}: it is older than this package"
            ) from failure
        function.restype = result
        function.argtypes = list(arguments)
    version = loaded.reprise_abi_version()
    if version != ABI_VERSION:
        raise RepriseError(
            UNIMPLEMENTED,
            f"{path} has ABI version {version} and this package speaks {ABI_VERSION}: "
            "install the two from one release",
        )
    _keep_freed_memory()
    return loaded


def _keep_freed_memory() -> None:
    """Has the allocator keep what is freed for the next use, up to 64 MiB.

    gRPC's receive buffers come and go with every chunk. In a process that never freed a block of
    some size glibc gives them back to the system each time, and faulting them in anew takes longer
    than carrying the bytes. It adapts by itself when such a block is freed (mallopt(3), "dynamic
    mmap threshold"): one is freed here, none of whose pages was touched. What the process's owner
    has set (MALLOC_TRIM_THRESHOLD_ and its like) stays.
    """
    allocator = ctypes.CDLL(None)
    allocator.malloc.restype = ctypes.c_void_p
    allocator.malloc.argtypes = [ctypes.c_size_t]
    allocator.free.restype = None
    allocator.free.argtypes = [ctypes.c_void_p]
    allocator.free(allocator.malloc(_LARGE_BLOCK_BYTES))


def check(code: int, error: Error) -> None:
    """Raises what `code` and `error` say, unless it is OK."""
    failed = failure(code, error)
    if failed is not None:
        raise failed


def refusal(code: int, error: Error) -> str | None:
    """None for OK, the reason when a right call was turned away; raises for a wrong one."""
    if code in TRANSIENT_CODES:
        return reason(code, error)
    check(code, error)
    return None


def reason(code: int, error: Error) -> str | None:
    """The sentence for `.error` of a result: None when `code` is OK."""
    failed = failure(code, error)
    return None if failed is None else str(failed)


def failure(code: int, error: Error) -> RepriseError | None:
    """What `code` and `error` say, not raised: None when `code` is OK."""
    return None if code == OK else RepriseError(code, error.text() or "no reason was given")


def microseconds(timeout: float | None) -> int:
    """Seconds as the ABI wants them; None is the client's default.

    Raises ValueError for a timeout that is not above 0: the ABI would read it as the default.
    """
    if timeout is None:
        return 0
    if not timeout > 0:
        raise ValueError(
            f"timeout = {timeout}: must be above 0 seconds (None is the client's default)"
        )
    return max(1, min(int(timeout * 1e6), 2**62))


def encoded(text: str | None) -> bytes | None:
    """Text as the ABI wants it."""
    return None if text is None else text.encode()
