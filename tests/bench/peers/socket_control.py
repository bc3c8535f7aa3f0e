"""A control: a bare TCP connection that carries the same bytes, with nothing stored by key.

The other end keeps what came last in memory that it has touched, and sends it back.
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import struct
import sys
from collections.abc import Sequence

import reach
from memory import Blocks
from peer import KEY_BYTES, Keys
from sockets import connected, receive_exactly, receive_parts, send_parts

ORDER = struct.Struct("<4sQ")  # what to do, with how many bytes
STORE, FETCH, LOOKUP = b"STOR", b"FTCH", b"LOOK"
DONE = b"."


class Server:
    """One process that listens, and one for each connection."""

    def __init__(self, folder: pathlib.Path, inside: Sequence[str] = ()) -> None:
        from processes import Process

        log = folder / ("socket-inside.log" if inside else "socket.log")
        self._process = Process([sys.executable, __file__], log, inside=inside)
        self._process.await_ready(lambda: "\n" in self._process.log())
        self.facts = {"address": f"127.0.0.1:{int(self._process.log())}"}

    def stop(self) -> None:
        self._process.stop()


class Client:
    """One send and one receive of a prompt."""

    def __init__(self, address: str) -> None:
        self._socket = connected(address)

    def store(self, keys: Keys, blocks: Blocks, first: int = 0) -> int:
        size = len(keys) * blocks.block_bytes
        send_parts(self._socket, [ORDER.pack(STORE, size), blocks.array.data.cast("B")])
        if receive_exactly(self._socket, 1) != DONE:
            raise ValueError("the control's other end answered something else")
        return len(keys)

    def fetch(self, keys: Keys, blocks: Blocks) -> None:
        self._socket.sendall(ORDER.pack(FETCH, len(keys) * blocks.block_bytes))
        receive_parts(self._socket, [blocks.array.data.cast("B")])

    def prefix(self, keys: Keys) -> int:
        """One round trip of as many bytes; finds nothing."""
        data = keys.packed.tobytes()
        self._socket.sendall(ORDER.pack(LOOKUP, len(data)) + data)
        receive_exactly(self._socket, reach.ANSWER_BYTES * len(keys))
        return 0

    def remove(self, keys: Keys) -> None:
        pass

    def close(self) -> None:
        self._socket.close()


def serve(connection: socket.socket) -> None:
    """Carries out orders until the other end is gone."""
    kept = bytearray()
    while True:
        try:
            order, size = ORDER.unpack(receive_exactly(connection, ORDER.size))
        except EOFError:
            return
        if size > len(kept):
            kept = bytearray(size)
        memory = memoryview(kept)[:size]
        if order == STORE:
            receive_parts(connection, [memory])
            connection.sendall(DONE)
        elif order == FETCH:
            send_parts(connection, [memory])
        else:
            receive_exactly(connection, size)
            connection.sendall(bytes(size // KEY_BYTES * reach.ANSWER_BYTES))


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not os.fork():
            listener.close()
            try:
                serve(connection)
            finally:
                os._exit(0)
        connection.close()


if __name__ == "__main__":
    main()
