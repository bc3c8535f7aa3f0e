"""A byte of a stored block changes in the shard's memory: it is not used, and that is counted."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conversation import alone, words  # noqa: E402
from shard_api import describe  # noqa: E402
from shard_memory import flip_in_each_copy, pool  # noqa: E402

BLOCKS = 20


def test_a_flipped_byte_is_recomputed_and_counted(pair, cache):
    prompt = words("a byte flips", BLOCKS * 32 + 5)
    stored = {shard.id: describe(shard.address).blocks for shard in cache.shards}
    try:
        before = {shard.id: pool(shard.pid) for shard in cache.shards}
    except PermissionError as refused:
        pytest.skip(f"a test may not look into another process's memory here: {refused}")
    pair.a.complete(prompt, 4, session="flip")
    pair.a.settle()
    end = time.monotonic() + 10  # the replica comes behind the answer
    while time.monotonic() < end:
        grown = [describe(s.address).blocks - stored[s.id] for s in cache.shards]
        if sum(grown) >= 2 * BLOCKS:
            break
        time.sleep(0.05)
    flipped = flip_in_each_copy(cache.shards, before, BLOCKS)
    assert flipped, "the stored blocks were not found in any shard's memory"
    corrupt = pair.b.metric("vllm:reprise_corrupt_blocks_total")
    answer = pair.b.complete(prompt, 4, session="flip")
    assert answer.tokens == alone(pair.b, prompt, 4).tokens
    assert pair.b.metric("vllm:reprise_corrupt_blocks_total") > corrupt
    assert answer.cached_tokens < BLOCKS * 32
