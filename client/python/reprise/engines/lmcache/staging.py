"""Buffers for the parts of a chunk that are not whole in a memory object."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from .parts import Bytes


class Staging:
    """Buffers that are used again, because fresh memory costs more than the copy; `idle_max` of one
    size are kept. Thread-safe.
    """

    def __init__(self, idle_max: int) -> None:
        self._idle_max = idle_max
        self._lock = threading.Lock()
        self._idle: dict[int, list[Bytes]] = {}

    @contextlib.contextmanager
    def lend(self, nbytes: int) -> Iterator[Bytes]:
        """A buffer of that size, with whatever in it."""
        with self._lock:
            idle = self._idle.setdefault(nbytes, [])
            buffer = idle.pop() if idle else None
        if buffer is None:
            buffer = np.empty(nbytes, np.uint8)
        try:
            yield buffer
        finally:
            with self._lock:
                if len(idle) < self._idle_max:
                    idle.append(buffer)
