"""Servers of engines as processes of this machine."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.request
from typing import Any

STOP_TIMEOUT_S = 15.0


class ServerProcess:
    """One server of an engine on loopback, in a session of its own, logging to a file."""

    def __init__(self, engine: str, name: str, folder: pathlib.Path) -> None:
        self.engine, self.name = engine, name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / f"{engine.lower()}-{name}.log"

    def start(self, command: list[str], environment: dict[str, str]) -> None:
        """Runs `command`, with `environment` beside this process's own."""
        self._log = self.log_path.open("ab")
        self.process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def await_answer(self, path: str, timeout_s: float) -> None:
        """Returns when it answers. Raises RuntimeError with the end of its log, or TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"{self.engine} {self.name} ended while starting: {self._last_words()}"
                )
            try:
                urllib.request.urlopen(f"{self.url}{path}", timeout=2).read()
                return
            except OSError:
                time.sleep(0.2)
        raise TimeoutError(
            f"{self.engine} {self.name} does not serve after {timeout_s:.0f} s: "
            f"{self._last_words()}"
        )

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _last_words(self) -> str:
        """In one line what its log says of an error, or says last; then the end of the log."""
        lines = [line.strip() for line in self.log().splitlines() if line.strip()] or ["(no log)"]
        errors = [line for line in lines if "Error" in line]
        return f"{(errors or lines)[-1]}\nThe end of its log:\n{self.log()[-3000:]}"

    def kill(self) -> None:
        """SIGKILL for all of its processes: a machine that lost power."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        stop_process(self.process)
        self._log.close()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def stop_process(process: subprocess.Popen[Any]) -> None:
    """Asks the process to end, then ends its whole process group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else is in it
    except ProcessLookupError:
        pass
    process.wait()
