"""The house rules that a machine can check. `python tests/tidy/tidy.py` prints what breaks them.

Each rule is a function of one file (path relative to the root, text) that yields findings;
`test_tidy.py` plants a violation of each one and sees it found.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import headers

Rule = Callable[[str, str], Iterator[str]]

COLUMNS_MAX = 100
SOURCE_LINES_MAX = 500
SOURCE_SUFFIXES = (".h", ".cc", ".cu", ".cuh", ".c", ".py", ".proto")
C_SUFFIXES = (".h", ".cc", ".cu", ".cuh", ".c")

# Folder -> folders of ours that it may include. The first matching prefix (longest first) decides.
MAY_INCLUDE = {
    "proto/types": ("proto/types",),
    "proto/wire": ("proto", "reprise/v1"),
    "kernels": ("kernels", "proto/types"),
    "service/index": ("proto/types", "kernels", "service/index"),
    "service/eviction": ("proto/types", "kernels", "service/eviction"),
    "service/journal": (
        "proto", "reprise/v1", "reprise/disk/v1", "kernels", "service/pool", "service/journal"),
    "service/pool": ("proto/types", "kernels", "service/pool"),
    "service/process": ("proto/types", "proto/wire", "cluster/membership", "service/process"),
    "service/sizing": ("proto/types", "kernels", "service/eviction", "service/sizing"),
    "service/telemetry": ("proto/types", "kernels", "service/telemetry"),
    "service/tiers": (
        "proto/types", "kernels", "service/tiers", "service/pool", "service/eviction"),
    "service/shard": (
        "proto", "reprise/v1", "kernels", "cluster", "service/index", "service/eviction",
        "service/sizing", "service/pool", "service/journal", "service/tiers", "service/telemetry",
        "service/process", "service/shard"),
    "service/router": ("proto", "reprise/v1", "cluster/placement", "cluster/membership",
                       "service/telemetry", "service/process", "service/router"),
    "cluster": ("proto", "reprise/v1", "kernels", "cluster"),
    "client": ("proto", "reprise/v1", "kernels", "cluster/placement", "cluster/lanes",
               "cluster/link", "client"),
    "tests": ("proto", "reprise/v1", "reprise/disk/v1", "kernels", "cluster", "service", "client",
              "tests"),
}
OURS = ("proto/", "reprise/v1/", "reprise/disk/v1/", "kernels/", "cluster/", "service/", "client/",
        "tests/")

# Who may include headers of the outside: pattern of the include -> prefixes of paths that may.
MAY_INCLUDE_OUTSIDE = {
    r"cuda|cudart|cooperative_groups": (
        "kernels/", "cluster/lanes/nccl/", "cluster/lanes/view/", "service/pool/hbm", "tests/"),
    r"nccl\.h": ("cluster/lanes/nccl/", "tests/"),
    r"ares": ("cluster/membership/dns_membership.cc",),
    r"grpcpp/|grpc/": (
        "proto/wire/", "service/shard/shard_service", "service/shard/admin_service",
        "service/shard/handlers/", "service/shard/main",
        "service/router/router_service", "service/router/handlers/", "service/router/shard_watcher",
        "service/router/router_process", "service/router/main", "cluster/peer/",
        "cluster/lanes/stream/", "cluster/lanes/nccl/",
        "cluster/link/", "cluster/membership/etcd/", "client/", "tests/"),
    r"absl/": (
        "proto/", "service/", "cluster/", "client/", "tests/", "kernels/runtime/",
        # What callers include; no device code does.
        "kernels/block_copy/block_copy_cuda.h", "kernels/quantize/quantize.h",
        "kernels/quantize/quantize_cuda.h", "kernels/quantize/spec_codec.h"),
}
# Kernels keep absl out of headers and device code; their .cc files may use it.
ABSL_IN_KERNELS_CC = re.compile(r"^kernels/.*\.cc$")

BANNED = {
    r"\bTO" r"DO\b|\bFIX" r"ME\b": "finish it, or say in the README what is missing",
    r"\bimport pick" r"le\b|pick" r"le\.loads?\(": "bytes from outside never become code",
    r"\btorch\.lo" r"ad\(": "bytes from outside never become code",
    r"(?<![\w.])ev" r"al\(": "bytes from outside never become code",
    r"\byaml\.lo" r"ad\(": "use safe_load",
    r"usleep\(|std::this_thread::sle" r"ep_for": "wait for an event, with a deadline",
    r"\bstd::format\b|#include <(ranges|source_location)>": "g++ 12 and clang 14 build us",
    r"\brand\(\)|\bsrand\(": "use a seeded absl::BitGen or std::mt19937_64 and print the seed",
}


def rule_includes(path: str, text: str) -> Iterator[str]:
    if not path.endswith(C_SUFFIXES):
        return
    folder = max((f for f in MAY_INCLUDE if path.startswith(f + "/")), key=len, default=None)
    for number, name in headers.included(text):
        if folder and name.startswith(OURS):
            if not any(name.startswith(allowed + "/") for allowed in MAY_INCLUDE[folder]):
                yield f"{path}:{number}: {folder} may not include {name}"
        for pattern, allowed_paths in MAY_INCLUDE_OUTSIDE.items():
            if not re.match(pattern, name) or path.startswith(allowed_paths):
                continue
            if pattern == "absl/" and ABSL_IN_KERNELS_CC.match(path):
                continue
            yield f"{path}:{number}: {name} may not be included here"


def rule_columns(path: str, text: str) -> Iterator[str]:
    if not path.endswith(C_SUFFIXES + (".py",)):
        return
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > COLUMNS_MAX:
            yield f"{path}:{number}: {len(line)} columns, at most {COLUMNS_MAX}"


def rule_lines(path: str, text: str) -> Iterator[str]:
    if path.endswith((".cc", ".cu", ".py")) and not path.startswith("tests/"):
        lines = text.count("\n")
        if lines > SOURCE_LINES_MAX:
            yield f"{path}: {lines} lines, at most {SOURCE_LINES_MAX}: is it still one thing?"


def rule_banned(path: str, text: str) -> Iterator[str]:
    if not path.endswith(SOURCE_SUFFIXES) or path.startswith("tests/tidy/"):
        return
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, cure in BANNED.items():
            if re.search(pattern, line):
                yield f"{path}:{number}: {re.search(pattern, line).group(0)!r}: {cure}"


def rule_channels(path: str, text: str) -> Iterator[str]:
    """One place makes gRPC channels; its header says what breaks otherwise."""
    if not path.endswith(C_SUFFIXES) or path == "proto/wire/channel.cc":
        return
    for number, line in enumerate(text.splitlines(), 1):
        made = re.search(r"\bCreate(Custom|Insecure)?Channel\w*\s*\(|\bInProcessChannel\s*\(", line)
        if made:
            yield f"{path}:{number}: {made.group(0)!r}: use wire::MakeChannel"


def rule_header_guard(path: str, text: str) -> Iterator[str]:
    if path.endswith((".h", ".cuh")) and "#pragma once" not in text and "#ifndef " not in text:
        yield f"{path}: no #pragma once"


PROTO_OPENS = re.compile(r"\s*(message|oneof|enum|service)\s+(\w+)\s*\{")
PROTO_FIELD = re.compile(r"\s*(?:repeated\s+)?[\w.]+\s+(\w+)\s*=\s*\d+\s*(?:\[[^]]*\])?\s*;(.*)")
PROTO_SAYS_UNSET = re.compile(r"\bunset\b|\b0:")


def rule_unset(path: str, text: str) -> Iterator[str]:
    """What a client leaves out has a meaning, and the field says which."""
    if not path.endswith(".proto"):
        return
    within: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        opens = PROTO_OPENS.match(line)
        field = PROTO_FIELD.match(line)
        if opens and not line.rstrip().endswith("}"):
            within.append((opens.group(1), opens.group(2)))
            asked = opens.group(1) == "oneof" and any(n.endswith("Request") for _, n in within)
            if asked and not PROTO_SAYS_UNSET.search(line):
                yield f"{path}:{number}: {opens.group(2)} does not say what unset means"
        elif line.strip() == "}" and within:
            within.pop()
        elif field and within and within[-1][0] == "message":
            asked = any(name.endswith("Request") or name == "CacheSpec" for _, name in within)
            if asked and not PROTO_SAYS_UNSET.search(field.group(2)):
                yield f"{path}:{number}: {field.group(1)} does not say what unset means"


FILE_RULES = (
    rule_includes, rule_columns, rule_lines, rule_banned, rule_channels, rule_header_guard,
    rule_unset)


def rule_registered(root: Path, paths: list[str]) -> Iterator[str]:
    """A test that no CMakeLists.txt names never runs."""
    lists = [p for p in paths if p.endswith("CMakeLists.txt")]
    named = "\n".join((root / p).read_text() for p in lists)
    for path in paths:
        if path.startswith("tests/") and path.endswith("_test.cc") and Path(path).name not in named:
            yield f"{path}: no CMakeLists.txt registers it"


def tracked(root: Path) -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root, check=True, capture_output=True, text=True)
    return [p for p in listing.stdout.splitlines() if (root / p).is_file()]


def findings(root: Path) -> list[str]:
    paths = tracked(root)
    found = list(rule_registered(root, paths))
    found.extend(headers.rule_headers(root, paths))
    for path in paths:
        if path.endswith(SOURCE_SUFFIXES):
            text = (root / path).read_text()
            for rule in FILE_RULES:
                found.extend(rule(path, text))
    return found


if __name__ == "__main__":
    problems = findings(Path(__file__).resolve().parents[2])
    print("\n".join(problems) or "tidy")
    sys.exit(1 if problems else 0)
