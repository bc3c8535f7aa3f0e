"""Bytes that changed, a shard that died, a cache that hangs: right answers, computed if need be."""

from __future__ import annotations

import os
import signal
import time

import pytest

pytest.importorskip("sglang", reason="SGLang is not installed here: ./dev test installs it")

from prompts import words  # noqa: E402
from server import PAGE_TOKENS, full_pages  # noqa: E402
from shard_api import describe  # noqa: E402
from shard_memory import flip_in_each_copy, pool  # noqa: E402
from stored import COPIES, Growth  # noqa: E402

PAGES = 20
TOKENS = PAGES * PAGE_TOKENS + 5


def computed(pair, cache, name: str):
    """A prompt that server A computed, with what it answered; its pages are stored twice."""
    prompt = words(name, TOKENS)
    stored = Growth(cache)
    answer = pair.a.complete(prompt, 8)
    stored.reaches(COPIES * PAGES)
    return prompt, answer


def test_a_flipped_byte_is_computed_and_told(pair, cache):
    try:
        before = {shard.id: pool(shard.pid) for shard in cache.shards}
    except PermissionError as refused:
        pytest.skip(f"a test may not look into another process's memory here: {refused}")
    prompt, answer = computed(pair, cache, "a byte flips")
    flipped = flip_in_each_copy(cache.shards, before, PAGES)
    assert flipped, "the stored blocks were not found in any shard's memory"
    again = pair.b.complete(prompt, 8)
    assert again.tokens == answer.tokens
    assert again.from_storage < full_pages(TOKENS)
    assert "Reprise could not load all pages, the rest is computed" in pair.b.log()


@pytest.mark.last
def test_the_death_of_a_shard_loses_nothing(pair, cache):
    prompt, answer = computed(pair, cache, "a shard dies")
    fullest = max(cache.shards, key=lambda shard: describe(shard.address).blocks)
    cache.kill_shard(fullest.id)
    cache.shards = [shard for shard in cache.shards if shard != fullest]
    again = pair.b.complete(prompt, 8)
    assert (again.tokens, again.from_storage) == (answer.tokens, full_pages(TOKENS))


@pytest.mark.last
def test_a_cache_that_hangs_costs_its_deadline_and_answers_are_computed(pair, cache):
    prompt, answer = computed(pair, cache, "all hang")
    pids = [cache.router_pid, *(shard.pid for shard in cache.shards)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        again = pair.b.complete(prompt, 8)
        took = time.monotonic() - begun
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert (again.tokens, again.cached_tokens) == (answer.tokens, 0)
    assert took < 30, "an answer came by the request's time-out, not by the question's"
    assert "Reprise did not answer, the prompt is computed" in pair.b.log()
    after = words("after the hang", 100)
    assert pair.b.complete(after, 2).tokens == pair.a.complete(after, 2).tokens
