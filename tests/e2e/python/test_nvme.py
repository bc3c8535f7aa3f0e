"""What is too cold for memory lies on a disk, and comes back from there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster

Prompt = Callable[[int], np.ndarray]
Start = Callable[..., Cluster]


@pytest.mark.parametrize(
    "lanes", [["stream"], ["tcp"], ["view", "stream"]], ids=["stream", "tcp", "view"])
def test_four_times_the_memory_is_stored_and_read_byte_for_byte(
    own_cluster: Start, binaries: Path, tmp_path: Path, prompt: Prompt, lanes: list[str]
) -> None:
    cluster = own_cluster(
        shards=1, replication=1, dram="8MiB",
        arguments=["--nvme", "40MiB", "--nvme-dir", str(tmp_path)])
    spec = make_spec(layers=4, head_dim=64)  # blocks of 64 KiB
    chains = [reprise.block_keys(prompt(64 * spec.block_tokens)) for _ in range(8)]  # 4 MiB each
    stored = [random_blocks(spec, 64) for _ in chains]
    tiers: dict[str, int] = {}
    with reprise.Client(router=cluster.router, lanes=lanes) as client:
        for keys, blocks in zip(chains, stored, strict=True):
            result = client.store(spec, keys, blocks)
            assert (result.stored, result.error) == (64, None)
        for keys, blocks in zip(chains, stored, strict=True):
            back = np.zeros_like(blocks)
            with client.acquire(spec, keys) as run:
                assert run.blocks == 64
                fetched = run.fetch(back)
            assert fetched.error is None
            assert np.array_equal(back, blocks)
            for tier, count in fetched.tiers.items():
                tiers[tier] = tiers.get(tier, 0) + count
    assert tiers["nvme"] >= 4 * 64 and tiers["dram"] >= 64
    assert tiers["nvme"] + tiers["dram"] == 8 * 64
    (shard,) = json.loads(subprocess.run(
        [binaries / "reprise", "describe", "--router", cluster.router, "-o", "json"],
        check=True, capture_output=True, text=True).stdout)["shards"]
    assert [tier["tier"] for tier in shard["tiers"]] == ["dram", "nvme"]
    assert not list(tmp_path.glob("reprise-*")), "the file has no name"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nvme", "10MiB"], "--nvme needs --nvme-dir"),
        (["--nvme", "1MiB", "--nvme-dir", "/tmp"], "kExtentBytesMin"),
        (["--nvme", "10MiB", "--nvme-dir", "/nonexistent"], "/nonexistent"),
        (["--nvme", "1PiB", "--nvme-dir", "/tmp"], "start with a smaller --nvme"),
    ],
)
def test_a_disk_that_cannot_be_had_is_said_at_start(
    binaries: Path, arguments: list[str], says: str
) -> None:
    ended = subprocess.run(
        [binaries / "reprise-shard", *arguments], capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    assert says in ended.stderr
