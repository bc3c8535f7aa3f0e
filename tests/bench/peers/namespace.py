"""A network namespace with nothing but its loopback, for what listens on all addresses."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from peer import Skipped

UP = "up"
START_TIMEOUT_S = 20.0


@contextlib.contextmanager
def namespace() -> Iterator[list[str]]:
    """What to put before a command that is to run inside. Raises Skipped where it may not be made.
    """
    hold = f"ip link set lo up && echo {UP} && read forever"
    try:
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", hold],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except FileNotFoundError as error:
        raise Skipped(f"a network namespace cannot be made here: {error}") from error
    try:
        assert holder.stdout is not None and holder.stderr is not None
        if holder.stdout.readline().strip() != UP:
            why = holder.stderr.read().strip()[-200:]
            raise Skipped(f"a network namespace cannot be made here: {why}")
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"]
    finally:
        holder.kill()
        holder.communicate(timeout=START_TIMEOUT_S)
