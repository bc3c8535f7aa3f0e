"""Every header of ours includes what it names, and its own source includes it first.

Sources are compiled with the headers of the outside precompiled, so a compiler no longer notices a
header that forgot `<string>`. It does notice one that forgot a header of ours, because the source
of the same name includes it before anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# What a name in a header asks for: one of these headers, or one below a folder that ends in "/".
NAMES = {
    r"std::(?:min|max|sort|find|clamp)\b": ("algorithm",),
    r"std::array\b": ("array",),
    r"std::atomic\b": ("atomic",),
    r"\bu?int(?:8|16|32|64)_t\b": ("cstdint", "stdint.h"),
    r"std::deque\b": ("deque",),
    r"std::function\b": ("functional",),
    r"std::map\b": ("map",),
    r"std::(?:unique_ptr|shared_ptr|weak_ptr|make_unique|make_shared)\b": ("memory",),
    r"std::(?:optional|nullopt)\b": ("optional",),
    r"std::set\b": ("set",),
    r"std::span\b": ("span",),
    r"std::(?:string|to_string)\b": ("string",),
    r"std::string_view\b": ("string_view",),
    r"std::(?:thread|jthread)\b": ("thread",),
    r"std::(?:pair|move|forward|exchange|swap)\b": ("utility",),
    r"std::(?:variant|monostate)\b": ("variant",),
    r"std::vector\b": ("vector",),
    r"absl::flat_hash_map\b": ("absl/container/flat_hash_map.h",),
    r"absl::flat_hash_set\b": ("absl/container/flat_hash_set.h",),
    r"absl::(?:Status|OkStatus)\b": ("absl/status/status.h", "absl/status/statusor.h"),
    r"absl::StatusOr\b": ("absl/status/statusor.h",),
    r"absl::StrCat\b": ("absl/strings/str_cat.h",),
    r"absl::string_view\b": ("absl/strings/string_view.h",),
    r"absl::(?:Mutex|MutexLock|CondVar)\b": ("absl/synchronization/mutex.h",),
    r"absl::Now\b": ("absl/time/clock.h",),
    r"absl::(?:Time|Duration|Seconds|Milliseconds)\b": ("absl/time/",),
    r"absl::Span\b": ("absl/types/span.h",),
    r"\bgrpc::": ("grpcpp/",),
    r"\bnlohmann::": ("nlohmann/",),
    r"\bCLI::": ("CLI/",),
}
COMMENTS_AND_TEXTS = re.compile(r'//.*|"[^"\n]*"')


def included(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
        if match:
            yield number, match.group(1)


def _closure(header: str, texts: dict[str, str], known: dict[str, set[str]]) -> set[str]:
    """Everything that `header` includes, through headers of ours."""
    if header not in known:
        known[header] = set()
        for _, name in included(texts[header]):
            known[header].add(name)
            if name in texts:
                known[header] |= _closure(name, texts, known)
    return known[header]


def rule_headers(root: Path, paths: list[str]) -> Iterator[str]:
    texts = {path: (root / path).read_text() for path in paths if path.endswith(".h")}
    known: dict[str, set[str]] = {}
    for path, text in texts.items():
        has = _closure(path, texts, known)
        code = COMMENTS_AND_TEXTS.sub("", text)
        for name, headers in NAMES.items():
            found = re.search(name, code)
            if found and not any(one.startswith(h) if h.endswith("/") else one == h
                                 for h in headers for one in has):
                yield f"{path}: names {found.group(0)} and does not include <{headers[0]}>"
    for path in paths:
        own = path.removesuffix(".cc") + ".h"
        if path.endswith(".cc") and own in texts:
            first = next((name for _, name in included((root / path).read_text())), None)
            if first != own:
                yield f"{path}: includes {first} before its own header {own}"
