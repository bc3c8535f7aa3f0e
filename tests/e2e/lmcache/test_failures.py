"""Bytes that changed, shards that died, a cache that hangs, calls that are given up: misses within
their time, and nothing that stays held.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import threading
import time
from concurrent.futures import CancelledError

import pytest

pytest.importorskip("lmcache", reason="LMCache is not installed here: ./dev test installs it")

from demo.cluster import Cluster  # noqa: E402
from engine import CHUNK_TOKENS, Engine, same, tokens_of, wait_until  # noqa: E402
from shard_api import describe  # noqa: E402
from shard_memory import flip_in_each_copy, pool  # noqa: E402

CHUNKS = 6
TOKENS = CHUNKS * CHUNK_TOKENS
LOAD_S = 1.5
TIMES = {"lookup_timeout_ms": 700, "load_timeout_ms": 1000 * LOAD_S, "save_timeout_ms": 1500}
SLACK_S = 1.5  # of a machine that is busy


@pytest.fixture
def own(binaries):
    """A cache that the test may break."""
    with Cluster(binaries, shards=3, dram="64MiB", replication=1) as cluster:
        yield cluster


@contextlib.contextmanager
def hung(cluster):
    """Router and shards, stopped: they take connections and answer nothing."""
    pids = [cluster.router_pid, *(shard.pid for shard in cluster.shards)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(map(stopped, pids)), 10, "they do not stop")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def stopped(pid):
    """Whether all threads stand still: some go on for a while after the signal."""
    stats = pathlib.Path(f"/proc/{pid}/task").glob("*/stat")
    return all(stat.read_text().rsplit(")", 1)[1].split()[0] == "T" for stat in stats)


def timed(call):
    begun = time.monotonic()
    result = call()
    return result, time.monotonic() - begun


@pytest.mark.parametrize("heads, chunks", [(2, CHUNKS), (64, 2)], ids=["one part", "parts"])
def test_a_flipped_byte_is_a_miss_and_counted(cache, log, heads, chunks):
    try:
        before = {shard.id: pool(shard.pid) for shard in cache.shards}
    except PermissionError as refused:
        pytest.skip(f"a test may not look into another process's memory here: {refused}")
    tokens = tokens_of("a byte flips", chunks * CHUNK_TOKENS)
    with Engine({"router": cache.router}, heads=heads, memory_gib=0.25) as engine:
        kv = engine.computed("a byte flips", len(tokens))
        engine.store(tokens, kv)
        assert flip_in_each_copy(cache.shards, before, 1), "the chunks were not found in memory"
        assert engine.lookup(tokens) == len(tokens), "nobody has looked at the bytes yet"
        came, back = engine.retrieve(tokens)
        assert came < len(tokens) and same(back[:, :, :came], kv[:, :, :came])
        assert not back[:, :, came:].any(), "a part of a chunk that failed reached the engine"
        assert engine.connector.stats()["blocks_corrupt"] >= 1
        engine.settled()
    assert "failed their checksum" in log.text


def test_a_dead_shard_costs_its_chunks_alone(own):
    tokens = tokens_of("a shard dies", TOKENS)
    with Engine({"router": own.router, **TIMES}) as engine:
        kv = engine.computed("a shard dies", TOKENS)
        engine.store(tokens, kv)
        keys = [key for _, _, key in engine.engine.token_database.process_tokens(tokens)]
        fullest = max(own.shards, key=lambda shard: describe(shard.address).blocks)
        lost = describe(fullest.address).blocks
        assert 0 < lost < CHUNKS, "the chunks are not spread, choose another seed"
        own.kill_shard(fullest.id)
        loaded, took = timed(lambda: engine.backend.batched_get_blocking(keys))
        assert took < LOAD_S + SLACK_S
        assert sum(memory is None for memory in loaded) == lost
        for memory in loaded:
            if memory is not None:
                memory.ref_count_down()
        engine.settled()
        came, back = engine.retrieve(tokens)
        assert same(back[:, :, :came], kv[:, :, :came])
        # What is computed again has another home now.
        wait_until(lambda: stored_again(engine, tokens, kv), 20, "it is not stored again")
        came, back = engine.retrieve(tokens)
        assert came == TOKENS and same(back, kv)


def stored_again(engine, tokens, kv):
    engine.store(tokens, kv)
    return engine.lookup(tokens) == TOKENS


def test_all_dead_is_a_miss_and_nothing_raises(own, log):
    tokens = tokens_of("all die", TOKENS)
    with Engine({"router": own.router, **TIMES}) as engine:
        kv = engine.computed("all die", TOKENS)
        engine.store(tokens, kv)
        own.stop()
        (found, asked) = timed(lambda: engine.lookup(tokens))
        ((came, _), loaded) = timed(lambda: engine.retrieve(tokens))
        _, saved = timed(lambda: engine.store(tokens_of("other", TOKENS), kv))
        assert (found, came) == (0, 0)
        assert max(asked, loaded, saved) < LOAD_S + SLACK_S
    told = [line for line in log.lines if "Reprise did not answer" in line]
    assert len(told) == 1, "told once, not for each chunk"
    assert sum("Reprise did not store a chunk" in line for line in log.lines) == 1


def test_a_cache_that_hangs_costs_its_deadline(own, log):
    tokens = tokens_of("hangs", TOKENS)
    # By streams: out of memory that both map, blocks come also from a shard that hangs.
    with Engine({"router": own.router, "lanes": ["stream"], **TIMES}) as engine:
        kv = engine.computed("hangs", TOKENS)
        engine.store(tokens, kv)
        assert engine.lookup(tokens) == TOKENS  # leased, so that the load goes to shards that hang
        with hung(own):
            (came, back), loaded = timed(lambda: engine.retrieve(tokens))
            assert came == 0 and not back.any()
            assert loaded < TIMES["lookup_timeout_ms"] / 1000 + LOAD_S + SLACK_S
            found, asked = timed(lambda: engine.lookup(tokens_of("others", TOKENS)))
            assert found == 0 and asked < TIMES["lookup_timeout_ms"] / 1000 + SLACK_S
            _, saved = timed(lambda: engine.store(tokens_of("others", TOKENS), kv))
            assert saved < TIMES["save_timeout_ms"] / 1000 + SLACK_S
            assert engine.allocated() == 0
        assert "Reprise" in log.text
        # A breaker lets go again, and what was stored is still right.
        wait_until(lambda: engine.lookup(tokens) == TOKENS, 20, "the cache did not come back")
        came, back = engine.retrieve(tokens)
        assert came == TOKENS and same(back, kv)


def test_a_load_ends_before_lmcache_gives_it_up(own, log):
    tokens = tokens_of("patience", TOKENS)
    patient = {"router": own.router, "load_timeout_ms": 60_000, "lanes": ["stream"]}
    with Engine(patient, blocking_timeout_secs=4) as engine:
        engine.store(tokens, engine.computed("patience", TOKENS))
        keys = [key for _, _, key in engine.engine.token_database.process_tokens(tokens)]
        assert engine.lookup(tokens) == TOKENS
        with hung(own):
            loaded, took = timed(lambda: engine.backend.batched_get_blocking(keys))
        assert loaded == [None] * CHUNKS and took < 4
        engine.settled()
    assert "batched get blocking timeout" not in log.text


class Gate:
    """Holds calls of a method until it is opened."""

    def __init__(self, monkeypatch, owner, name):
        self.entered, self.opened = threading.Event(), threading.Event()
        inner = getattr(owner, name)

        def gated(*arguments):
            self.entered.set()
            assert self.opened.wait(20)
            return inner(*arguments)

        monkeypatch.setattr(owner, name, gated)


def test_a_load_that_lmcache_gives_up_leaves_nothing_held(cache, monkeypatch):
    tokens = tokens_of("given up", TOKENS)
    with Engine({"router": cache.router, "load_threads": 2}) as engine:
        engine.store(tokens, engine.computed("given up", TOKENS))
        keys = [key for _, _, key in engine.engine.token_database.process_tokens(tokens)]
        gate = Gate(monkeypatch, engine.connector._store, "load")
        loop = engine.manager.loop
        load = asyncio.run_coroutine_threadsafe(engine.backend.connection.batched_get(keys), loop)
        assert gate.entered.wait(10)
        load.cancel()
        with pytest.raises(CancelledError):
            load.result()
        gate.opened.set()
        wait_until(lambda: engine.connector.stats()["blocks_fetched"] > 0, 10, "nothing came")
        engine.settled()
        assert engine.connector.stats()["blocks_fetched"] < CHUNKS, "threads worked for nobody"


def test_a_save_that_lmcache_gives_up_does_not_lose_its_memory_while_it_is_read(cache, monkeypatch):
    tokens = tokens_of("put given up", CHUNK_TOKENS)
    with Engine({"router": cache.router}) as engine:
        gate = Gate(monkeypatch, engine.connector._store, "save")
        kv = engine.computed("put given up", CHUNK_TOKENS)
        (key,) = [key for _, _, key in engine.engine.token_database.process_tokens(tokens)]
        memory = engine.manager.allocate(
            engine.engine.metadata.get_shapes(), engine.engine.metadata.get_dtypes()
        )
        memory.tensor.copy_(kv)
        loop = engine.manager.loop
        save = asyncio.run_coroutine_threadsafe(
            engine.backend.connection.batched_put([key], [memory]), loop
        )
        assert gate.entered.wait(10)
        save.cancel()
        wait_until(lambda: memory.get_ref_count() < 2, 10, "LMCache did not let go")
        assert memory.get_ref_count() == 1, "the memory is free while a thread reads it"
        gate.opened.set()
        engine.settled()
        came, back = engine.retrieve(tokens)
        assert came == CHUNK_TOKENS and same(back, kv)


def test_without_memory_a_load_ends_at_its_deadline(cache, log):
    tokens = tokens_of("no memory", TOKENS)
    with Engine({"router": cache.router, **TIMES}) as engine:
        kv = engine.computed("no memory", TOKENS)
        engine.store(tokens, kv)
        keys = [key for _, _, key in engine.engine.token_database.process_tokens(tokens)]
        metadata = engine.engine.metadata
        taken = []
        while (one := engine.manager.allocate(
            metadata.get_shapes(), metadata.get_dtypes(), busy_loop=False
        )) is not None:  # fmt: skip
            taken.append(one)
        taken.pop().ref_count_down()
        before = engine.allocated()
        loaded, took = timed(lambda: engine.backend.batched_get_blocking(keys))
        assert sum(memory is not None for memory in loaded) == 1
        assert LOAD_S <= took < LOAD_S + SLACK_S
        for memory in loaded:
            if memory is not None:
                memory.ref_count_down()
        wait_until(lambda: engine.allocated() == before, 10, "a memory object is lost")
        for one in taken:
            one.ref_count_down()
        engine.settled()
        assert engine.retrieve(tokens)[0] == TOKENS
    assert "LMCache has no memory for it" in log.text


def test_a_prefix_alone_comes_without_waiting_and_the_rest_is_let_go(cache):
    """What LMCache calls with enable_async_loading."""
    tokens = tokens_of("prefix alone", TOKENS)
    with Engine({"router": cache.router}) as engine:
        engine.store(tokens, engine.computed("prefix alone", TOKENS))
        keys = [key for _, _, key in engine.engine.token_database.process_tokens(tokens)]
        assert engine.backend.remove(keys[3])
        loop = engine.manager.loop

        def call(coroutine):
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

        assert call(engine.backend.batched_async_contains("one", keys)) == 3
        loaded = call(engine.backend.batched_get_non_blocking("one", keys))
        assert [memory.get_ref_count() for memory in loaded] == [1, 1, 1]
        for memory in loaded:
            memory.ref_count_down()
        engine.settled()


def test_many_rounds_leave_no_memory_object_and_no_lease(cache):
    with Engine({"router": cache.router, "lookup_hold_ms": 500}) as engine:
        for number in range(30):
            seed = f"round {number}"
            tokens = tokens_of(seed, 3 * CHUNK_TOKENS)
            kv = engine.computed(seed, len(tokens))
            engine.store(tokens, kv)
            assert engine.lookup(tokens + tokens_of("unknown", CHUNK_TOKENS)) == len(tokens)
            if number % 2:  # the others are found and never loaded
                came, back = engine.retrieve(tokens)
                assert came == len(tokens) and same(back, kv)
            assert engine.allocated() == 0
        assert sum(describe(shard.address).leases for shard in cache.shards) > 0
        wait_until(
            lambda: not sum(describe(shard.address).leases for shard in cache.shards),
            15, "shards have leases",
        )  # fmt: skip
        assert len(engine.connector._store._leased) == 0


def test_what_was_found_is_held_for_its_load(cache):
    """Evicted between the question and the load, if it were not leased."""
    tokens = tokens_of("held", 2 * CHUNK_TOKENS)
    with Engine({"router": cache.router}) as engine, Engine({"router": cache.router}) as other:
        kv = engine.computed("held", len(tokens))
        engine.store(tokens, kv)
        assert engine.lookup(tokens) == len(tokens)
        asked = engine.connector.stats()["acquires"]
        assert other.engine.clear(tokens=tokens) == 0
        came, back = engine.retrieve(tokens)
        assert came == len(tokens) and same(back, kv)
        assert engine.connector.stats()["acquires"] == asked, "asked twice for what it holds"
