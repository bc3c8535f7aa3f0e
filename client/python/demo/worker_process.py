"""A worker as its parent sees it: started, asked, killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any


class WorkerFailed(RuntimeError):
    """The worker's process ended, with the last words of its log."""


class WorkerProcess:
    """A process that runs `demo.worker`. Its log goes to a file in `folder`."""

    def __init__(self, name: str, setup: dict[str, Any], folder: Path) -> None:
        """Starts it and waits until its model is loaded. Raises WorkerFailed."""
        self.name = name
        self._log = folder / f"worker-{name}.log"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demo.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log.open("wb"),
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
            text=True,
        )
        self.facts = self._exchange({**setup, "name": name, "folder": str(folder)})

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        tokens: list[int] = self._exchange({"encode": text})["tokens"]
        return tokens

    def ask(self, how: str, prompt: list[int], count: int, **more: Any) -> dict[str, Any]:
        """An answer of `count` tokens to `prompt`; `demo.worker` says what `how` may be."""
        return self._exchange({"how": how, "prompt": prompt, "count": count, **more})

    def shards_with(self, tokens: list[int]) -> dict[str, int]:
        """Blocks of a prompt on each shard that answers."""
        shards: dict[str, int] = self._exchange({"replicas": tokens})["shards"]
        return shards

    def kill(self) -> int:
        """SIGKILL. Returns its process id when it is gone."""
        self._process.kill()
        self._process.wait()
        self._close()
        return self._process.pid

    def stop(self) -> None:
        """Ends it, if it still runs."""
        if self._process.poll() is None:
            self.kill()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:
            self.stop()
            raise
        if not line:
            self._process.wait()
            self._close()
            words = self._log.read_text(errors="replace").strip().splitlines()[-12:]
            raise WorkerFailed(
                f"worker {self.name} ended with {self._process.returncode}:\n" + "\n".join(words)
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
