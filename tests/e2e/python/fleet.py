"""A router and shards, each a process that a test starts, stops and restarts by itself."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 60.0


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
    """Shards "shard-0", "shard-1", ... and a router."""

    def __init__(self, binaries: Path, folder: Path, members: Sequence[str] | None = None) -> None:
        """Starts three shards. `members`: the flags that say who is one; default: a file."""
        self._binaries, self._folder = binaries, folder
        self._ports = free_ports(3)
        self._members = list(members or self._members_file())
        self._shards = [self._start_shard(i) for i in range(3)]
        self._router, facts = self._start(
            "reprise-router",
            ["--listen", "127.0.0.1:0", "--status-listen", "127.0.0.1:0"],
            "router",
        )
        self.router, self.status = facts["address"], facts["status_address"]

    def add_shard(self) -> str:
        """The id of one more, which runs."""
        self._ports += free_ports(1)
        self._shards.append(self._start_shard(len(self._shards)))
        return f"shard-{len(self._shards) - 1}"

    def end_shard(self, index: int, by: signal.Signals = signal.SIGTERM) -> int:
        """How it ended."""
        self._shards[index].send_signal(by)
        return self._shards[index].wait(PATIENCE_SECONDS)

    def restart(self, index: int) -> None:
        """SIGTERM, exit 0, and the same shard again, empty."""
        assert self.end_shard(index) == 0
        self._shards[index] = self._start_shard(index)

    def describe(self) -> dict[str, Any]:
        """As `reprise describe` says it."""
        command = [self._binaries / "reprise", "describe", "--router", self.router, "-o", "json"]
        described: dict[str, Any] = json.loads(subprocess.check_output(command))
        return described

    def states(self) -> dict[str, str]:
        """What the router says of each shard."""
        return {shard["id"]: shard["state"] for shard in self.describe()["router"]["shards"]}

    def await_states(self, states: dict[str, str]) -> None:
        """Returns when the router says exactly this."""
        end = time.monotonic() + PATIENCE_SECONDS
        while (now := self.states()) != states:
            assert time.monotonic() < end, now
            time.sleep(0.05)

    def await_all_alive(self) -> None:
        """Returns when the router sees every shard serving."""
        self.await_states({f"shard-{i}": "alive" for i in range(len(self._shards))})

    def stop(self) -> None:
        """Ends what is left."""
        for process in [*self._shards, self._router]:
            process.kill()
            process.wait()

    def _members_file(self) -> list[str]:
        lines = [
            f'  - {{id: shard-{i}, address: "127.0.0.1:{port}"}}'
            for i, port in enumerate(self._ports)
        ]
        (self._folder / "members.yaml").write_text("shards:\n" + "\n".join(lines) + "\n")
        return ["--members", str(self._folder / "members.yaml")]

    def _start_shard(self, index: int) -> subprocess.Popen[bytes]:
        options = ["--id", f"shard-{index}", "--listen", f"127.0.0.1:{self._ports[index]}"]
        options += ["--dram", "64MiB", "--grace", "30"]
        return self._start("reprise-shard", options, f"shard-{index}")[0]

    def _start(
        self, name: str, options: list[str], log: str
    ) -> tuple[subprocess.Popen[bytes], dict[str, str]]:
        command = [str(self._binaries / name), *options, "-o", "json", *self._members]
        with (self._folder / f"{log}.log").open("ab") as file:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())


@contextmanager
def running(
    binaries: Path, folder: Path, members: Sequence[str] | None = None
) -> Iterator[Fleet]:
    """A fleet whose router sees all of it."""
    fleet = Fleet(binaries, folder, members)
    try:
        fleet.await_all_alive()
        yield fleet
    finally:
        fleet.stop()
