"""Hints whose outcome is known before the store is asked: empty, wrong, or of no use here."""

from __future__ import annotations

from typing import Any

import pytest
from hinted_requests import action, directives, ours, read, readings, retain, routed

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
