"""The systems that are compared: which are started, where their workers are, and which failed."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import memcached_peer
import mooncake_peer
import redis_peer
import reprise_peer
import socket_control
from measure import Progress, first_line
from namespace import namespace
from peer import Skipped
from workers import Failed, Workers

OURS = ("reprise-view", "reprise-tcp", "reprise-stream")
CONTROL = "socket"
TITLES = {
    "reprise-view": "Reprise, view",
    "reprise-tcp": "Reprise, tcp",
    "reprise-stream": "Reprise, stream",
    "redis": "Redis",
    "memcached": "memcached",
    "mooncake": "Mooncake Store",
    "memcpy": "memcpy",
    "socket": "bare socket",
    "socket-apart": "bare socket, in Mooncake's namespace",
}
NAMES = tuple(TITLES)
PEERS = ("redis", "memcached", "mooncake")


@dataclasses.dataclass(frozen=True)
class Shape:
    """A prompt, what the servers have for such, and how many may work at once."""

    blocks: int
    block_bytes: int
    memory_bytes: int
    workers: int

    @property
    def prompt_bytes(self) -> int:
        return self.blocks * self.block_bytes


class Systems(contextlib.ExitStack):
    """All that were asked for, running; what does not run says why in `skipped` or `failed`."""

    def __init__(
        self, names: tuple[str, ...], shape: Shape, folder: pathlib.Path, progress: Progress
    ) -> None:
        super().__init__()
        self.shape = shape
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._folder, self._progress = folder, progress
        self._running: dict[str, Workers] = {}
        try:
            self._start(names)
        except BaseException:
            self.close()
            raise

    def running(self) -> list[str]:
        return [name for name in self._running if name not in self.failed]

    def workers(self, name: str) -> Workers:
        return self._running[name]

    def attempt(self, name: str, act: Callable[[Workers], Any]) -> Any:
        """What `act` answers; None where it failed, with which the system is out."""
        try:
            return act(self._running[name])
        except (Failed, ValueError, OSError) as error:
            self.failed[name] = first_line(error)
            self._progress.say(f"{name} failed: {self.failed[name]}")
            return None

    def _start(self, names: tuple[str, ...]) -> None:
        here = self._workers("here", sys.executable)
        memory, folder = self.shape.memory_bytes, self._folder
        if "memcpy" in names:
            self._open("memcpy", here, {})
        self._serve(("socket",), names, here, lambda: socket_control.Server(folder))
        self._serve(OURS, names, here, lambda: reprise_peer.Server(memory, folder))
        self._serve(("redis",), names, here, lambda: redis_peer.Server(memory, folder))
        self._serve(("memcached",), names, here, lambda: memcached_peer.Server(memory, folder))
        if "mooncake" in names:
            try:
                self._start_apart()
            except Skipped as why:
                self.skipped["mooncake"] = str(why)
            except (Failed, RuntimeError, OSError) as error:
                self.failed["mooncake"] = first_line(error)
        for name, reason in (self.skipped | self.failed).items():
            self._progress.say(f"no {name}: {reason}")

    def _start_apart(self) -> None:
        python, memory, folder = mooncake_peer.python(), self.shape.memory_bytes, self._folder
        inside = self.enter_context(namespace())
        apart = self._workers(
            "apart", python, inside=inside, environment=mooncake_peer.environment()
        )
        names = ("mooncake", "socket-apart")
        self._serve(names[1:], names, apart, lambda: socket_control.Server(folder, inside))
        self._serve(
            names[:1], names, apart, lambda: mooncake_peer.Server(memory, folder, inside)
        )

    def _workers(self, name: str, python: str, **further: Any) -> Workers:
        shape = self.shape
        made = Workers(
            shape.workers, shape.blocks, shape.block_bytes, self._folder,
            python=python, name=name, **further,
        )  # fmt: skip
        self.callback(made.close)
        return made

    def _serve(
        self,
        served: tuple[str, ...],
        names: tuple[str, ...],
        workers: Workers,
        start: Callable[[], Any],
    ) -> None:
        wanted = [name for name in served if name in names]
        if not wanted:
            return
        try:
            server = start()
        except Skipped as why:
            self.skipped |= {name: str(why) for name in wanted}
            return
        except (RuntimeError, OSError) as error:
            self.failed |= {name: first_line(error) for name in wanted}
            return
        self.callback(server.stop)
        for name in wanted:
            self._open(name, workers, server.facts)

    def _open(self, name: str, workers: Workers, facts: dict[str, Any]) -> None:
        self._running[name] = workers
        self.attempt(name, lambda them: them.all("open", system=name, facts=facts))
