"""What Reprise raises.

A cache that misses, is slow or is down never raises: those are shorter counts with a reason in
`.error`. `RepriseError` means that the call itself was wrong (a bad argument, an unknown spec
field) or that the library could not be used at all.
"""

from __future__ import annotations

#: The canonical status codes of gRPC, by number.
CODE_NAMES: tuple[str, ...] = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)

CANCELLED = 1
FAILED_PRECONDITION = 9
UNIMPLEMENTED = 12
UNAVAILABLE = 14

#: Codes with which a call that was right may be turned away: the cache's state, not the caller's
#: mistake.
TRANSIENT_CODES = frozenset({CANCELLED, 4, 8, 10, 14})


def code_name(code: int) -> str:
    """`code_name(3)` is "INVALID_ARGUMENT"; a number outside the canonical ones is "CODE_<n>"."""
    return CODE_NAMES[code] if 0 <= code < len(CODE_NAMES) else f"CODE_{code}"


class RepriseError(Exception):
    """A refused call: `code` is the canonical status, `message` names field, value and cure."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code_name(code)}: {message}")
        self.code = code
        self.message = message

    @property
    def code_name(self) -> str:
        """The code's name, e.g. "INVALID_ARGUMENT"."""
        return code_name(self.code)

    def __reduce__(self) -> tuple[type[RepriseError], tuple[int, str]]:
        return (type(self), (self.code, self.message))
