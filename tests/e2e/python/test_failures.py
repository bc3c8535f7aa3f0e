"""Dead and stopped shards are misses or detours: right bytes or none, by the deadline."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster

Prompt = Callable[[int], np.ndarray]
Start = Callable[..., Cluster]

REPLICA_SECONDS = 60.0


def shards_with(client: reprise.Client, spec: reprise.CacheSpec, keys: np.ndarray) -> list[str]:
    """Shards that hold the whole chain."""
    rows = client.explain(spec, keys)["shards"]
    return [row["shard_id"] for row in rows if row.get("run_blocks") == len(keys)]


def await_replicas(client: reprise.Client, spec: reprise.CacheSpec, keys: np.ndarray) -> list[str]:
    """Returns when two shards hold the chain: replication runs in the background."""
    end = time.monotonic() + REPLICA_SECONDS
    while len(holding := shards_with(client, spec, keys)) < 2:
        assert time.monotonic() < end, f"only {holding} hold the chain"
        time.sleep(0.02)
    return holding


def stop_process(pid: int) -> None:
    """SIGSTOP; returns when every thread stands still."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 10.0
    tasks = Path(f"/proc/{pid}/task")
    while not all(state_of(task) == "T" for task in tasks.iterdir()):
        assert time.monotonic() < end, f"{pid} does not stop"
        time.sleep(0.001)


def state_of(task: Path) -> str:
    """The scheduler's letter for a thread."""
    return (task / "stat").read_text().rsplit(")", 1)[1].split()[0]


def test_the_death_of_the_home_shard_loses_nothing(own_cluster: Start, prompt: Prompt) -> None:
    cluster, spec = own_cluster(shards=3), make_spec()
    keys = reprise.block_keys(prompt(160))
    blocks = random_blocks(spec, 10)
    with reprise.Client(router=cluster.router, name="first") as first:
        first.store(spec, keys, blocks, session="s")
        holding = await_replicas(first, spec, keys)
        back = np.zeros_like(blocks)
        with first.acquire(spec, keys, session="s") as run:
            run.fetch(back)
        (home,) = first.stats()["blocks_fetched_by_shard"]
        assert home in holding
    cluster.kill_shard(home)
    with reprise.Client(router=cluster.router, name="second") as second:
        back = np.zeros_like(blocks)
        with second.acquire(spec, keys, session="s") as run:
            result = run.fetch(back)
        assert result.blocks == 10
        assert np.array_equal(back, blocks)
        assert home not in second.stats()["blocks_fetched_by_shard"]
        # And the session goes on.
        longer = reprise.block_keys(np.arange(32), parent=bytes(keys[-1]))
        more = second.store(
            spec, np.concatenate([keys, longer]), random_blocks(spec, 12), session="s"
        )
        assert more.stored + more.present == 12


def test_a_shard_that_dies_between_acquire_and_fetch_is_a_detour_or_a_shorter_run(
    own_cluster: Start, prompt: Prompt
) -> None:
    cluster, spec = own_cluster(shards=3), make_spec()
    keys = reprise.block_keys(prompt(160))
    blocks = random_blocks(spec, 10)
    with reprise.Client(router=cluster.router) as client:
        client.store(spec, keys, blocks, session="s")
        await_replicas(client, spec, keys)
        with client.acquire(spec, keys, session="s") as run:
            probe = np.zeros((1, spec.block_bytes), np.uint8)
            run.fetch(probe, count=1)
            (home,) = client.stats()["blocks_fetched_by_shard"]
            cluster.kill_shard(home)
            back = np.zeros_like(blocks)
            result = run.fetch(back)
        assert result.blocks == 10 or result.error
        assert np.array_equal(back[: result.blocks], blocks[: result.blocks])


def test_a_cache_that_is_gone_is_a_miss_and_no_exception(
    own_cluster: Start, prompt: Prompt
) -> None:
    cluster, spec = own_cluster(shards=2), make_spec()
    keys = reprise.block_keys(prompt(32))
    with reprise.Client(router=cluster.router) as client:
        assert client.store(spec, keys, random_blocks(spec, 2)).stored == 2
        cluster.stop()
        with client.acquire(spec, keys) as run:
            assert run.blocks == 0 and run.error
        stored = client.store(spec, keys, random_blocks(spec, 2))
        assert stored.refused == 2 and stored.error


@pytest.mark.parametrize("lanes", [["stream"], ["tcp", "stream"]], ids=["stream", "tcp"])
def test_a_stopped_shard_costs_no_more_than_the_deadline(
    own_cluster: Start, prompt: Prompt, lanes: list[str]
) -> None:
    cluster, spec = own_cluster(shards=2, replication=1), make_spec()
    keys = reprise.block_keys(prompt(160))
    blocks = random_blocks(spec, 10)
    with reprise.Client(router=cluster.router, lanes=lanes, timeout=120.0) as client:
        client.store(spec, keys, blocks, session="s")
        run = client.acquire(spec, keys, session="s")
        assert run.blocks == 10
        pids = [shard.pid for shard in cluster.shards]
        for pid in pids:
            stop_process(pid)
        try:
            back = np.zeros_like(blocks)
            began = time.monotonic()
            result = run.fetch(back, timeout=1.0)
            assert time.monotonic() - began < 30.0  # its own deadline, not the client's
            assert result.blocks < 10 and result.error
            began = time.monotonic()
            with client.acquire(spec, keys, session="s", timeout=1.0) as late:
                assert late.blocks == 0 and late.error
            assert time.monotonic() - began < 30.0  # its own deadline, not the client's
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        run.release()


def test_a_router_that_is_gone_leaves_those_who_know_the_shards(
    own_cluster: Start, prompt: Prompt
) -> None:
    cluster, spec = own_cluster(shards=2), make_spec()
    keys = reprise.block_keys(prompt(32))
    blocks = random_blocks(spec, 2)
    with reprise.Client(shards=[shard.address for shard in cluster.shards]) as client:
        assert client.store(spec, keys, blocks).stored == 2
        os.kill(cluster.router_pid, signal.SIGKILL)
        back = np.zeros_like(blocks)
        with client.acquire(spec, keys) as run:
            assert run.fetch(back).blocks == 2
    assert np.array_equal(back, blocks)
