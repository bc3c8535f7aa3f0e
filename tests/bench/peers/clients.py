"""The client of each system, by its name: what a worker opens."""

from __future__ import annotations

from typing import Any

import memcached_peer
import memcpy_control
import mooncake_peer
import redis_peer
import reprise_peer
import socket_control
from memory import Memory


def opened(system: str, facts: dict[str, Any], memory: Memory) -> Any:
    """A connected client (peer.Client; controls have a part of it)."""
    if system in ("reprise-view", "reprise-tcp", "reprise-stream"):
        lane = system.removeprefix("reprise-")
        return reprise_peer.Client(facts["router"], lane, memory.source.block_bytes)
    if system == "redis":
        return redis_peer.Client(facts["address"])
    if system == "memcached":
        return memcached_peer.Client(facts["address"])
    if system == "mooncake":
        return mooncake_peer.Client(memory)
    if system == "memcpy":
        return memcpy_control.Client(memory)
    if system in ("socket", "socket-apart"):
        return socket_control.Client(facts["address"])
    raise ValueError(f"no system is called {system}")
