"""Redis over TCP, without persistence; what was used longest ago leaves when it is full."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import reach
from memory import Blocks
from peer import Keys, Skipped
from sockets import connected, receive_exactly, receive_parts, send_parts

FOLDER = "REPRISE_PEER_REDIS"  # names where the packages are unpacked
# Answers under way at once: Redis has an answer whole in memory before it sends it, so few of them
# keep both ends busy, and many (or one MGET) only take memory. 4 was the fastest of 2, 4, 16, MGET.
WINDOW = 4


class Server:
    """One `redis-server`. Its threads for sockets made nothing faster on two cores: it has none."""

    def __init__(self, memory_bytes: int, folder: pathlib.Path) -> None:
        from demo.server_process import free_port
        from processes import Process, answers, libraries_of

        unpacked = os.environ.get(FOLDER)
        if not unpacked:
            raise Skipped("its package was not brought here")
        port = free_port()
        self.facts = {"address": f"127.0.0.1:{port}"}
        command = [
            f"{unpacked}/usr/bin/redis-server", "--bind", "127.0.0.1", "--port", str(port),
            "--save", "", "--appendonly", "no", "--maxmemory", str(memory_bytes),
            "--maxmemory-policy", "allkeys-lru", "--dir", str(folder),
        ]  # fmt: skip
        # Memory that was touched once stays with the process, as it does with the others.
        kept = {"MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"}
        self._process = Process(command, folder / "redis.log", libraries_of(unpacked) | kept)
        self._process.await_ready(lambda: answers(self.facts["address"]))

    def stop(self) -> None:
        self._process.stop()


class Client:
    """One MSET, which was as fast as SETs in one go or with some under way, or faster; GETs with a
    few of them under way; an EXISTS for each key, in one go.
    """

    def __init__(self, address: str) -> None:
        self._socket = connected(address)

    def store(self, keys: Keys, blocks: Blocks, first: int = 0) -> int:
        count = len(keys) - first
        parts: list[bytes | memoryview] = [b"*%d\r\n$4\r\nMSET" % (2 * count + 1)]
        size = b"\r\n$%d\r\n" % blocks.block_bytes
        for key, view in zip(keys.raw[first:], blocks.views[first:]):
            parts += [b"\r\n$32\r\n" + key + size, view]
        send_parts(self._socket, [*parts, b"\r\n"])
        if receive_exactly(self._socket, 5) != b"+OK\r\n":
            raise ValueError("MSET was refused")
        return count

    def fetch(self, keys: Keys, blocks: Blocks) -> None:
        asks = [b"*2\r\n$3\r\nGET\r\n$32\r\n%b\r\n" % key for key in keys.raw]
        expected = b"$%d\r\n" % blocks.block_bytes
        head, tail = bytearray(len(expected)), bytearray(2)
        self._socket.sendall(b"".join(asks[:WINDOW]))
        for i, view in enumerate(blocks.views[: len(keys)]):
            receive_parts(self._socket, [head, view, tail])
            if head != expected:
                raise ValueError(f"GET answered {bytes(head)!r}")
            if i + WINDOW < len(asks):
                self._socket.sendall(asks[i + WINDOW])

    def prefix(self, keys: Keys) -> int:
        return reach.prefix(self._exist(keys), b":0")

    def stored(self, prompts: Sequence[Keys]) -> int:
        return sum(self._exist(keys).count(b":1") for keys in prompts)

    def remove(self, keys: Keys) -> None:
        asked = b"".join(b"$32\r\n%b\r\n" % key for key in keys.raw)
        self._socket.sendall(b"*%d\r\n$3\r\nDEL\r\n" % (len(keys) + 1) + asked)
        while not self._socket.recv(64).endswith(b"\r\n"):
            pass

    def close(self) -> None:
        self._socket.close()

    def _exist(self, keys: Keys) -> bytes:
        """":1" or ":0" and the end of a line for each key."""
        ask = b"*2\r\n$6\r\nEXISTS\r\n$32\r\n"
        self._socket.sendall(ask + (b"\r\n" + ask).join(keys.raw) + b"\r\n")
        return receive_exactly(self._socket, reach.ANSWER_BYTES * len(keys))
