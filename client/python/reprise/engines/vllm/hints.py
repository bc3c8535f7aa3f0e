"""What a request says about its K/V.

vLLM hands an out-of-tree connector `session_id`, `kv_transfer_params`, `kv_hints` (an envelope of
actions whose payload schemas are not agreed on) and flat extra arguments. Everything in them that
is meant for us gets an honest outcome: nothing is silently accepted, and a request never fails over
a hint.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from reprise.engines.claims import CLAIM_BYTES_MAX, is_name, own_claim

from . import handoff, hint_payloads
from .handoff import Handoff
from .hint_fields import Malformed, Payload, Unsupported, mapping, shown
from .hint_payloads import CLAIMS, Context, Reader, Reading, Wish

SESSION_BYTES_MAX = 128
ACTIONS_MAX = 16  # of one envelope
WISHES_MAX = 128  # of one request
SWITCHES = ("load", "save")
# What an answer of ours carries: a proxy that hands it on with the next request asks for nothing of
# it, but for a handoff.
ANSWERED = ("session", "loaded_tokens", "saved_tokens", "outcomes", "handoff")

logger = logging.getLogger("vllm.reprise")


@dataclasses.dataclass(frozen=True)
class Asked:
    """One thing that the request asked for. `about` says which it was in the answer."""

    about: dict[str, str]
    reading: Reading


@dataclasses.dataclass(frozen=True)
class RequestHints:
    """`asked`: the request carried something for us, so it is owed an answer."""

    session: str | None
    load: bool
    save: bool
    asked: bool
    hints: tuple[Asked, ...] = ()
    save_tokens: int | None = None  # no block is saved behind them: it would go at once
    handoff: Handoff = Handoff()

    def uncached(self, why: str) -> RequestHints:
        """The same of a request that has no place in the cache."""
        hints = tuple(
            Asked(one.about, Reading(outcome="failed", reason=why)) if one.reading.wishes else one
            for one in self.hints
        )
        return dataclasses.replace(self, load=False, save=False, hints=hints)

    def refused(self) -> list[str]:
        """Outcomes of what is never brought before the store."""
        never = ("rejected", "unsupported", "failed")
        return [one.reading.outcome for one in self.hints if one.reading.outcome in never]


def read_hints(request: Any, session_key: str, block_tokens: int) -> RequestHints:
    """From a vLLM request, whose blocks hold `block_tokens`. What cannot be read is reported as
    rejected.
    """
    params = request.kv_transfer_params
    params = params if isinstance(params, dict) else {}
    sampling = request.sampling_params
    extra = (getattr(sampling, "extra_args", None) or {}) if sampling is not None else {}
    hints: list[Asked] = []
    ours = params.get("reprise")
    handed = _handoff(params, hints)
    session = _session(
        request.session_id
        or params.get(session_key)
        or extra.get(session_key)
        or (ours.get("session") if handed.tokens and isinstance(ours, dict) else None),
        hints,
    )
    switches = ours if isinstance(ours, dict) else {}
    load, save = (_switch(switches, name, hints) for name in SWITCHES)
    envelope = getattr(request, "kv_hints", None)
    agent = extra.get("agent_hint")
    context = Context(block_tokens, session)
    asked = [*_ours(ours), *_actions(envelope), *_agent_hint(agent)]
    hints += _bounded(_attempt(about, read, context) for about, read in asked)
    hints = _named(hints, session, str(request.request_id))
    return RequestHints(
        session,
        load,
        save,
        bool(params) or envelope is not None or agent is not None,
        tuple(hints),
        _save_tokens(hints),
        handed,
    )


def _settled(kind: str, outcome: str, reason: str = "") -> Asked:
    return Asked({"action_type": kind}, Reading(outcome=outcome, reason=reason))


def _session(value: Any, hints: list[Asked]) -> str | None:
    if not value:
        return None
    if isinstance(value, str) and is_name(value, SESSION_BYTES_MAX):
        hints.append(_settled("session", "accepted"))
        return value
    why = f"a session is text of at most {SESSION_BYTES_MAX} bytes"
    hints.append(_settled("session", "rejected", why))
    return None


def _handoff(params: Payload, hints: list[Asked]) -> Handoff:
    try:
        return handoff.read(params)
    except Malformed as wrong:
        hints.append(_settled("handoff", "rejected", str(wrong)))
        return Handoff()


def _switch(switches: Payload, name: str, hints: list[Asked]) -> bool:
    value = switches.get(name, True)
    if isinstance(value, bool):
        return value
    hints.append(_settled(name, "rejected", f"{name} = {shown(value)}: it is true or false"))
    return True


# ---- Where hints are found: each with what the answer calls it, and its reader

Found = tuple[dict[str, str], Callable[[Context], Reading]]


def _ours(ours: Any) -> Iterator[Found]:
    if ours is None:
        return
    if not isinstance(ours, dict):
        yield {"action_type": "reprise"}, partial(_refuse, f"reprise = {shown(ours)}: an object")
        return
    members = [m for m in ours if m not in SWITCHES and m not in ANSWERED]
    for number, member in enumerate(members):
        about = {"action_type": str(member)[:CLAIM_BYTES_MAX]}
        if number >= ACTIONS_MAX:
            yield about, partial(_refuse, f"more than {ACTIONS_MAX} members")
            return
        yield about, partial(_read_ours, member, ours[member])


def _actions(envelope: Any) -> Iterator[Found]:
    actions = getattr(envelope, "actions", None)
    for number, action in enumerate(actions if isinstance(actions, (list, tuple)) else ()):
        about = {
            member: str(getattr(action, member, ""))[:CLAIM_BYTES_MAX]
            for member in ("action_id", "action_type")
        }
        if number >= ACTIONS_MAX:
            yield about, partial(_refuse, f"more than {ACTIONS_MAX} actions")
            return
        yield about, partial(_read_action, action)


def _agent_hint(value: Any) -> Iterator[Found]:
    if value is None:
        return
    about = {"action_type": "agent_hint"}
    try:
        for name, payload, read in hint_payloads.agent_parts(hint_payloads.agent_hint(value)):
            yield {"action_type": name}, partial(_read_part, name, payload, read)
    except Malformed as wrong:
        yield about, partial(_refuse, str(wrong))


def _refuse(why: str, context: Context) -> Reading:
    raise Malformed(why)


def _read_ours(member: Any, value: Any, context: Context) -> Reading:
    read = hint_payloads.OURS.get(member)
    if read is None:
        known = ", ".join([*SWITCHES, *hint_payloads.OURS])
        raise Unsupported(f"{shown(member)} is not known; known are {known}")
    return read(value)


def _read_action(action: Any, context: Context) -> Reading:
    kind = getattr(action, "action_type", None)
    read = hint_payloads.ACTIONS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise Unsupported("unknown action")
    version = str(getattr(action, "action_version", ""))
    if version.split(".", 1)[0] != hint_payloads.ACTION_VERSION:
        raise Unsupported(f"action_version = {shown(version)}: 1.0 is known")
    return read(mapping("payload", getattr(action, "payload", None)), context)


def _read_part(name: str, payload: Any, read: Reader, context: Context) -> Reading:
    return read(mapping(name, payload), context)


# ---- What becomes of them


def _attempt(about: dict[str, str], read: Callable[[Context], Reading], context: Context) -> Asked:
    try:
        return Asked(about, read(context))
    except Malformed as wrong:
        return Asked(about, Reading(outcome="rejected", reason=str(wrong)))
    except Unsupported as wrong:
        return Asked(about, Reading(outcome="unsupported", reason=str(wrong)))
    except Exception:
        logger.exception("reading the hint %s failed", about)
        return Asked(about, Reading(outcome="rejected", reason="it could not be read"))


def _bounded(hints: Iterable[Asked]) -> Iterator[Asked]:
    """The first ones, until they ask the store for too much."""
    wishes = 0
    for one in hints:
        if wishes + len(one.reading.wishes) > WISHES_MAX:
            why = f"one request asks the store for at most {WISHES_MAX} things"
            yield Asked(one.about, Reading(outcome="rejected", reason=why))
            continue
        wishes += len(one.reading.wishes)
        yield one


def _named(hints: list[Asked], session: str | None, request_id: str) -> list[Asked]:
    """Claims without a name get the request's own. Several of one request count on, always in the
    same order, so that the next turn's replace them one by one.
    """
    base = own_claim(session, ("request", request_id))
    claims = 0

    def name(wish: Wish) -> Wish:
        nonlocal claims
        if wish.claim_id or wish.verb not in (*CLAIMS, "release"):
            return wish
        if wish.verb == "release":
            return dataclasses.replace(wish, claim_id=base)
        claims += 1
        return dataclasses.replace(wish, claim_id=base if claims == 1 else f"{base}/{claims}")

    return [
        Asked(
            one.about,
            dataclasses.replace(one.reading, wishes=tuple(map(name, one.reading.wishes))),
        )
        for one in hints
    ]


def _save_tokens(hints: list[Asked]) -> int | None:
    evicted = [w.first_token for one in hints for w in one.reading.wishes if w.verb == "evict"]
    return min(evicted, default=None)
