"""A cache on this machine: router and shards, each a process, started by `reprise up`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

START_SECONDS = 60.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Shard:
    """A shard that serves."""

    id: str
    address: str
    pid: int


class Cluster:
    """`reprise up`, running until `stop` or the end of `with`."""

    def __init__(
        self,
        binaries: Path,
        *,
        shards: int = 3,
        dram: str = "256MiB",
        hbm: str | None = None,
        replication: int = 2,
        log: Path | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """Starts it and waits until everything serves; logs to `log`. Raises RuntimeError.

        `arguments` are further ones of `reprise up`.
        """
        command = [
            str(binaries / "reprise"), "up", "--shards", str(shards), "--dram", dram,
            "--replication", str(replication), "-o", "json", *arguments,
        ]  # fmt: skip
        if hbm:
            command += ["--hbm", hbm]
        self._log: IO[Any] | None = log.open("wb") if log else None
        # A session of its own: Ctrl-C is for us, and we stop it.
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log if self._log else subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            facts = json.loads(self._first_line())
        except BaseException:
            self.stop()
            raise
        self.router: str = facts["router"]
        self.router_pid: int = facts["router_pid"]
        self.shards = [Shard(row["id"], row["address"], row["pid"]) for row in facts["shards"]]

    def shard(self, shard_id: str) -> Shard:
        """The shard of that id."""
        return next(shard for shard in self.shards if shard.id == shard_id)

    def kill_shard(self, shard_id: str) -> Shard:
        """SIGKILL: no goodbye, no drain. Returns when the process is gone."""
        shard = self.shard(shard_id)
        kill_and_wait(shard.pid)
        return shard

    def stop(self) -> None:
        """Stops all of it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        if self._log:
            self._log.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _first_line(self) -> str:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        line = self._process.stdout.readline().decode() if ready else ""
        if not line.strip():
            status = self._process.poll()
            why = (
                f"ended with status {status}"
                if status is not None
                else f"not ready in {START_SECONDS:.0f} s"
            )
            raise RuntimeError(f"`reprise up` {why}")
        return line


def kill_and_wait(pid: int, seconds: float = 10.0) -> None:
    """SIGKILL to `pid`; returns when it runs no more. Raises RuntimeError if it will not die."""
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + seconds
    while _runs(pid):
        if time.monotonic() > end:
            raise RuntimeError(f"process {pid} is still there {seconds} s after SIGKILL")
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # a zombie's sockets are closed
