"""memcached over TCP, by its meta commands."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import reach
from memory import Blocks
from peer import Keys, Skipped
from sockets import connected, receive_exactly, receive_parts, send_parts

FOLDER = "REPRISE_PEER_MEMCACHED"  # names where the packages are unpacked


class Server:
    """One `memcached` with two threads that takes values of up to 8 MiB."""

    def __init__(self, memory_bytes: int, folder: pathlib.Path) -> None:
        from demo.server_process import free_port
        from processes import Process, answers, libraries_of

        unpacked = os.environ.get(FOLDER)
        if not unpacked:
            raise Skipped("its package was not brought here")
        port = free_port()
        self.facts = {"address": f"127.0.0.1:{port}"}
        command = [
            # The user stays who it is: with another one the process would outlive this one's death.
            f"{unpacked}/usr/bin/memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port),
            "-U", "0", "-m", str(memory_bytes >> 20), "-I", "8m", "-t", "2",
            # All values have one size: nothing is to be moved between sizes while we measure.
            "-o", "slab_automove=0",
        ]  # fmt: skip
        self._process = Process(command, folder / "memcached.log", libraries_of(unpacked))
        self._process.await_ready(lambda: answers(self.facts["address"]))

    def stop(self) -> None:
        self._process.stop()


class Client:
    """`ms`, `mg` and `md` for each key, all of a prompt's in one go."""

    def __init__(self, address: str) -> None:
        self._socket = connected(address)

    def store(self, keys: Keys, blocks: Blocks, first: int = 0) -> int:
        parts: list[bytes | memoryview] = []
        head, tail = b"ms ", b" %d\r\n" % blocks.block_bytes
        for key, view in zip(keys.hex[first:], blocks.views[first:]):
            parts += [head + key + tail, view]
            head = b"\r\nms "
        parts.append(b"\r\n")
        send_parts(self._socket, parts)
        count = len(keys) - first
        if receive_exactly(self._socket, 4 * count) != b"HD\r\n" * count:
            raise ValueError("ms was refused")
        return count

    def fetch(self, keys: Keys, blocks: Blocks) -> None:
        self._socket.sendall(b"mg " + b" v\r\nmg ".join(keys.hex) + b" v\r\n")
        first = b"VA %d\r\n" % blocks.block_bytes
        expected = [first] + [b"\r\n" + first] * (len(keys) - 1) + [b"\r\n"]
        heads = [bytearray(len(head)) for head in expected]
        parts: list[bytearray | memoryview] = []
        for head, view in zip(heads, blocks.views):
            parts += [head, view]
        receive_parts(self._socket, [*parts, heads[-1]])
        if heads != expected:
            raise ValueError("mg brought not all of the blocks")

    def prefix(self, keys: Keys) -> int:
        return reach.prefix(self._exist(keys), b"EN")

    def stored(self, prompts: Sequence[Keys]) -> int:
        return sum(self._exist(keys).count(b"HD") for keys in prompts)

    def remove(self, keys: Keys) -> None:
        self._socket.sendall(b"md " + b"\r\nmd ".join(keys.hex) + b"\r\n")
        # "HD" or "NF" and the end of a line for each.
        receive_exactly(self._socket, reach.ANSWER_BYTES * len(keys))

    def close(self) -> None:
        self._socket.close()

    def _exist(self, keys: Keys) -> bytes:
        """"HD" or "EN" and the end of a line for each key."""
        self._socket.sendall(b"mg " + b"\r\nmg ".join(keys.hex) + b"\r\n")
        return receive_exactly(self._socket, reach.ANSWER_BYTES * len(keys))
