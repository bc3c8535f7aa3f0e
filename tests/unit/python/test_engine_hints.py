"""What requests say of their K/V, in every schema that is in use: read without an engine."""

from __future__ import annotations

import json
import types
from typing import Any

import pytest
from reprise.engines.claims import own_claim
from reprise.engines.vllm import hint_payloads
from reprise.engines.vllm.hint_payloads import FOR_EVER, Reading, Wish
from reprise.engines.vllm.hints import (
    ACTIONS_MAX,
    WISHES_MAX,
    RequestHints,
    read_hints,
)

BLOCK = 32  # tokens


def request(
    params: Any = None,
    actions: Any = None,
    agent: Any = None,
    session: Any = "s",
    name: str = "r1",
) -> Any:
    """As vLLM hands it to a connector."""
    extra = {} if agent is None else {"agent_hint": agent}
    envelope = None if actions is None else types.SimpleNamespace(actions=actions)
    return types.SimpleNamespace(
        request_id=name,
        session_id=session,
        kv_transfer_params=params,
        sampling_params=types.SimpleNamespace(extra_args=extra),
        kv_hints=envelope,
    )


def action(kind: Any, payload: Any, version: str = "1.0") -> Any:
    return types.SimpleNamespace(
        action_id="a1", action_type=kind, action_version=version, payload=payload
    )


def read(**of_request: Any) -> RequestHints:
    return read_hints(request(**of_request), "user", BLOCK)


def readings(**of_request: Any) -> list[Reading]:
    """Without the one about the session."""
    hints = read(**of_request).hints
    return [one.reading for one in hints if one.about["action_type"] != "session"]


def retain(ttl: float, priority: int = 50, **more: Any) -> Wish:
    return Wish("retain", more.pop("claim_id", "session:s"), ttl, priority, **more)


def ours(**members: Any) -> dict[str, Any]:
    return {"params": {"reprise": members}}


def routed(kind: str, **payload: Any) -> dict[str, Any]:
    return {"actions": [action(kind, payload)]}


def directives(*listed: dict[str, Any], **more: Any) -> dict[str, Any]:
    return routed("kv.retain", directives=list(listed), **more)


EXECUTED: dict[str, tuple[dict[str, Any], list[Wish]]] = {
    # Ours
    "retain": (ours(retain={"ttl_seconds": 600}), [retain(600.0)]),
    "retain, everything": (
        ours(
            retain={
                "ttl_seconds": 0.5,
                "priority": 80,
                "claim_id": "x",
                "tokens": 100,
                "covers_output": False,
            }
        ),
        [retain(0.5, 80, claim_id="x", end_token=100, covers_output=False)],
    ),
    "pin": (
        ours(pin={"ttl_seconds": 60, "tokens": 64}),
        [Wish("pin", "session:s", 60.0, end_token=64)],
    ),
    "release": (ours(release="x"), [Wish("release", "x")]),
    "evict": (ours(evict=True), [Wish("evict")]),
    "evict from": (ours(evict={"first_token": 70}), [Wish("evict", first_token=70)]),
    "demote": (ours(demote={}), [Wish("demote")]),
    # Two claims of one request are two, always by the same names.
    "retain and pin": (
        ours(retain={"ttl_seconds": 600}, pin={"ttl_seconds": 60}),
        [retain(600.0), Wish("pin", "session:s/2", 60.0)],
    ),
    # kv.retain@1.0 with directives
    "the whole sequence": (
        directives({"priority": 80, "duration": 60}),
        [retain(60.0, 80)],
    ),
    "a range": (
        directives({"start": 0, "end": 100, "priority": 80, "duration": 60}),
        [retain(60.0, 80, end_token=100)],
    ),
    "ranges and the output, under a scope": (
        directives(
            {"covers_output": True, "priority": 10, "duration": 5},
            {"start": 0, "end": 100, "priority": 90, "duration": 60.5},
            {"start": 100, "end": 200, "priority": 50, "duration": 60},
            scope="router/7",
        ),
        [
            retain(60.5, 90, claim_id="router/7", end_token=100),
            retain(60.0, 50, claim_id="router/7/2", end_token=200),
            retain(5.0, 10, claim_id="router/7/3"),
        ],
    ),
    "ranges that agree are one": (
        directives(
            {"start": 0, "end": 100, "priority": 50, "duration": 60},
            {"start": 100, "end": 300, "priority": 50, "duration": 60},
            {"start": 300, "end": 400, "priority": 0, "duration": 60},
        ),
        [retain(60.0, 50, end_token=300)],
    ),
    # NVIDIA Dynamo's sample policy
    "dynamo retain": (
        routed(
            "kv.retain",
            priority=3,
            ttl_seconds=2.5,
            execute_at="request_completion",
            include_current_request=True,
            block_hashes=[],
        ),
        [retain(2.5, 3)],
    ),
    "dynamo retain without a priority": (
        routed("kv.retain", ttl_seconds=2.5),
        [retain(2.5, 50)],
    ),
    "dynamo retain of some blocks": (
        routed(
            "kv.retain",
            priority=3,
            ttl_seconds=2.5,
            include_current_request=False,
            block_hashes=[],
            current_request_block_start=1,
            current_request_block_count=2,
        ),
        [retain(2.5, 3, end_token=3 * BLOCK)],
    ),
    "dynamo evict": (
        routed(
            "kv.evict",
            execute_at="request_completion",
            include_current_request=True,
            block_hashes=[],
        ),
        [Wish("evict")],
    ),
    # vLLM's draft of priorities
    "set_priority": (
        routed(
            "vllm.set_priority",
            target="request_cached",
            location="local_g1",
            claim_id="router/session-1",
            revision=1,
            value=10,
            ttl_seconds=60,
        ),
        [retain(60.0, 10, claim_id="router/session-1")],
    ),
    "set_priority to nothing ends the claim": (
        routed("vllm.set_priority", claim_id="c", revision=2, value=None),
        [Wish("release", "c")],
    ),
    # Verbs without a schema
    "kv.pin": (routed("kv.pin", ttl_seconds=9), [Wish("pin", "session:s", 9.0)]),
    "kv.release": (routed("kv.release"), [Wish("release", "session:s")]),
    "kv.demote": (routed("kv.demote", target_session="s"), [Wish("demote")]),
    # agent_hint, as text in extra arguments and as an object
    "agent_hint": (
        {"agent": json.dumps({"cache_control": {"type": "ephemeral", "ttl": 120}})},
        [retain(120.0)],
    ),
    "agent_hint by default": ({"agent": {"cache_control": {}}}, [retain(300.0)]),
    "agent_hint of some blocks": (
        {"agent": {"cache_control": {"ttl": "1h", "block_offset": 3}}},
        [retain(3600.0, end_token=3 * BLOCK)],
    ),
    "agent_hint edits": (
        {
            "agent": {
                "context_management": {
                    "edits": [{"type": "offload"}, {"type": "evict", "block_start": 2}]
                }
            }
        },
        [Wish("demote"), Wish("evict", first_token=2 * BLOCK)],
    ),
    # Far too long a time is the store's to cut; here it only stays a number.
    "a very long time": (ours(retain={"ttl_seconds": 10**400}), [retain(365 * 86_400.0)]),
}


@pytest.mark.parametrize("sent, wanted", EXECUTED.values(), ids=EXECUTED.keys())
def test_what_is_executed(sent: dict[str, Any], wanted: list[Wish]) -> None:
    found = readings(**sent)
    assert [wish for one in found for wish in one.wishes] == wanted
    assert [one.outcome for one in found] == [""] * len(found)


SETTLED: dict[str, tuple[dict[str, Any], str, str]] = {
    # What asks for nothing
    "priority 0": (ours(retain={"ttl_seconds": 1, "priority": 0}), "applied", "nothing to keep"),
    "directive of priority 0": (directives({"priority": 0}), "applied", "nothing to keep"),
    "directive of no time": (
        directives({"priority": 9, "duration": 0}),
        "applied",
        "nothing to keep",
    ),
    "no directives": (directives(), "applied", "nothing to keep"),
    "value 0": (routed("vllm.set_priority", value=0, ttl_seconds=1), "applied", "nothing to keep"),
    "evict false": (ours(evict=False), "applied", "nothing is asked for"),
    "cache_control of no time": ({"agent": {"cache_control": {"ttl": 0}}}, "applied", "ttl = 0"),
    "about nothing": (
        routed("kv.evict", include_current_request=False, block_hashes=[]),
        "missing",
        "about nothing",
    ),
    "prefetch": (routed("kv.prefetch"), "accepted", "looked up in any case"),
    "agent prefetch": (
        {"agent": {"context_management": {"edits": [{"type": "prefetch"}]}}},
        "accepted",
        "looked up in any case",
    ),
    # What the store cannot do
    "hashes": (
        routed("kv.retain", ttl_seconds=1, block_hashes=["11", "12"]),
        "unsupported",
        "whole keys",
    ),
    "fetch of hashes": (routed("kv.fetch", block_hashes=[7]), "unsupported", "whole keys"),
    "share": (routed("kv.share"), "unsupported", "every server"),
    "another target": (
        routed("vllm.set_priority", target="blocks", value=1, ttl_seconds=1),
        "unsupported",
        "target = 'blocks'",
    ),
    "another session": (routed("kv.release", session_id="t"), "unsupported", "session_id = 't'"),
    "another time": (
        routed("kv.evict", execute_at="tomorrow"),
        "unsupported",
        "execute_at = 'tomorrow'",
    ),
    "a destination": (routed("kv.demote", destination="disk"), "unsupported", "destination"),
    "an unknown action": (routed("kv.teleport"), "unsupported", "unknown action"),
    "another version": (
        {"actions": [action("kv.pin", {"ttl_seconds": 1}, "2.0")]},
        "unsupported",
        "action_version = '2.0'",
    ),
    "an unknown member of ours": (ours(retian={"ttl_seconds": 1}), "unsupported", "'retian'"),
    "another cache_control": (
        {"agent": {"cache_control": {"type": "forever"}}},
        "unsupported",
        "type = 'forever'",
    ),
    "an edit in the middle": (
        {"agent": {"context_management": {"edits": [{"type": "evict", "block_end": 3}]}}},
        "unsupported",
        "block_end",
    ),
    "an edit of a session": (
        {
            "agent": {
                "context_management": {"manage_request": True, "edits": [{"type": "evict"}]}
            }
        },
        "unsupported",
        "manage_request",
    ),
    # What is malformed
    "ours is no object": ({"params": {"reprise": "retain"}}, "rejected", "reprise = 'retain'"),
    "retain is no object": (ours(retain=True), "rejected", "retain = True"),
    "no time": (ours(retain={}), "rejected", "ttl_seconds = None"),
    "time 0": (ours(retain={"ttl_seconds": 0}), "rejected", "ttl_seconds = 0"),
    "time below 0": (ours(pin={"ttl_seconds": -1}), "rejected", "ttl_seconds = -1"),
    "time is a flag": (ours(pin={"ttl_seconds": True}), "rejected", "ttl_seconds = True"),
    "time is text": (ours(pin={"ttl_seconds": "60"}), "rejected", "ttl_seconds = '60'"),
    "time is no number": (
        ours(pin={"ttl_seconds": float("nan")}),
        "rejected",
        "ttl_seconds = nan",
    ),
    "priority too high": (
        ours(retain={"ttl_seconds": 1, "priority": 101}),
        "rejected",
        "priority = 101",
    ),
    "priority broken": (
        ours(retain={"ttl_seconds": 1, "priority": 1.5}),
        "rejected",
        "priority = 1.5",
    ),
    "a pin has no priority": (
        ours(pin={"ttl_seconds": 1, "priority": 1}),
        "rejected",
        "unknown member 'priority'",
    ),
    "a claim without a name": (
        ours(retain={"ttl_seconds": 1, "claim_id": ""}),
        "rejected",
        "claim_id = ''",
    ),
    "a claim of too long a name": (
        ours(retain={"ttl_seconds": 1, "claim_id": "é" * 65}),
        "rejected",
        "claim_id",
    ),
    "a name with a zero": (ours(release="a\0b"), "rejected", "release"),
    "half of a character": (ours(release="\ud800"), "rejected", "release"),
    "release is a flag": (ours(release=True), "rejected", "release = True"),
    "no tokens": (
        ours(retain={"ttl_seconds": 1, "tokens": 0}),
        "rejected",
        "tokens = 0",
    ),
    "covers_output": (
        ours(retain={"ttl_seconds": 1, "covers_output": 1}),
        "rejected",
        "covers_output = 1",
    ),
    "evict from text": (ours(evict={"first_token": "2"}), "rejected", "first_token = '2'"),
    "evict from elsewhere": (ours(evict={"first": 2}), "rejected", "unknown member 'first'"),
    "a payload that is none": ({"actions": [action("kv.pin", [1])]}, "rejected", "payload = [1]"),
    "directives are no list": (
        routed("kv.retain", directives={"priority": 1}),
        "rejected",
        "directives",
    ),
    "too many directives": (directives(*[{"priority": 1}] * 129), "rejected", "at most 128"),
    "a directive is no object": (routed("kv.retain", directives=[7]), "rejected", "a directive"),
    "a directive without a priority": (directives({"end": 9}), "rejected", "priority = None"),
    "a directive of an unknown member": (
        directives({"priority": 1, "until": 9}),
        "rejected",
        "unknown member 'until'",
    ),
    "a directive that ends before it begins": (
        directives({"priority": 1, "start": 9, "end": 9}),
        "rejected",
        "end = 9",
    ),
    "a directive with two places": (
        directives({"priority": 1, "start": 0, "covers_output": True}),
        "rejected",
        "covers_output",
    ),
    "a duration that is a flag": (
        directives({"priority": 1, "duration": False}),
        "rejected",
        "duration = False",
    ),
    "priorities that rise": (
        directives(
            {"start": 0, "end": 9, "priority": 1, "duration": 1},
            {"start": 9, "end": 18, "priority": 2, "duration": 1},
        ),
        "rejected",
        "may not rise",
    ),
    "a scope that is no text": (directives({"priority": 1}, scope=7), "rejected", "scope = 7"),
    "hashes that are no list": (
        routed("kv.evict", block_hashes="11"),
        "rejected",
        "block_hashes = '11'",
    ),
    "a flag that is none": (
        routed("kv.evict", include_current_request="yes"),
        "rejected",
        "include_current_request = 'yes'",
    ),
    "a value that is none": (
        routed("vllm.set_priority", value="high", ttl_seconds=1),
        "rejected",
        "value = 'high'",
    ),
    "no value": (routed("vllm.set_priority", ttl_seconds=1), "rejected", "value = None"),
    "agent_hint that is no JSON": ({"agent": "{"}, "rejected", "not JSON"),
    "agent_hint that is no object": ({"agent": "[]"}, "rejected", "agent_hint = []"),
    "agent_hint nested too deep": ({"agent": "[" * 100_000}, "rejected", "not JSON"),
    "cache_control is no object": (
        {"agent": {"cache_control": 5}},
        "rejected",
        "agent_hint.cache_control = 5",
    ),
    "cache_control of no such time": (
        {"agent": {"cache_control": {"ttl": "2h"}}},
        "rejected",
        "ttl = '2h'",
    ),
    "edits are no list": (
        {"agent": {"context_management": {"edits": {}}}},
        "rejected",
        "edits",
    ),
    "session of another kind": ({"session": 7}, "rejected", "a session is text"),
    "session of half a character": ({"session": "\udc00"}, "rejected", "a session is text"),
    "load is no flag": (ours(load="perhaps"), "rejected", "load = 'perhaps'"),
}


@pytest.mark.parametrize("sent, outcome, reason", SETTLED.values(), ids=SETTLED.keys())
def test_what_is_settled_before_the_store_is_asked(
    sent: dict[str, Any], outcome: str, reason: str
) -> None:
    told = [one.reading for one in read(**sent).hints if one.reading.outcome != "accepted"]
    if outcome == "accepted":
        told = readings(**sent)
    (one,) = told
    assert one.outcome == outcome and reason in one.reason
    assert not one.wishes


CLIPPED: dict[str, tuple[dict[str, Any], Wish, str]] = {
    "hashes beside the request's own": (
        routed(
            "kv.retain",
            priority=3,
            ttl_seconds=60,
            include_current_request=True,
            block_hashes=["11"],
        ),
        retain(60.0, 3),
        "the request's own prefix only",
    ),
    "a priority above the highest": (
        routed("vllm.set_priority", value=1000, ttl_seconds=60),
        retain(60.0, 100),
        "value = 1000",
    ),
    "Dynamo's above the highest": (
        routed("kv.retain", priority=101, ttl_seconds=60),
        retain(60.0, 100),
        "priority = 101",
    ),
    "no end": (directives({"priority": 9}), retain(FOR_EVER, 9), "30 days"),
}


@pytest.mark.parametrize("sent, wish, reason", CLIPPED.values(), ids=CLIPPED.keys())
def test_what_is_done_in_part_says_so(sent: dict[str, Any], wish: Wish, reason: str) -> None:
    (one,) = readings(**sent)
    assert one.wishes == (wish,)
    assert one.outcome == "clipped" and reason in one.reason


def test_a_claim_without_a_session_is_the_requests() -> None:
    (one,) = readings(**ours(retain={"ttl_seconds": 1}), session=None)
    assert one.wishes[0].claim_id == "request:r1"


@pytest.mark.parametrize("text", ["x" * 128, "é" * 64, "a\0b", "\ud800"])
def test_a_claims_own_name_is_one_that_the_store_takes(text: str) -> None:
    name = own_claim(None, ("request", text))
    assert name.startswith("request:sha256:") and len(f"{name}/{WISHES_MAX}".encode()) <= 128
    assert own_claim(None, ("request", text)) == name
    assert own_claim(None, ("request", text + "y")) != name


def test_what_is_to_go_is_not_saved() -> None:
    assert read(**ours(evict=True)).save_tokens == 0
    assert read(**ours(evict={"first_token": 70})).save_tokens == 70
    assert read(**ours(demote=True)).save_tokens is None
    assert read(**routed("kv.evict")).save_tokens == 0


def test_actions_beyond_the_sixteenth_are_refused_aloud() -> None:
    told = readings(actions=[action("kv.pin", {"ttl_seconds": 1})] * (ACTIONS_MAX + 5))
    assert len(told) == ACTIONS_MAX + 1
    assert [one.outcome for one in told] == [""] * ACTIONS_MAX + ["rejected"]
    told = readings(**ours(**{f"m{number}": 1 for number in range(100)}))
    assert len(told) == ACTIONS_MAX + 1


def test_one_request_asks_for_so_many_things_and_no_more() -> None:
    many = [
        {"start": n, "end": n + 1, "priority": 100 - n, "duration": 1 + n} for n in range(70)
    ]
    payload = {"directives": many}
    told = readings(actions=[action("kv.retain", payload)] * 2 + [action("kv.evict", {})])
    assert [len(one.wishes) for one in told] == [70, 0, 1]
    assert told[1].outcome == "rejected" and str(WISHES_MAX) in told[1].reason


def test_an_answer_that_comes_back_with_the_next_request_asks_for_nothing() -> None:
    answer = {"session": "s", "loaded_tokens": 1, "saved_tokens": 2, "outcomes": []}
    hints = read(params={"reprise": answer})
    assert [one.about["action_type"] for one in hints.hints] == ["session"]


def test_an_error_of_ours_costs_the_hint_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hint_payloads.ACTIONS, "kv.pin", lambda payload, context: 1 // 0)
    broken, good = readings(actions=[action("kv.pin", {}), action("kv.evict", {})])
    assert broken.outcome == "rejected" and good.wishes == (Wish("evict"),)


def test_a_request_without_anything_for_us_is_owed_no_answer() -> None:
    assert not read(session=None).asked
    assert read(agent={}).asked and read(params={"reprise": {}}).asked
