"""Reprise: a router and a shard, and a client that may use one lane alone."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Sequence
from typing import Any

from memory import Blocks
from peer import Keys

TIMEOUT_S = 30.0
LAYER_BYTES = 64 << 10  # K and V of 16 tokens, 8 heads, 128 elements of bf16


class Server:
    """`reprise up`, which faults its memory in at its start."""

    def __init__(self, memory_bytes: int, folder: pathlib.Path) -> None:
        from processes import Process

        command = [
            os.path.join(os.environ["REPRISE_BIN"], "reprise"), "up", "--shards", "1",
            "--dram", f"{memory_bytes >> 20}MiB", "--replication", "1", "-o", "json",
        ]  # fmt: skip
        self._process = Process(command, folder / "reprise.log")
        self._process.await_ready(lambda: bool(self._told()))
        self.facts = {"router": self._told()["router"]}

    def stop(self) -> None:
        self._process.stop()

    def _told(self) -> dict[str, Any]:
        """What it says in one line when it serves; nothing before."""
        lines = self._process.log().splitlines(keepends=True)
        for line in lines:
            if line.startswith("{") and line.endswith("\n"):
                told: dict[str, Any] = json.loads(line)
                return told
        return {}


class Client:
    """One store, and one acquire with one fetch, of a prompt. The checksum of each block is made
    and verified within them.
    """

    def __init__(self, router: str, lane: str, block_bytes: int) -> None:
        import reprise

        self._reprise, self._router, self._lane = reprise, router, lane
        self._spec = reprise.CacheSpec(
            f"bench-{block_bytes}", layers=block_bytes // LAYER_BYTES, kv_heads=8, head_dim=128
        )
        # What carries no calls of its own has the tcp port for them, as workers have.
        lanes = [lane] if lane == "stream" else list({lane: None, "tcp": None})
        self._client = reprise.Client(router=router, lanes=lanes, timeout=TIMEOUT_S)

    def store(self, keys: Keys, blocks: Blocks, first: int = 0) -> int:
        done = self._client.store(self._spec, keys.packed, blocks.array[first:], first=first)
        if done.error:
            raise RuntimeError(done.error)
        return done.stored + done.present

    def fetch(self, keys: Keys, blocks: Blocks) -> None:
        with self._client.acquire(self._spec, keys.packed) as run:
            if run.blocks != len(keys):
                raise ValueError(f"{run.blocks} of {len(keys)} blocks are there: {run.error}")
            done = run.fetch(blocks.array)
        if done.blocks != len(keys) or done.lanes != {self._lane: len(keys)}:
            raise ValueError(f"{done.blocks} blocks came, by lane {done.lanes}: {done.error}")

    def prefix(self, keys: Keys) -> int:
        with self._client.acquire(self._spec, keys.packed) as run:
            if run.error:
                raise RuntimeError(run.error)
            return run.blocks

    def stored(self, prompts: Sequence[Keys]) -> int:
        """What the shard counts: nothing but `prompts` is there."""
        program = os.path.join(os.environ["REPRISE_BIN"], "reprise")
        command = [program, "describe", "--router", self._router, "-o", "json"]
        told = json.loads(subprocess.check_output(command, timeout=TIMEOUT_S))
        return sum(shard["blocks"] for shard in told["shards"])

    def remove(self, keys: Keys) -> None:
        self._client.hint(self._spec, keys.packed, self._reprise.Evict())

    def close(self) -> None:
        self._client.close()
