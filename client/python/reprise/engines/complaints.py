"""Warnings that a log can bear: a cache that is down fails every call alike."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

INTERVAL_S = 30.0


class Complaints:
    """Logs the first warning of a kind, and then at most one each `interval_s`, with how many were
    left out. Thread-safe.
    """

    def __init__(
        self,
        logger: logging.Logger,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def tell(self, kind: str, message: str, *arguments: object) -> None:
        with self._lock:
            now = self._clock()
            if now < self._next.get(kind, 0.0):
                self._left_out[kind] = self._left_out.get(kind, 0) + 1
                return
            self._next[kind] = now + self._interval_s
            left_out = self._left_out.pop(kind, 0)
        if left_out:
            message += " (%d like it were not logged)"
            arguments = (*arguments, left_out)
        self._logger.warning(message, *arguments)
