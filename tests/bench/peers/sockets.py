"""Bytes over sockets without a copy of our own: out of the caller's buffers and into them."""

from __future__ import annotations

import socket
from collections.abc import Sequence

TIMEOUT_S = 20.0
PARTS_MAX = 1000  # of one call; the kernel takes 1024 (IOV_MAX)


def connected(address: str) -> socket.socket:
    """A connection to "host:port" that sends at once what it is given."""
    host, port = address.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def send_parts(connection: socket.socket, parts: Sequence[bytes | memoryview]) -> None:
    """Sends all of `parts`, in few calls."""
    left = _Parts(parts)
    while left.some():
        left.advance(connection.sendmsg(left.next()))


def receive_parts(connection: socket.socket, parts: Sequence[bytearray | memoryview]) -> None:
    """Fills all of `parts`, in few calls. Raises EOFError where the other end closes before."""
    left = _Parts(parts)
    while left.some():
        got = connection.recvmsg_into(left.next())[0]
        if not got:
            raise EOFError("the other end closed the connection")
        left.advance(got)


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """The next `count` bytes. Raises EOFError where the other end closes before."""
    data = bytearray(count)
    receive_parts(connection, [data])
    return bytes(data)


class _Parts:
    """What of some buffers is still to be carried."""

    def __init__(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        self._parts = [memoryview(part) for part in parts if len(part)]
        self._at = 0

    def some(self) -> bool:
        return self._at < len(self._parts)

    def next(self) -> list[memoryview]:
        return self._parts[self._at : self._at + PARTS_MAX]

    def advance(self, count: int) -> None:
        while count:
            part = self._parts[self._at]
            if count < len(part):
                self._parts[self._at] = part[count:]
                return
            count -= len(part)
            self._at += 1
