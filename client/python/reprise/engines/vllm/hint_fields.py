"""Members of a hint's payload, checked: whatever JSON a caller sends, what comes out is right or is
refused with a sentence that names the member.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from reprise.engines.claims import CLAIM_BYTES_MAX, is_name

PRIORITY_MAX = 100
# Of a time to live, seconds. The store cuts it far below (30 days); this keeps it a number that
# fits everywhere on the way there.
TTL_MAX = 365 * 86_400.0
SHOWN_MAX = 60  # characters of a caller's value in a sentence

Payload = dict[str, Any]


class Malformed(ValueError):
    """A member is not what it has to be; the sentence names it."""


class Unsupported(ValueError):
    """What is asked for is right, and the store cannot do it; the sentence says why."""


def shown(value: Any) -> str:
    """A caller's value for a sentence, however long it is."""
    text = ascii(value)
    return text if len(text) <= SHOWN_MAX else text[:SHOWN_MAX] + "..."


def mapping(name: str, value: Any) -> Payload:
    """`value`, which has to be an object."""
    if not isinstance(value, dict):
        raise Malformed(f"{name} = {shown(value)}: it is an object")
    return value


def known_only(name: str, payload: Payload, known: Collection[str]) -> None:
    """Refuses members that nobody reads: a misspelt one must not pass unseen."""
    unknown = sorted(str(member) for member in payload if member not in known)
    if unknown:
        raise Malformed(f"{name} has the unknown member {shown(unknown[0])}")


def seconds(payload: Payload, member: str, default: float | None = None) -> float:
    """A time above 0 in seconds, at most TTL_MAX; without a default it has to be there."""
    value = payload.get(member, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise Malformed(f"{member} = {shown(value)}: it is a number of seconds above 0")
    return TTL_MAX if value > TTL_MAX else float(value)


def whole(payload: Payload, member: str, default: int | None = None, least: int = 0) -> int:
    """A whole number; without a default it has to be there."""
    value = payload.get(member, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise Malformed(f"{member} = {shown(value)}: it is a whole number from {least} on")
    return value


def priority(payload: Payload, member: str = "priority", default: int | None = None) -> int:
    """0 (nothing to keep) to 100; without a default it has to be there."""
    value = payload.get(member, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= PRIORITY_MAX:
        raise Malformed(f"{member} = {shown(value)}: it is a whole number from 0 to {PRIORITY_MAX}")
    return value


def flag(payload: Payload, member: str, default: bool) -> bool:
    """true or false."""
    value = payload.get(member, default)
    if not isinstance(value, bool):
        raise Malformed(f"{member} = {shown(value)}: it is true or false")
    return value


def name(member: str, value: Any, most: int = CLAIM_BYTES_MAX) -> str:
    """Text of 1 to `most` bytes that can travel to the store."""
    if not isinstance(value, str) or not is_name(value, most):
        raise Malformed(f"{member} = {shown(value)}: it is text of 1 to {most} bytes")
    return value


def claim_id(payload: Payload, member: str = "claim_id") -> str:
    """The claim's name; "" where the payload names none."""
    value = payload.get(member)
    return "" if value is None else name(member, value)
