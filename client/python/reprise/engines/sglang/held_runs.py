"""Runs that were found and are about to be loaded: SGLang asks first and loads later, and what it
was told is there must still be there then.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable

import numpy as np

from reprise.keys import KeyArray
from reprise.run import Run


@dataclasses.dataclass
class Held:
    """A run and the chain that it was asked for."""

    chain: KeyArray
    run: Run
    until: float = 0.0

    def leases(self, chain: KeyArray, block: int) -> bool:
        """Whether the run leases this block of this chain."""
        if not self.run.first_block <= block < min(self.run.blocks, len(self.chain)):
            return False
        # A key stands for all that is before it: equal here, equal up to here.
        return np.array_equal(self.chain[block], chain[block])


class HeldRuns:
    """Leased runs until they are taken, until `hold_s` has passed, or until there are more than
    `held_max`: then the oldest lets go. Thread-safe.
    """

    def __init__(
        self, hold_s: float, held_max: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hold_s = hold_s
        self._held_max = held_max
        self._clock = clock
        self._held: collections.deque[Held] = collections.deque()  # the oldest first
        self._changed = threading.Condition()
        self._closed = False
        self._reaper = threading.Thread(target=self._reap, name="reprise-leases", daemon=True)
        self._reaper.start()

    def hold(self, held: Held) -> None:
        with self._changed:
            if self._closed:
                dropped = [held]
            else:
                held.until = self._clock() + self._hold_s
                self._held.append(held)
                excess = max(0, len(self._held) - self._held_max)
                dropped = [self._held.popleft() for _ in range(excess)]
                self._changed.notify_all()
        for old in dropped:
            old.run.release()

    def take(self, chain: KeyArray, block: int) -> Held | None:
        """The longest that leases `block` of this chain. It is the caller's to hold again or to
        release.
        """
        with self._changed:
            fitting = [one for one in self._held if one.leases(chain, block)]
            if not fitting:
                return None
            best = max(fitting, key=lambda one: one.run.blocks)
            self._held = collections.deque(one for one in self._held if one is not best)
            return best

    def close(self) -> None:
        """Releases all of them, and what is still to be held."""
        with self._changed:
            self._closed = True
            held, self._held = list(self._held), collections.deque()
            self._changed.notify_all()
        for one in held:
            one.run.release()
        self._reaper.join()

    def _reap(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not self._expired():
                    left = self._held[0].until - self._clock() if self._held else None
                    self._changed.wait(left)
                if self._closed:
                    return
                run = self._held.popleft().run
            run.release()

    def _expired(self) -> bool:
        return bool(self._held) and self._held[0].until <= self._clock()
