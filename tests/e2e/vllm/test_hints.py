"""Hints over plain HTTP, real servers and real shards: what a request asks for is what a shard
holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conversation import words  # noqa: E402
from demo.vllm_fleet import BLOCK_TOKENS  # noqa: E402
from shard_api import describe  # noqa: E402


def complete(server, prompt: list[int], tokens: int, session: str, **hints: Any):
    """(the answer's token ids, what became of the hints)"""
    answer = server.client().completions.create(
        model="tiny",
        prompt=prompt,
        max_tokens=tokens,
        temperature=0,
        extra_body={
            "session_id": session,
            "ignore_eos": True,
            "return_token_ids": True,
            "kv_transfer_params": {"reprise": hints},
        },
    )
    told = answer.model_extra["kv_transfer_params"]["reprise"]
    asked = {one["action_type"]: one for one in told["outcomes"]}
    return answer.choices[0].token_ids, asked


class Held:
    """What the shards hold under claims, beyond what they held before."""

    def __init__(self, cache) -> None:
        self._cache = cache
        self._before = self._now()

    def _now(self) -> tuple[int, int, int]:
        claims = [describe(shard.address).claims for shard in self._cache.shards]
        return (
            sum(one.claims for one in claims),
            sum(one.claimed_bytes for one in claims),
            sum(one.pinned_bytes for one in claims),
        )

    def since(self) -> tuple[int, int, int]:
        """(claims, claimed bytes, pinned bytes)"""
        claims, claimed, pinned = (now - was for now, was in zip(self._now(), self._before))
        return claims, claimed, pinned

    def comes(self, wanted: Callable[[tuple[int, int, int]], bool], seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not wanted(self.since()):
            assert time.monotonic() < end, f"claims, claimed, pinned: {self.since()} more"
            time.sleep(0.1)


def test_a_conversation_that_waits_for_a_tool_is_held_until_it_is_released(pair, cache):
    held = Held(cache)
    session = "waits for a tool"
    prompt = words(session, 4 * BLOCK_TOKENS + 5)
    tokens, told = complete(pair.a, prompt, 40, session, retain={"ttl_seconds": 600})
    pair.a.settle()
    assert told["retain"]["claims"] == [f"session:{session}"]
    assert told["retain"]["outcome"] in ("applied", "deferred", "accepted"), told
    held.comes(lambda now: now[0] >= 1 and now[1] > 0 and now[2] == 0)

    # The next turn's claim takes the place of this one, also on another server, and holds more.
    before = held.since()[1]
    prompt = prompt + tokens + words(f"{session} 2", 4 * BLOCK_TOKENS)
    _, told = complete(pair.b, prompt, 40, session, retain={"ttl_seconds": 600})
    pair.b.settle()
    assert told["retain"]["claims"] == [f"session:{session}"]
    held.comes(lambda now: now[1] > before)

    _, told = complete(pair.b, prompt, 2, session, release=f"session:{session}")
    assert told["release"]["outcome"] in ("applied", "accepted"), told
    held.comes(lambda now: now == (0, 0, 0))


def test_a_pin_is_finite(pair, cache):
    held = Held(cache)
    prompt = words("a pin", 3 * BLOCK_TOKENS + 5)
    _, told = complete(pair.a, prompt, 2, "a pin", pin={"ttl_seconds": 5, "covers_output": False})
    assert told["pin"]["outcome"] in ("applied", "deferred", "accepted"), told
    held.comes(lambda now: now[2] > 0)
    pair.a.settle()
    held.comes(lambda now: now == (0, 0, 0), 30.0)


def test_what_a_request_gives_up_is_gone(pair):
    prompt = words("to be dropped", 5 * BLOCK_TOKENS + 5)
    complete(pair.a, prompt, 2, "to be dropped")
    pair.a.settle()
    assert pair.b.complete(prompt, 2, session="to be dropped").cached_tokens == 5 * BLOCK_TOKENS
    pair.b.settle()
    _, told = complete(pair.a, prompt, 2, "to be dropped", evict=True)
    assert told["evict"]["outcome"] in ("applied", "clipped", "accepted"), told
    end = time.monotonic() + 15
    while True:
        pair.b.forget_prefixes()
        # Stays out of the cache with what it computes: it only asks.
        answer = pair.b.client().completions.create(
            model="tiny",
            prompt=prompt,
            max_tokens=1,
            temperature=0,
            extra_body={
                "session_id": "to be dropped",
                "kv_transfer_params": {"reprise": {"save": False}},
            },
        )
        details = answer.usage.prompt_tokens_details
        if not details or not details.cached_tokens:
            return
        assert time.monotonic() < end, f"{details.cached_tokens} tokens are still there"
        time.sleep(0.2)


def test_hints_are_counted_where_users_look(pair):
    before = pair.a.metric("vllm:reprise_hints_total", outcome="rejected")
    _, told = complete(pair.a, words("malformed", 70), 2, "m", retain={"ttl_seconds": "long"})
    assert told["retain"]["outcome"] == "rejected"
    assert "ttl_seconds = 'long'" in told["retain"]["reason"]
    assert pair.a.metric("vllm:reprise_hints_total", outcome="rejected") == before + 1
