"""Hints: what a worker asks of K/V that it is not about to use.

`Retain` and `Pin` leave a claim, by a name, on a whole prefix: on what is stored of it, and on what
will be as it comes. A claim ends at its time, which no hit moves, or with `Release`. `Evict` and
`Demote` are done at once and leave nothing behind. What shards do about a hint is their answer, and
may be less than was asked.
"""

from __future__ import annotations

import ctypes
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, Union

from reprise import _abi
from reprise.errors import TRANSIENT_CODES, RepriseError
from reprise.keys import KeysLike, as_keys, keys_pointer
from reprise.operation import Operation

if TYPE_CHECKING:
    from reprise.client import Client
    from reprise.spec import CacheSpec


@dataclass(frozen=True)
class Retain:
    """Goes after everything of its cache spec that nobody claims, lower priority first."""

    claim_id: str  # at most 128 bytes; a claim that has the name already is replaced
    ttl: float  # seconds; shards cut what is longer than 30 days
    priority: int = 50  # 1 to 100


@dataclass(frozen=True)
class Pin:
    """Is not evicted until it ends. It may move to a slower tier."""

    claim_id: str  # at most 128 bytes; a claim that has the name already is replaced
    ttl: float  # seconds; shards cut what is longer than 30 days


@dataclass(frozen=True)
class Release:
    """Ends a claim. Its blocks stay, as cold as they are."""

    claim_id: str


@dataclass(frozen=True)
class Evict:
    """Drops blocks now, from the prefix's end. What others need or claim stays."""

    first_block: int = 0  # blocks before it stay


@dataclass(frozen=True)
class Demote:
    """Moves blocks to the next slower tier now, from the prefix's end."""

    first_block: int = 0  # blocks before it stay


Hint: TypeAlias = Union[Retain, Pin, Release, Evict, Demote]

_OUTCOMES = {1: "applied", 2: "clipped", 3: "deferred", 4: "missing"}  # REPRISE_HINT_*


@dataclass(frozen=True)
class HintAnswer:
    """What came of a hint, at the shard that did the most."""

    #: "applied": all of it; "clipped": a part, and no more will come; "deferred": what is stored,
    #: the rest of a claim as soon as it is stored; "missing": there is nothing that it is about.
    outcome: str
    blocks: int  # Retain, Pin: held now, from block 0; Evict: dropped; Demote: moved; Release: held
    ttl: float  # Retain, Pin: the seconds that it got
    shards: int  # that answered; 0: nothing is known, and `outcome` says nothing
    why: str = ""  # a sentence; "": applied
    error: RepriseError | None = None  # why not all shards that should have answered did


def start_hint(
    client: Client,
    spec: CacheSpec,
    keys: KeysLike | None,
    hint: Hint,
    session: str | None,
    timeout: float | None,
) -> Operation[HintAnswer]:
    """`Client.hint_async`."""
    packed = as_keys(b"" if keys is None else keys)
    raw = _raw(hint)
    limit = _abi.microseconds(timeout)
    with client._call() as client_handle:
        handle, error = ctypes.c_void_p(), _abi.Error()
        code = _abi.library().reprise_hint_start(
            client_handle, client._spec(spec), _abi.encoded(session), keys_pointer(packed),
            len(packed), ctypes.byref(raw), limit, ctypes.byref(handle), ctypes.byref(error),
        )  # fmt: skip
        if code in TRANSIENT_CODES:
            refused = HintAnswer("missing", 0, 0.0, 0, error=_abi.failure(code, error))
            return Operation.finished(client, refused)
        _abi.check(code, error)
        return Operation(client, handle.value or 0, _take_hint, None)


def _take_hint(handle: int) -> HintAnswer:
    raw, error = _abi.HintResult(), _abi.Error()
    code = _abi.library().reprise_hint_result_take(handle, ctypes.byref(raw), ctypes.byref(error))
    return HintAnswer(
        outcome=_OUTCOMES[raw.outcome],
        blocks=raw.blocks,
        ttl=raw.ttl_us / 1e6,
        shards=raw.shards,
        why=bytes(raw.why).decode("utf-8", "replace"),
        error=_abi.failure(code, error),
    )


def _raw(hint: Hint) -> _abi.Hint:
    """The hint as the ABI takes it. What the library cannot see is wrong is refused here."""
    if isinstance(hint, Retain):
        priority = _whole("priority", hint.priority, 1)
        return _abi.Hint(_name(hint.claim_id), _ttl_us(hint.ttl), 1, priority, 0)
    if isinstance(hint, Pin):
        return _abi.Hint(_name(hint.claim_id), _ttl_us(hint.ttl), 2, 0, 0)
    if isinstance(hint, Release):
        return _abi.Hint(_name(hint.claim_id), 0, 3, 0, 0)
    if isinstance(hint, Evict):
        return _abi.Hint(None, 0, 4, 0, _whole("first_block", hint.first_block, 0))
    if isinstance(hint, Demote):
        return _abi.Hint(None, 0, 5, 0, _whole("first_block", hint.first_block, 0))
    raise TypeError(
        f"hint is a {type(hint).__name__}: give a Retain, Pin, Release, Evict or Demote"
    )


def _name(claim_id: str) -> bytes:
    if "\0" in claim_id:  # the ABI's texts end there, and another claim would be meant
        raise ValueError(f"claim_id {claim_id!r} has a NUL character")
    return claim_id.encode()


def _ttl_us(ttl: float) -> int:
    if not ttl > 0:
        raise ValueError(f"ttl = {ttl}: must be above 0 seconds")
    return max(1, int(min(ttl * 1e6, 2.0**62)))


def _whole(name: str, value: int, least: int) -> int:
    number = operator.index(value)
    if not least <= number < 2**32:
        raise ValueError(f"{name} = {number}: must be at least {least} and below 2**32")
    return number
