"""A server as a process of this machine, which ends with this one."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Sequence

from demo.server_process import stop_process

START_TIMEOUT_S = 30.0
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
# What is not stopped, because this process was killed, ends all the same.
_TOGETHER = ("setpriv", "--pdeathsig", "KILL")


class Process:
    """Runs from where it is made until `stop`; stdout and stderr go to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        log: pathlib.Path,
        environment: dict[str, str] | None = None,
        *,
        inside: Sequence[str] = (),
    ) -> None:
        self._name, self._log = pathlib.Path(command[0]).name, log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [*_TOGETHER, *inside, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def await_ready(self, ready: Callable[[], bool]) -> None:
        """Returns when `ready` says so. Raises RuntimeError with the end of its log."""
        end = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                said = self.log().strip()[-300:] or "nothing in its log"
                raise RuntimeError(f"{self._name} did not start: {said}")
            time.sleep(0.02)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        stop_process(self._process)


def answers(address: str) -> bool:
    """Whether somebody listens at "host:port"."""
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 1.0).close()
    except OSError:
        return False
    return True


def libraries_of(*folders: str) -> dict[str, str]:
    """The environment in which programs find the libraries of unpacked packages."""
    found = [os.path.join(folder, name) for folder in folders for name in LIBRARIES]
    return {"LD_LIBRARY_PATH": os.pathsep.join(name for name in found if os.path.isdir(name))}
