"""Servers and shards die or hang at bad moments: every request completes, with the right tokens,
in its time.
"""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conversation import Talk, alone, words  # noqa: E402
from demo.cluster import kill_and_wait  # noqa: E402
from shard_api import describe, home  # noqa: E402

DEADLINE_S = 30.0  # many times what a request takes, many times less than a hang


def living(cache):
    return [s for s in cache.shards if os.path.exists(f"/proc/{s.pid}")]


def wait_until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def stored_on(cache) -> int:
    return sum(describe(s.address).blocks for s in living(cache))


def talk_of_two_turns(pair, cache, name: str) -> Talk:
    """Two turns on A, stored and replicated."""
    talk = Talk(name, first=400)
    before = stored_on(cache)
    talk.turn(pair.a)
    talk.turn(pair.a)
    pair.a.settle()
    blocks = talk.cacheable() // 32
    wait_until(lambda: stored_on(cache) >= before + 2 * blocks, 5.0)
    return talk


@pytest.mark.last
def test_the_sessions_home_dies_before_a_load(pair, cache):
    talk = talk_of_two_turns(pair, cache, "home dies before")
    shard = cache.shard(home(cache.router, talk.session))
    kill_and_wait(shard.pid)
    pair.b.forget_prefixes()
    talk.turn(pair.b, timeout=DEADLINE_S)
    pair.b.settle()
    again = talk.turn(pair.a, timeout=DEADLINE_S)
    pair.a.settle()
    assert again.cached_tokens > 0, "nothing is cached after a shard's death"
    expected = talk.cacheable()
    assert talk.turn(pair.b, timeout=DEADLINE_S).cached_tokens == expected
    talk.check(pair.b)


@pytest.mark.last
@pytest.mark.parametrize("delay_ms", [0, 4, 15, 40])
def test_a_shard_hangs_during_a_load(pair, cache, delay_ms):
    talk = talk_of_two_turns(pair, cache, f"hangs after {delay_ms} ms")
    pair.b.forget_prefixes()
    shard = cache.shard(home(cache.router, talk.session))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(talk.turn, pair.b, timeout=DEADLINE_S)
        time.sleep(delay_ms / 1000)
        os.kill(shard.pid, signal.SIGSTOP)
        try:
            waiting.result(DEADLINE_S)
        finally:
            os.kill(shard.pid, signal.SIGCONT)
    pair.b.settle()
    talk.check(pair.b)
    # Later turns are cached again.
    assert wait_until(lambda: describe(shard.address).blocks >= 0)
    answers = []
    for server in (pair.a, pair.b, pair.a, pair.b):
        answers.append((talk.cacheable(), talk.turn(server, timeout=DEADLINE_S)))
        server.settle()
    assert any(answer.cached_tokens == expected for expected, answer in answers), (
        "nothing is cached any more"
    )
    talk.check(pair.b)


@pytest.mark.last
def test_the_sessions_home_dies_during_a_load(pair, cache):
    talk = talk_of_two_turns(pair, cache, "home dies during")
    pair.b.forget_prefixes()
    shard = cache.shard(home(cache.router, talk.session))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        os.kill(
            shard.pid, signal.SIGSTOP
        )  # so that the death falls into the load, whatever the machine's speed
        waiting = pool.submit(talk.turn, pair.b, timeout=DEADLINE_S)
        time.sleep(0.1)
        kill_and_wait(shard.pid)
        waiting.result(DEADLINE_S)
    pair.b.settle()
    expected = talk.cacheable()
    assert talk.turn(pair.b, timeout=DEADLINE_S).cached_tokens == expected
    talk.check(pair.b)


@pytest.mark.last
def test_a_server_dies_between_turns(pair, cache):
    talk = Talk("server dies", first=300)
    for server in (pair.a, pair.b, pair.a):
        talk.turn(server)
        server.settle()
    pair.a.kill()
    expected = talk.cacheable()
    assert talk.turn(pair.b, timeout=DEADLINE_S).cached_tokens == expected
    pair.b.settle()
    pair.replace_a()
    expected = talk.cacheable()
    assert talk.turn(pair.a, timeout=DEADLINE_S).cached_tokens == expected
    talk.check(pair.b)


@pytest.mark.last
def test_without_any_shard_every_request_is_computed(pair, cache):
    prompt = words("the cache is gone", 300)
    for shard in living(cache):
        kill_and_wait(shard.pid)
    begun = time.monotonic()
    answer = pair.b.complete(prompt, 8, session="alone", timeout=DEADLINE_S)
    assert answer.cached_tokens == 0
    assert answer.tokens == alone(pair.b, prompt, 8, salt="no shard").tokens
    assert time.monotonic() - begun < DEADLINE_S
