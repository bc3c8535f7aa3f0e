"""One request's question to the cache: how much of this prompt is stored, on every rank and in
every group?

Invariant: while an answer of more than zero blocks stands, its leases are held; `close` ends them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .spec_from_engine import Part


class Leftovers:
    """Cancelled questions that are not over yet. Dropping one would wait for it; here nobody
    waits.
    """

    def __init__(self) -> None:
        self._operations: list[Any] = []

    def add(self, operation: Any) -> None:
        operation.cancel()
        self._operations.append(operation)

    def sweep(self) -> None:
        """Drops those that are over, and with them whatever they leased."""
        self._operations = [operation for operation in self._operations if not operation.done()]

    def __bool__(self) -> bool:
        return bool(self._operations)


@dataclasses.dataclass
class Lookup:
    """`first_tokens`: what the engine had when it asked; blocks before are counted, not leased."""

    first_tokens: int
    asked_at: float
    deadline: float
    parts: list[Part]
    operations: list[Any]
    leftovers: Leftovers
    runs: list[Any] = dataclasses.field(default_factory=list)
    tokens: int | None = None  # the answer, once there is one
    outcome: str = ""  # hit, miss, late or error

    def poll(self, now: float, limit_tokens: int, unit: int) -> int | None:
        """Tokens stored everywhere, rounded down to `unit`; None while the answer may still come
        in time.
        """
        if self.tokens is not None:
            return self.tokens
        if not all(operation.done() for operation in self.operations):
            if now < self.deadline:
                return None
            self._settle(0, "late")
            return 0
        self.runs = [operation.result() for operation in self.operations]
        self.operations = []
        stored = min(
            (run.blocks * part.group.block_tokens for run, part in zip(self.runs, self.parts)),
            default=0,
        )
        stored = min(stored, limit_tokens) // unit * unit
        if stored > self.first_tokens:
            self.tokens, self.outcome = stored, "hit"
        else:
            self._settle(0, "error" if any(run.error for run in self.runs) else "miss")
        return self.tokens

    def errors(self) -> list[str]:
        return [str(run.error) for run in self.runs if run.error]

    def _settle(self, tokens: int, outcome: str) -> None:
        self.tokens, self.outcome = tokens, outcome
        self._let_go()

    def _let_go(self) -> None:
        for operation in self.operations:
            self.leftovers.add(operation)
        self.operations = []
        for run in self.runs:
            run.release()

    def close(self) -> None:
        """Ends the leases."""
        self._let_go()
        self.runs = []


def start(
    client: Any,
    parts: list[Part],
    spec_of: Callable[[Part], Any],
    keys_of: Callable[[Part], np.ndarray],
    *,
    session: str | None,
    first_tokens: int,
    now: float,
    budget_s: float,
    leftovers: Leftovers,
) -> Lookup:
    """Asks for every part at once; returns at once."""
    lookup = Lookup(first_tokens, now, now + budget_s, parts, [], leftovers)
    for part in parts:
        keys = keys_of(part)
        first = min(first_block(part, first_tokens), len(keys))
        lookup.operations.append(
            client.acquire_async(
                spec_of(part), keys, session=session, first_block=first, timeout=budget_s
            )
        )
    return lookup


def first_block(part: Part, tokens: int) -> int:
    """First block whose bytes a load needs when the engine has `tokens` already. A window
    reaches back before them: the blocks in front of the window are not needed, but where it will
    end is not known yet.
    """
    if part.group.window_tokens:
        return max(0, tokens - part.group.window_tokens) // part.group.block_tokens
    return tokens // part.group.block_tokens
