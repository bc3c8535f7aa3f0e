"""The workers, as who measures sees them: processes that carry out orders, several at once."""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from demo.server_process import stop_process

ANSWER_TIMEOUT_S = 90.0
SOON_NS = 3_000_000  # in which all workers have read an order
WORKER = pathlib.Path(__file__).parent / "worker.py"


class Failed(RuntimeError):
    """A worker could not do what it was told to."""


class Workers:
    """Some workers of one kind: one Python, one network namespace."""

    def __init__(
        self,
        count: int,
        blocks: int,
        block_bytes: int,
        folder: pathlib.Path,
        *,
        python: str,
        name: str,
        inside: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        shape = [str(blocks), str(block_bytes)]
        try:
            for seed in range(count):
                with (folder / f"worker-{name}-{seed}.log").open("ab") as log:
                    process = subprocess.Popen(
                        [*inside, python, str(WORKER), *shape, str(seed)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        env={**os.environ, **(environment or {})},
                        start_new_session=True,
                    )
                self._processes.append(process)
            for process in self._processes:
                self._answer(process)
        except BaseException:
            self.close()
            raise

    def all(self, do: str, count: int | None = None, /, **order: Any) -> list[Any]:
        """The first `count` workers (None: all) do it at once. A list in the order stands for one
        value for each of them. Raises Failed.
        """
        chosen = self._processes[:count]
        for i, process in enumerate(chosen):
            own = {k: v[i] if isinstance(v, tuple) else v for k, v in order.items()}
            self._send(process, {"do": do, **own})
        told = [self._answer(process) for process in chosen]
        for one in told:
            if "error" in one:
                raise Failed(f"{do}: {one['error']}")
        return [one["answer"] for one in told]

    def one(self, worker: int, do: str, /, **order: Any) -> Any:
        """One of them does it. Raises Failed."""
        process = self._processes[worker]
        self._send(process, {"do": do, **order})
        told = self._answer(process)
        if "error" in told:
            raise Failed(f"{do}: {told['error']}")
        return told["answer"]

    def at_once(self, do: str, count: int, /, **order: Any) -> list[tuple[int, int]]:
        """The same, begun at one moment: when each began and ended, in nanoseconds."""
        spans = self.all(do, count, at=time.monotonic_ns() + SOON_NS, **order)
        return [(begun, ended) for begun, ended in spans]

    def close(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()  # the end of its orders
        for process in self._processes:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                pass
            stop_process(process)
            if process.stdout is not None:
                process.stdout.close()

    def _send(self, process: subprocess.Popen[bytes], order: dict[str, Any]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise Failed("a worker is gone") from None

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], ANSWER_TIMEOUT_S)
        line = process.stdout.readline() if ready else b""
        if not line:
            raise Failed("a worker ended" if ready else f"silent for {ANSWER_TIMEOUT_S:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        return answer
