"""Many users under one system prompt, two servers, and a cache that is too small for all of
them.
"""

from __future__ import annotations

import concurrent.futures

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conversation import alone, words  # noqa: E402
from shard_api import describe  # noqa: E402

USERS = 40
SYSTEM_TOKENS = 2000
OWN_TOKENS = 600


def test_forty_users_of_a_full_and_evicting_cache_get_right_answers(pair, cache):
    system = words("the system prompt", SYSTEM_TOKENS)
    prompts = [system + words(f"user {user}", OWN_TOKENS) for user in range(USERS)]

    def ask(user: int, turn: int):
        return pair.both[(user + turn) % 2].complete(prompts[user], 6, session=f"user {user}")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first = list(pool.map(lambda user: ask(user, 0), range(USERS)))
        for server in pair.both:
            server.settle()
            server.forget_prefixes()
        second = list(pool.map(lambda user: ask(user, 1), range(USERS)))
    for user, answer in enumerate(second):
        assert answer.tokens == first[user].tokens, (
            f"user {user} got another answer from the other server"
        )
    for user in range(0, USERS, 4):
        assert first[user].tokens == alone(pair.a, prompts[user], 6, salt="crowd").tokens, (
            f"user {user}"
        )
    evicted = sum(
        counter.value
        for shard in cache.shards
        for counter in describe(shard.address).counters
        if "evict" in counter.name
    )
    assert evicted > 0, "the cache was never full: the test proves nothing"
    assert sum(answer.cached_tokens for answer in second) > USERS * SYSTEM_TOKENS // 2
