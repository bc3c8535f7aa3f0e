"""Chunks that were found and are about to be loaded: LMCache asks first and loads later, and what
it was told is there must still be there then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

from reprise.run import Run


class LeasedChunks:
    """Leased runs by their chunk's name until they are taken, until `hold_s` has passed, or until
    there are more than `held_max`: then the oldest lets go. Thread-safe.
    """

    def __init__(
        self, hold_s: float, held_max: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hold_s = hold_s
        self._held_max = held_max
        self._clock = clock
        self._held: dict[Hashable, tuple[float, Run]] = {}  # the oldest first
        self._changed = threading.Condition()
        self._closed = False
        self._reaper = threading.Thread(target=self._reap, name="reprise-leases", daemon=True)
        self._reaper.start()

    def hold(self, name: Hashable, run: Run) -> None:
        """Keeps `run` for the chunk, in place of one that is held for it already."""
        with self._changed:
            dropped = [run] if self._closed else self._exchange(name, run)
        for old_run in dropped:
            old_run.release()

    def holds(self, name: Hashable) -> bool:
        """Whether the chunk is held, and will be for the next while."""
        with self._changed:
            until, _ = self._held.get(name, (0.0, None))
            return until - self._clock() > self._hold_s / 2

    def take(self, name: Hashable) -> Run | None:
        """The chunk's run: the caller's to release."""
        with self._changed:
            held = self._held.pop(name, None)
            return held[1] if held is not None else None

    def close(self) -> None:
        """Releases all of them, and what is still to be held."""
        with self._changed:
            self._closed = True
            held, self._held = list(self._held.values()), {}
            self._changed.notify_all()
        for _, run in held:
            run.release()
        self._reaper.join()

    def __len__(self) -> int:
        with self._changed:
            return len(self._held)

    def _exchange(self, name: Hashable, run: Run) -> list[Run]:
        """Takes `run` in; those that have to let go for it. Under the lock."""
        before = self._held.pop(name, None)
        self._held[name] = (self._clock() + self._hold_s, run)
        oldest = list(self._held)[: max(0, len(self._held) - self._held_max)]
        self._changed.notify_all()
        dropped = [self._held.pop(old)[1] for old in oldest]
        return dropped if before is None else [*dropped, before[1]]

    def _reap(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (left := self._left()) != 0:
                    self._changed.wait(left)
                if self._closed:
                    return
                _, run = self._held.pop(next(iter(self._held)))
            run.release()

    def _left(self) -> float | None:
        """Seconds that the oldest still has; None: nothing is held."""
        for until, _ in self._held.values():
            return max(0.0, until - self._clock())
        return None
