"""Every shard is restarted in turn under load: no call fails, and what was stored stays."""

import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import reprise
from conftest import make_spec, random_blocks

CONVERSATIONS = 8
IDLE = 24
BLOCKS = 10
PATIENCE_SECONDS = 60.0
HIT_LOSS_MAX = 0.05


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; each shard keeps its own over a restart."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Fleet:
    """Three shards and a router, each a process that a test restarts by itself."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        """Starts them."""
        self._binaries, self._folder = binaries, folder
        self._ports = free_ports(3)
        members = [
            f'  - {{id: shard-{i}, address: "127.0.0.1:{port}"}}'
            for i, port in enumerate(self._ports)
        ]
        (folder / "members.yaml").write_text("shards:\n" + "\n".join(members) + "\n")
        self._shards = [self._start_shard(i) for i in range(3)]
        self._router, facts = self._start("reprise-router", ["--listen", "127.0.0.1:0"], "router")
        self.router = facts["address"]

    def restart(self, index: int) -> None:
        """SIGTERM, exit 0, and the same shard again, empty."""
        shard = self._shards[index]
        shard.send_signal(signal.SIGTERM)
        assert shard.wait(PATIENCE_SECONDS) == 0
        self._shards[index] = self._start_shard(index)

    def await_all_alive(self) -> None:
        """Returns when the router sees every shard serving."""
        end = time.monotonic() + PATIENCE_SECONDS
        command = [str(self._binaries / "reprise"), "get", "shards", "--router", self.router]
        while True:
            rows = json.loads(subprocess.check_output([*command, "-o", "json"]))["shards"]
            if [row["state"] for row in rows] == ["alive"] * 3:
                return
            assert time.monotonic() < end, rows
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends what is left."""
        for process in [*self._shards, self._router]:
            process.kill()
            process.wait()

    def _start_shard(self, index: int) -> subprocess.Popen[bytes]:
        options = ["--id", f"shard-{index}", "--listen", f"127.0.0.1:{self._ports[index]}"]
        options += ["--dram", "64MiB", "--grace", "30"]
        return self._start("reprise-shard", options, f"shard-{index}")[0]

    def _start(
        self, name: str, options: list[str], log: str
    ) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
        command = [str(self._binaries / name), *options, "-o", "json"]
        command += ["--members", str(self._folder / "members.yaml")]
        with (self._folder / f"{log}.log").open("ab") as file:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())


@contextmanager
def running(binaries: Path, folder: Path) -> Iterator[Fleet]:
    fleet = Fleet(binaries, folder)
    try:
        fleet.await_all_alive()
        yield fleet
    finally:
        fleet.stop()


class Load:
    """One worker that reads conversations, verified, and lets them grow, until it is stopped."""

    def __init__(self, router: str, spec: reprise.CacheSpec) -> None:
        """Stores the conversations' beginnings."""
        self._client = reprise.Client(router=router, name="load", timeout=20)
        self._spec = spec
        self._keys = [
            reprise.block_keys(np.arange(160) + 1000 * (c + 1)) for c in range(CONVERSATIONS)
        ]
        self.asked = self.found = 0
        self.failures: list[str] = []
        for number, keys in enumerate(self._keys):
            blocks = self._bytes(number, 0, BLOCKS)
            assert self._client.store(spec, keys, blocks, session=str(number)).stored == BLOCKS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def await_no_shard_left_out(self) -> None:
        """Returns when this worker has noticed, too, that every shard is back."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            shards = self._client.stats()["shards"]
            if all(shard["breaker"] == "closed" for shard in shards):
                return
            assert time.monotonic() < end, shards
            time.sleep(0.02)

    def stop(self) -> None:
        """Returns when the last call is over."""
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def _bytes(self, number: int, first: int, end: int) -> np.ndarray:
        return random_blocks(self._spec, 200, seed=number)[first:end]

    def _run(self) -> None:
        turn = 0
        try:
            while not self._stopping.is_set():
                self._turn(turn % CONVERSATIONS)
                turn += 1
        except Exception as error:  # told by the test
            self.failures.append(repr(error))

    def _turn(self, number: int) -> None:
        keys = self._keys[number]
        back = np.zeros((len(keys), self._spec.block_bytes), np.uint8)
        with self._client.acquire(self._spec, keys, session=str(number)) as run:
            got = run.fetch(back[: run.blocks]).blocks if run.blocks else 0
        self.asked += len(keys)
        self.found += got
        if not np.array_equal(back[:got], self._bytes(number, 0, got)):
            self.failures.append(f"conversation {number}: wrong bytes")
        if len(keys) < 60:
            longer = reprise.block_keys(np.arange(16) + len(keys), parent=bytes(keys[-1]))
            self._keys[number] = keys = np.concatenate([keys, longer])
        # What was not found is computed and stored again, like an engine does.
        stored = self._client.store(
            self._spec, keys, self._bytes(number, got, len(keys)), first=got, session=str(number)
        )
        if stored.error:
            self.failures.append(f"conversation {number}: {stored}")


def store_idle(router: str, spec: reprise.CacheSpec) -> list[np.ndarray]:
    """Conversations that nobody touches while the shards restart."""
    chains = [reprise.block_keys(np.arange(160) + 500_000 + 1000 * c) for c in range(IDLE)]
    with reprise.Client(router=router, name="idle") as client:
        for number, keys in enumerate(chains):
            blocks = random_blocks(spec, BLOCKS, seed=1000 + number)
            assert client.store(spec, keys, blocks, session=f"idle-{number}").stored == BLOCKS
    return chains


def found_idle(router: str, spec: reprise.CacheSpec, chains: list[np.ndarray]) -> int:
    """Their blocks that are still there, and right."""
    found = 0
    with reprise.Client(router=router, name="idle again") as client:
        for number, keys in enumerate(chains):
            back = np.zeros((len(keys), spec.block_bytes), np.uint8)
            with client.acquire(spec, keys, session=f"idle-{number}") as run:
                got = run.fetch(back[: run.blocks]).blocks if run.blocks else 0
            assert np.array_equal(back[:got], random_blocks(spec, BLOCKS, seed=1000 + number)[:got])
            found += got
    return found


def test_a_rolling_restart_fails_no_call_and_keeps_the_hits(binaries: Path, tmp_path: Path) -> None:
    spec = make_spec()
    with running(binaries, tmp_path) as fleet:
        idle = store_idle(fleet.router, spec)
        load = Load(fleet.router, spec)
        try:
            load.await_no_shard_left_out()
            for index in range(3):
                fleet.restart(index)
                fleet.await_all_alive()
                load.await_no_shard_left_out()
        finally:
            load.stop()
        assert found_idle(fleet.router, spec, idle) >= (1 - HIT_LOSS_MAX) * IDLE * BLOCKS
        assert load.failures == []
        assert load.asked > 3 * CONVERSATIONS * BLOCKS, "there was load all the time"
        assert load.found >= (1 - HIT_LOSS_MAX) * load.asked, f"{load.found} of {load.asked}"
