"""A shard behind a network: in a network namespace of its own, over a pair of virtual interfaces.

Addresses are of the range that is set aside for benchmarks (RFC 2544). Only the shard listens, and
only inside the namespace.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import subprocess
from collections.abc import Iterator

HERE, THERE = "198.18.77.1", "198.18.77.2"
COMMAND_TIMEOUT_S = 20.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class NotPermitted(RuntimeError):
    """This machine or user may not make network namespaces."""


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    except FileNotFoundError:
        raise NotPermitted("no `ip` here: install iproute2") from None
    if done.returncode:
        raise NotPermitted(f"`{' '.join(command)}`: {done.stderr.strip()}")


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """The name of a namespace that this process reaches at THERE. Raises NotPermitted."""
    name, link = f"reprise-bench-{os.getpid()}", f"rb{os.getpid() % 1_000_000}"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", f"{link}a", "type", "veth", "peer", "name", f"{link}b", "netns", name)
        _ip("addr", "add", f"{HERE}/30", "dev", f"{link}a")
        _ip("link", "set", f"{link}a", "up")
        _ip("-n", name, "addr", "add", f"{THERE}/30", "dev", f"{link}b")
        _ip("-n", name, "link", "set", f"{link}b", "up")
        yield name
    finally:
        for command in (("link", "del", f"{link}a"), ("netns", "del", name)):
            with contextlib.suppress(NotPermitted, subprocess.TimeoutExpired):
                _ip(*command)


@contextlib.contextmanager
def shard_across_a_network(folder: pathlib.Path) -> Iterator[str]:
    """The address of a shard in a namespace. Raises NotPermitted, or RuntimeError where the shard
    does not start.
    """
    log = folder / "far-shard.log"
    with namespace() as name, log.open("wb") as out:
        shard = subprocess.Popen(
            [
                "ip", "netns", "exec", name,
                os.path.join(os.environ["REPRISE_BIN"], "reprise-shard"),
                "--id", "far", "--listen", f"{THERE}:0", "--insecure", "--no-view",
                "--dram", "1GiB", "-o", "json",
            ],
            stdout=subprocess.PIPE,
            stderr=out,
        )  # fmt: skip
        try:
            assert shard.stdout is not None
            ready, _, _ = select.select([shard.stdout], [], [], START_TIMEOUT_S)
            line = shard.stdout.readline() if ready else b""
            if not line.strip():
                why = log.read_text(errors="replace").strip()[-300:] or "nothing in its log"
                raise RuntimeError(f"the shard in the namespace did not start: {why}")
            yield json.loads(line)["address"]
        finally:
            shard.terminate()
            try:
                shard.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                shard.kill()
                shard.wait()
