"""One shard process after another on a disk that is kept, and what is stored there."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import reprise
from conftest import make_spec, random_blocks
from fleet import free_ports
from status_port import Server, serving

PATIENCE_SECONDS = 60.0
# The journal is at most 0.2 s late: one that did not grow for so long says what is on the disk.
JOURNAL_QUIET_SECONDS = 0.6
PROMPT_BLOCKS = 64

Prompt = Callable[[int], np.ndarray]


def new_key(path: Path) -> str:
    """A file with a secret."""
    path.write_bytes(os.urandom(32))
    return str(path)


def described(binaries: Path, *where: str) -> list[dict[str, Any]]:
    """What `reprise describe` says of the shards."""
    command = [str(binaries / "reprise"), "describe", *where, "-o", "json"]
    shards: list[dict[str, Any]] = json.loads(subprocess.check_output(command))["shards"]
    return shards


class KeptShard:
    """One process after another, of one id, on one port, with 8 MiB of memory and one disk."""

    def __init__(self, binaries: Path, folder: Path, nvme: str = "40MiB") -> None:
        self.binaries, self._log = binaries, folder / "shard.log"
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.under_key = ["--nvme-key", new_key(folder / "key")]
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self.arguments = ["--dram", "8MiB", "--grace", "30", "--nvme", nvme, "--nvme-dir",
                          str(self.disk), "--nvme-keep"]  # fmt: skip
        self.command = [str(binaries / "reprise-shard"), "--listen", self.address, *self.arguments]

    @property
    def journal(self) -> Path:
        return self.disk / "reprise-shard-0.journal"

    @contextmanager
    def running(self, *cipher: str) -> Iterator[Server]:
        """The next process, under this shard's key unless told otherwise; killed at the end."""
        with serving(self.binaries / "reprise-shard", *self.arguments,
                     *(cipher or self.under_key), log=self._log, listen=self.address) as server:
            yield server

    def kept(self) -> dict[str, Any]:
        """What `reprise describe` says of its disk."""
        (shard,) = described(self.binaries, "--shard", self.address)
        kept: dict[str, Any] = shard["kept_disk"]
        return kept

    def await_journal(self) -> None:
        """Returns when the journal says all that is on the disk."""
        seen, quiet_since = -1, time.monotonic()
        end = quiet_since + PATIENCE_SECONDS
        while time.monotonic() - quiet_since < JOURNAL_QUIET_SECONDS:
            assert time.monotonic() < end, "it grows and grows"
            if (size := self.journal.stat().st_size) != seen:
                seen, quiet_since = size, time.monotonic()
            time.sleep(0.02)

    def await_scrubbed(self) -> None:
        """Returns when every block that came back was read and checked."""
        end = time.monotonic() + PATIENCE_SECONDS
        while self.kept()["to_scrub_blocks"] > 0:
            assert time.monotonic() < end
            time.sleep(0.02)


def stop(server: Server) -> None:
    """In order, as Kubernetes does it."""
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE_SECONDS) == 0


def kill(server: Server) -> None:
    server.process.kill()
    server.process.wait()


def fetch(
    client: reprise.Client, spec: reprise.CacheSpec, keys: np.ndarray, blocks: np.ndarray,
    session: str | None = None
) -> reprise.FetchResult:
    """What is there of a prompt. It is right, or the test ends here."""
    back = np.zeros_like(blocks)
    with client.acquire(spec, keys, session=session) as run:
        assert run.error is None
        fetched = run.fetch(back[: run.blocks])
        assert (fetched.blocks, fetched.error) == (run.blocks, None)
    assert np.array_equal(back[: fetched.blocks], blocks[: fetched.blocks])
    return fetched


class Prompts:
    """Eight of 4 MiB each: four times a shard's memory."""

    def __init__(self, prompt: Prompt) -> None:
        self.spec = make_spec(layers=4, head_dim=64)  # blocks of 64 KiB
        tokens = PROMPT_BLOCKS * self.spec.block_tokens
        self.keys = [reprise.block_keys(prompt(tokens)) for _ in range(8)]
        self.blocks = [random_blocks(self.spec, PROMPT_BLOCKS, seed=n) for n in range(8)]

    def store(self, client: reprise.Client) -> None:
        for keys, blocks in zip(self.keys, self.blocks, strict=True):
            result = client.store(self.spec, keys, blocks)
            assert (result.stored, result.error) == (PROMPT_BLOCKS, None)

    def fetch(self, client: reprise.Client) -> list[reprise.FetchResult]:
        return [fetch(client, self.spec, keys, blocks)
                for keys, blocks in zip(self.keys, self.blocks, strict=True)]

    def await_served(self, client: reprise.Client) -> None:
        """Returns when a client that saw the shard go has noticed that it is back."""
        end = time.monotonic() + PATIENCE_SECONDS
        while client.acquire(self.spec, self.keys[0]).blocks == 0:
            assert time.monotonic() < end, client.stats()
            time.sleep(0.05)


def by_tier(fetched: list[reprise.FetchResult]) -> dict[str, int]:
    found: dict[str, int] = {}
    for tier, count in itertools.chain(*(one.tiers.items() for one in fetched)):
        found[tier] = found.get(tier, 0) + count
    return found


class Writer:
    """Stores prompt after prompt, each with bytes of its own, until it is stopped."""

    BLOCKS = 16

    def __init__(self) -> None:
        self._spec = make_spec(layers=4, head_dim=64)  # blocks of 64 KiB
        self._base = random_blocks(self._spec, self.BLOCKS).view(np.uint64)
        self.prompts = 0

    @contextmanager
    def storing(self, address: str, pause: float) -> Iterator[None]:
        stopping = threading.Event()

        def write() -> None:
            with reprise.Client(shards=[address], name="writer") as client:
                while not stopping.wait(pause):
                    self.prompts += 1
                    number = self.prompts - 1
                    client.store(self._spec, self._keys(number), self._bytes(number),
                                 session=str(number))  # fmt: skip

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()

    def check(self, address: str) -> int:
        """How many blocks are found, the newest prompts first. All are right."""
        with reprise.Client(shards=[address], name="reader") as client:
            newest_first = reversed(range(self.prompts))
            return sum(
                fetch(client, self._spec, self._keys(n), self._bytes(n)).blocks
                for n in newest_first)

    def _keys(self, number: int) -> np.ndarray:
        tokens = np.arange(self.BLOCKS * self._spec.block_tokens) + 1000 * number
        keys: np.ndarray = reprise.block_keys(tokens)
        return keys

    def _bytes(self, number: int) -> np.ndarray:
        own = np.uint64((number + 1) * 0x9E3779B97F4A7C15 % 2**64)  # no two are alike
        blocks: np.ndarray = (self._base ^ own).view(np.uint8)
        return blocks
