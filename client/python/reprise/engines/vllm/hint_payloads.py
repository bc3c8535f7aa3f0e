"""What a hint's payload asks of the store. No schema is agreed on: the tables at the end map each
of those in use to the same few wishes.

Each reader takes a payload and yields a `Reading`, or raises Malformed or Unsupported.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

from reprise.engines.claims import CLAIM_BYTES_MAX, SUFFIX_BYTES_MAX

from . import hint_fields as fields
from .hint_fields import Malformed, Payload, Unsupported, shown

DIRECTIVES_MAX = 128
EDITS_MAX = 16
PRIORITY = 50  # of a retain that names none
CLAIMS = ("retain", "pin")
FOR_EVER = 30 * 86_400.0  # seconds: what the store gives who wants no end

HASHES = (
    "block_hashes: the store is asked by whole keys, of which these are 64 bits; without them the "
    "request's own prefix is meant"
)
NOTHING = "there is nothing to keep"


@dataclasses.dataclass(frozen=True)
class Wish:
    """One call to the store about the request's own prefix. Tokens count from its first one."""

    verb: str  # "retain", "pin", "release", "evict" or "demote"
    claim_id: str = ""  # of retain, pin and release; "": the request's own
    ttl: float = 0.0  # retain, pin: seconds
    priority: int = PRIORITY  # retain: 1 to 100
    end_token: int | None = None  # retain, pin: what is claimed ends before it; None: as it comes
    covers_output: bool = True  # retain, pin: of the answer too, as far as `end_token` allows
    first_token: int = 0  # evict, demote: the blocks of tokens before it stay


@dataclasses.dataclass(frozen=True)
class Reading:
    """`outcome` and `reason` are what is known before the store is asked, "" being nothing; where
    there are wishes, what becomes of them can only make it worse.
    """

    wishes: tuple[Wish, ...] = ()
    outcome: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Context:
    """What payloads count in and speak of."""

    block_tokens: int  # of the engine's blocks
    session: str | None = None


Reader = Callable[[Payload, Context], Reading]


# ---- What several schemas share


def _nothing(why: str) -> Reading:
    return Reading(outcome="applied", reason=f"{why}: {NOTHING}")


def _require_own_prefix(payload: Payload, context: Context) -> None:
    target = payload.get("target")
    if target not in (None, "request", "request_cached"):
        raise Unsupported(f"target = {shown(target)}: only the request's own prefix can be meant")
    for member in ("session_id", "target_session"):
        if payload.get(member) not in (None, context.session):
            raise Unsupported(
                f"{member} = {shown(payload[member])}: only the request's own session can be meant"
            )
    if payload.get("execute_at") not in (None, "request_completion"):
        raise Unsupported(
            f'execute_at = {shown(payload["execute_at"])}: "request_completion" is known'
        )


def _about_request(payload: Payload, context: Context, wish: Wish) -> Reading:
    """`wish` about what the payload's block hashes and flags leave of it."""
    _require_own_prefix(payload, context)
    hashes = payload.get("block_hashes")
    if not isinstance(hashes, (list, type(None))):
        raise Malformed(f"block_hashes = {shown(hashes)}: it is a list")
    ranged = payload.get("current_request_block_count") is not None
    own = fields.flag(payload, "include_current_request", default=not hashes and not ranged)
    if ranged and not own:
        if wish.verb not in CLAIMS:
            raise Unsupported(f"current_request_block_count: {wish.verb} goes to a prefix's end")
        start = fields.whole(payload, "current_request_block_start", 0)
        end = start + fields.whole(payload, "current_request_block_count", least=1)
        wish = dataclasses.replace(wish, end_token=end * context.block_tokens)
    elif not own:
        if hashes:
            raise Unsupported(HASHES)
        return Reading(
            outcome="missing",
            reason="include_current_request is false and block_hashes empty: it is about nothing",
        )
    if hashes:
        return Reading((wish,), "clipped", f"the request's own prefix only; {HASHES}")
    return Reading((wish,))


def _open_priority(payload: Payload, member: str) -> tuple[int, str]:
    """A priority without a highest, brought to the store's, and the sentence that says so."""
    value = fields.whole(payload, member)
    if value <= fields.PRIORITY_MAX:
        return value, ""
    return fields.PRIORITY_MAX, f"{member} = {shown(value)}: {fields.PRIORITY_MAX} is the highest"


# ---- Actions of a router's envelope


def _retain(payload: Payload, context: Context) -> Reading:
    if "directives" in payload:
        return _directives(payload, context)
    ttl = fields.seconds(payload, "ttl_seconds")
    level, clipped = (
        _open_priority(payload, "priority") if "priority" in payload else (PRIORITY, "")
    )
    if level == 0:
        return _nothing("priority = 0")
    wish = Wish("retain", fields.claim_id(payload), ttl, level)
    reading = _about_request(payload, context, wish)
    if clipped and reading.wishes:
        both = f"{reading.reason}; {clipped}" if reading.reason else clipped
        return dataclasses.replace(reading, outcome="clipped", reason=both)
    return reading


@dataclasses.dataclass(frozen=True)
class _Directive:
    start: float  # tokens; infinite: behind the prompt
    end: int | None
    priority: int
    ttl: float | None  # seconds; None: no end

    @classmethod
    def of(cls, value: Any) -> _Directive:
        one = fields.mapping("a directive", value)
        fields.known_only(
            "a directive", one, ("start", "end", "priority", "duration", "covers_output")
        )
        level = fields.priority(one)
        start, end = fields.whole(one, "start", 0), one.get("end")
        if end is not None:
            end = fields.whole(one, "end", least=start + 1)
        ttl = one.get("duration")
        if ttl is not None:
            # `False == 0` in Python, and a flag is no duration.
            ttl = 0.0 if ttl == 0 and ttl is not False else fields.seconds(one, "duration")
        if not fields.flag(one, "covers_output", False):
            return cls(start, end, level, ttl)
        if "start" in one or "end" in one:
            raise Malformed("covers_output stands beside start or end: it has a place of its own")
        return cls(float("inf"), None, level, ttl)


def _directives(payload: Payload, context: Context) -> Reading:
    """A block is of no use without those before it, so a range is kept from the prompt's start."""
    _require_own_prefix(payload, context)
    scope = payload.get("scope")
    if scope is not None:
        scope = fields.name("scope", scope, CLAIM_BYTES_MAX - SUFFIX_BYTES_MAX)
    listed = payload["directives"]
    if not isinstance(listed, list) or len(listed) > DIRECTIVES_MAX:
        raise Malformed(f"directives: it is a list of at most {DIRECTIVES_MAX}")
    directives = sorted(map(_Directive.of, listed), key=lambda one: one.start)
    for before, after in zip(directives, directives[1:]):
        if after.priority > before.priority:
            raise Malformed(
                f"directives: priority {after.priority} stands behind {before.priority}, and it "
                "may not rise along the tokens"
            )
    # Priority and time -> how far; the farthest of those that agree holds the others too.
    reach: dict[tuple[int, float], float] = {}
    endless = False
    for one in directives:
        if one.priority == 0 or one.ttl == 0:
            continue
        endless = endless or one.ttl is None
        kept = (one.priority, FOR_EVER if one.ttl is None else one.ttl)
        reach[kept] = max(reach.get(kept, 0), float("inf") if one.end is None else one.end)
    if not reach:
        return _nothing("no directive has a priority and a duration above 0")
    wishes = tuple(
        Wish(
            "retain",
            _numbered(scope, number) if scope else "",
            ttl,
            level,
            end_token=None if end == float("inf") else int(end),
        )
        for number, ((level, ttl), end) in enumerate(reach.items(), 1)
    )
    if endless:
        return Reading(wishes, "clipped", "no duration: the store keeps for 30 days at most")
    return Reading(wishes)


def _numbered(base: str, number: int) -> str:
    return base if number == 1 else f"{base}/{number}"


def _set_priority(payload: Payload, context: Context) -> Reading:
    """Copies in the engine's own memory, which its `location` names, are the engine's affair; the
    claim is one on the store's.
    """
    claim = fields.claim_id(payload)
    if "value" in payload and payload["value"] is None:
        return _about_request(payload, context, Wish("release", claim))
    level, clipped = _open_priority(payload, "value")
    if level == 0:
        return _nothing("value = 0")
    ttl = fields.seconds(payload, "ttl_seconds")
    reading = _about_request(payload, context, Wish("retain", claim, ttl, level))
    if clipped and not reading.outcome:
        return dataclasses.replace(reading, outcome="clipped", reason=clipped)
    return reading


def _pin(payload: Payload, context: Context) -> Reading:
    wish = Wish("pin", fields.claim_id(payload), fields.seconds(payload, "ttl_seconds"))
    return _about_request(payload, context, wish)


def _release(payload: Payload, context: Context) -> Reading:
    return _about_request(payload, context, Wish("release", fields.claim_id(payload)))


def _evict(payload: Payload, context: Context) -> Reading:
    return _about_request(payload, context, Wish("evict"))


def _demote(payload: Payload, context: Context) -> Reading:
    if payload.get("destination") is not None:
        raise Unsupported(
            f"destination = {shown(payload['destination'])}: blocks move to the next slower tier"
        )
    return _about_request(payload, context, Wish("demote"))


def _prefetch(payload: Payload, context: Context) -> Reading:
    if payload.get("block_hashes"):
        raise Unsupported(HASHES)
    return Reading(
        outcome="accepted", reason="the request's own prefix is looked up in any case"
    )


def _share(payload: Payload, context: Context) -> Reading:
    raise Unsupported("every server of this cache finds what is stored: it is sent to none")


# ---- Our own members of kv_transfer_params["reprise"]


def _claim(verb: str, payload: Payload) -> Reading:
    known = ["ttl_seconds", "claim_id", "tokens", "covers_output"]
    fields.known_only(verb, payload, known + ["priority"] * (verb == "retain"))
    level = fields.priority(payload, default=PRIORITY)
    if level == 0:
        return _nothing("priority = 0")
    end = None if payload.get("tokens") is None else fields.whole(payload, "tokens", least=1)
    ttl = fields.seconds(payload, "ttl_seconds")
    output = fields.flag(payload, "covers_output", True)
    return Reading((Wish(verb, fields.claim_id(payload), ttl, level, end, output),))


def _let_go(verb: str, value: Any) -> Reading:
    if value is True:
        return Reading((Wish(verb),))
    if value is False:
        return Reading(outcome="applied", reason="false: nothing is asked for")
    payload = fields.mapping(verb, value)
    fields.known_only(verb, payload, ("first_token",))
    return Reading((Wish(verb, first_token=fields.whole(payload, "first_token", 0)),))


# ---- agent_hint


def agent_hint(value: Any) -> Payload:
    """The hint, which arrives as JSON text where a request's extra arguments are flat."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Malformed("agent_hint is not JSON") from None
    return fields.mapping("agent_hint", value)


def agent_parts(hint: Payload) -> Iterator[tuple[str, Any, Reader]]:
    """(name, payload, its reader) of everything that the hint asks for. Raises Malformed."""
    if hint.get("cache_control") is not None:
        yield "agent_hint.cache_control", hint["cache_control"], _cache_control
    management = hint.get("context_management")
    if management is None:
        return
    management = fields.mapping("context_management", management)
    edits = management.get("edits", [])
    if not isinstance(edits, list) or len(edits) > EDITS_MAX:
        raise Malformed(f"edits: it is a list of at most {EDITS_MAX}")
    read = _edit_elsewhere if management.get("manage_request") else _edit
    for edit in edits:
        yield "agent_hint.context_management", edit, read


def _cache_control(payload: Payload, context: Context) -> Reading:
    kind = payload.get("type", "ephemeral")
    if kind != "ephemeral":
        raise Unsupported(f'type = {shown(kind)}: "ephemeral" is known')
    end = payload.get("block_offset")
    if end is not None:
        end = fields.whole(payload, "block_offset") * context.block_tokens
    ttl = payload.get("ttl", 300.0)
    if end == 0 or (ttl == 0 and ttl is not False):
        return _nothing("ttl = 0" if end != 0 else "block_offset = 0")
    if isinstance(ttl, str) and ttl in CACHE_CONTROL_TTL:
        ttl = CACHE_CONTROL_TTL[ttl]
    return Reading((Wish("retain", ttl=fields.seconds({"ttl": ttl}, "ttl"), end_token=end),))


def _edit(payload: Payload, context: Context) -> Reading:
    kind = payload.get("type")
    if kind == "prefetch":
        return _prefetch(payload, context)
    if not isinstance(kind, str) or kind not in EDITS:
        raise Unsupported(f"type = {shown(kind)}: known are {', '.join([*EDITS, 'prefetch'])}")
    if payload.get("block_end") is not None:
        raise Unsupported(f"block_end: {kind} goes to the prefix's end")
    start = 0
    if payload.get("block_start") is not None:
        start = fields.whole(payload, "block_start") * context.block_tokens
    return Reading((Wish(EDITS[kind], first_token=start),))


def _edit_elsewhere(payload: Payload, context: Context) -> Reading:
    raise Unsupported("manage_request: only the request's own prefix can be meant")


# ---- What is read how

ACTION_VERSION = "1"  # the major version of every action; "kv.fetch@1.0" has it
ACTIONS: dict[str, Reader] = {
    "kv.retain": _retain,  # vLLM's draft (`directives`), and NVIDIA Dynamo's sample policy
    "vllm.set_priority": _set_priority,  # vLLM's draft
    "kv.pin": _pin,
    "kv.release": _release,
    "kv.evict": _evict,  # NVIDIA Dynamo's sample policy
    "kv.demote": _demote,
    "kv.prefetch": _prefetch,
    "prefetch": _prefetch,
    "kv.fetch": _prefetch,  # NVIDIA Dynamo's and KVCR's
    "kv.share": _share,
}
OURS: dict[str, Callable[[Any], Reading]] = {
    "retain": lambda value: _claim("retain", fields.mapping("retain", value)),
    "pin": lambda value: _claim("pin", fields.mapping("pin", value)),
    "release": lambda value: Reading((Wish("release", fields.name("release", value)),)),
    "evict": lambda value: _let_go("evict", value),
    "demote": lambda value: _let_go("demote", value),
}
EDITS = {"offload": "demote", "evict": "evict"}  # agent_hint's -> ours
CACHE_CONTROL_TTL = {"5m": 300.0, "1h": 3600.0}  # as other interfaces write them
