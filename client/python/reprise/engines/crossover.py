"""Whether a stored prefix is restored sooner than it is computed, from what both took so far."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

#: What is older counts half for every so many measurements.
HALF_LIFE = 16.0
#: Of prefixes that seem not to pay, one in so many is restored all the same: things change.
TRIED_ANYWAY = 16


@dataclass
class _Line:
    """seconds = setup + rate * amount, by least squares over measurements that fade."""

    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, amount: float, seconds: float) -> None:
        kept = 0.5 ** (1 / HALF_LIFE)
        self.n = self.n * kept + 1
        self.x = self.x * kept + amount
        self.y = self.y * kept + seconds
        self.xx = self.xx * kept + amount * amount
        self.xy = self.xy * kept + amount * seconds

    def at(self, amount: float) -> float | None:
        """Seconds for `amount`; None before anything was measured."""
        if self.n == 0:
            return None
        spread = self.n * self.xx - self.x * self.x
        rate = (self.n * self.xy - self.x * self.y) / spread if spread > 1e-9 * self.xx else 0.0
        setup = (self.y - rate * self.x) / self.n
        # Neither a negative setup nor a negative rate is real: then a line through the origin.
        if rate <= 0 or setup < 0:
            return amount * self.y / self.x if self.x > 0 else None
        return setup + rate * amount


class Crossover:
    """Measures restores and prefills of one model, and says which of the two comes sooner.

    The crossover (the prompt length from which restoring pays) is nobody's setting: it depends on
    the model, the GPU, the lane and what else runs, so it is measured. Thread-safe.
    """

    def __init__(self) -> None:
        """Nothing is known yet: every prefix is restored."""
        self._restores = _Line()
        self._prefills = _Line()
        self._skipped = 0
        self._lock = Lock()

    def note_restore(self, tokens: int, seconds: float) -> None:
        """A prefix of `tokens` was restored, all of it included."""
        if tokens > 0:
            with self._lock:
                self._restores.add(tokens, seconds)

    def note_prefill(self, tokens: int, seconds: float) -> None:
        """`tokens` were computed in one forward pass."""
        if tokens > 0:
            with self._lock:
                self._prefills.add(tokens, seconds)

    def pays(self, tokens: int) -> bool:
        """Whether to restore a prefix of `tokens`; True while one of the two is not measured."""
        with self._lock:
            restore, prefill = self._restores.at(tokens), self._prefills.at(tokens)
            if restore is None or prefill is None or restore <= prefill:
                self._skipped = 0
                return True
            self._skipped += 1
            if self._skipped < TRIED_ANYWAY:
                return False
            self._skipped = 0
            return True

    def tokens(self, limit: int = 1 << 20) -> int | None:
        """The shortest prefix that pays, up to `limit`; None when none does or too little is
        known. For people."""
        with self._lock:
            low, high = 1, limit
            if not self._sooner(high):
                return None
            while low < high:
                middle = (low + high) // 2
                if self._sooner(middle):
                    high = middle
                else:
                    low = middle + 1
            return low

    def _sooner(self, tokens: int) -> bool:
        restore, prefill = self._restores.at(tokens), self._prefills.at(tokens)
        return restore is not None and prefill is not None and restore <= prefill
