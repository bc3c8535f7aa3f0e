"""What a benchmark case is, how its numbers are told, and the clock that bounds all of it."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from typing import Any

FAILURES_MAX = 3  # samples of one case that may fail before the case is given up


class Budget:
    """Time that a part of the benchmark may take: it measures less rather than longer."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def part(self, seconds: float) -> Budget:
        """At most so much of what is left."""
        return Budget(min(seconds, self.left()))


class Progress:
    """One line for each thing that is begun, on stderr: the table alone is on stdout."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def say(self, text: str) -> None:
        load = os.getloadavg()[0]
        passed = time.monotonic() - self._begun
        print(f"{passed:6.1f} s  load {load:4.1f}  {text}", file=sys.stderr, flush=True)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(values: list[float]) -> dict[str, float]:
    return {
        "p50": percentile(values, 0.5),
        "p99": percentile(values, 0.99),
        "min": min(values),
        "max": max(values),
        "samples": len(values),
    }


@dataclasses.dataclass
class Case:
    """One row. `sample` takes the sample's number and returns milliseconds; whatever it raises
    fails that sample, and after FAILURES_MAX of them this case and no other.
    """

    name: str
    sample: Callable[[int], float]
    prepare: Callable[[], None] | None = None
    skipped: str = ""
    failed: str = ""
    failures: int = 0
    values: list[float] = dataclasses.field(default_factory=list)

    @property
    def runs(self) -> bool:
        return not self.skipped and not self.failed

    def attempt(self, number: int) -> None:
        """Takes one sample; notes its value, or that it failed."""
        try:
            self.values.append(self.sample(number))
        except Exception as error:
            self.failures += 1
            if self.failures >= FAILURES_MAX:
                self.fail(error)

    def fail(self, error: Exception) -> None:
        self.failed = first_line(error)

    def facts(self) -> dict[str, Any]:
        told: dict[str, Any] = {"failed_samples": self.failures}
        if self.skipped:
            told["skipped"] = self.skipped
        elif self.failed:
            told["failed"] = self.failed
        if self.values:
            told |= summary(self.values)
        return told


def first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def take_turns(cases: list[Case], samples: int, budget: Budget, progress: Progress) -> None:
    """Samples all cases in turn, forwards and backwards, so that a busy minute hits all of them
    and none always comes after the same one.
    """
    for case in cases:
        if case.runs and case.prepare is not None:
            progress.say(f"{case.name}: preparing")
            try:
                case.prepare()
            except Exception as error:
                case.fail(error)
    told = time.monotonic()
    for number in range(samples):
        for case in cases if number % 2 == 0 else cases[::-1]:
            if not budget.left():
                progress.say(f"time is up after {number} of {samples} rounds")
                return
            if case.runs:
                case.attempt(number)
        if time.monotonic() - told > 10 or number == samples - 1:
            told = time.monotonic()
            progress.say(f"round {number + 1} of {samples}")
