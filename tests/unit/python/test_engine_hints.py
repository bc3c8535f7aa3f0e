"""What requests say of their K/V, in every schema that is in use: read without an engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hinted_requests import BLOCK, action, directives, ours, read, readings, request, retain, routed
from reprise.engines.claims import own_claim
from reprise.engines.vllm import hint_payloads
from reprise.engines.vllm.hint_payloads import FOR_EVER, Wish
from reprise.engines.vllm.hints import ACTIONS_MAX, WISHES_MAX

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
