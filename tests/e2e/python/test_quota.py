"""A tenant at its quota makes room with its own blocks, and says that this is why one is gone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster

Prompt = Callable[[int], np.ndarray]
Start = Callable[..., Cluster]

MIB = 1 << 20


def used_bytes(binaries: Path, cluster: Cluster) -> dict[str, int]:
    """Bytes of each tenant's blocks, on all shards."""
    text = subprocess.run(
        [binaries / "reprise", "get", "specs", "--router", cluster.router, "-o", "json"],
        check=True, capture_output=True, text=True).stdout
    used: dict[str, int] = {}
    for row in json.loads(text)["specs"]:
        used[row["tenant"]] = used.get(row["tenant"], 0) + row["blocks"] * row["block_bytes"]
    return used


def test_a_tenant_keeps_within_its_quota_and_explain_says_so(
    own_cluster: Start, binaries: Path, prompt: Prompt
) -> None:
    quota = 4 * MIB
    cluster = own_cluster(
        shards=1, replication=1, arguments=["--tenant-quota", f"default={quota // MIB}MiB"])
    spec = make_spec(layers=4, head_dim=64)  # blocks of 64 KiB
    blocks = quota // 2 // spec.block_bytes
    with reprise.Client(router=cluster.router) as client:
        chains = [reprise.block_keys(prompt(blocks * spec.block_tokens)) for _ in range(4)]
        for keys in chains:
            result = client.store(spec, keys, random_blocks(spec, blocks))
            assert (result.stored, result.error) == (blocks, None)
        assert used_bytes(binaries, cluster) == {"default": 2 * blocks * spec.block_bytes}
        for keys, kept in zip(chains, [0, 0, blocks, blocks], strict=True):
            with client.acquire(spec, keys) as run:
                assert run.blocks == kept
        (shard,) = client.explain(spec, chains[0])["shards"]
        assert "another block of this tenant, which is at its quota here" in shard["sentence"]


def test_a_quota_that_is_none_is_refused_at_start(binaries: Path) -> None:
    for text, says in (("acme", "must be NAME=SIZE"), ("acme=much", "the size must be")):
        ended = subprocess.run(
            [binaries / "reprise-shard", "--tenant-quota", text],
            capture_output=True, text=True, timeout=30)
        assert ended.returncode != 0
        assert f"--tenant-quota {text}: {says}" in ended.stderr
