"""What is said of repeated measurements: medians of ratios within a repetition, and how far they
are apart.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

NOISY_SPREAD = 0.4  # of the bare socket: above it the machine was too busy to be quoted


@dataclasses.dataclass(frozen=True)
class Spread:
    """A median, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError for no values."""
        if not values:
            raise ValueError("nothing was measured")
        return cls(statistics.median(values), min(values), max(values))

    @property
    def share(self) -> float:
        """From the lowest to the highest, as a share of the median."""
        return (self.high - self.low) / self.median


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """`ours` over `theirs`, divided within each repetition: a busy minute that hit both is none.
    Raises ValueError unless both have as many repetitions.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} repetitions beside {len(theirs)}")
    return Spread.of([our / their for our, their in zip(ours, theirs)])


def noisy(control: Sequence[float]) -> bool:
    """Whether what was measured beside this control is not to be quoted."""
    return Spread.of(control).share > NOISY_SPREAD
