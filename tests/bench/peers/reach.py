"""Which conversations fill a memory, and how much of what lies there a lookup of prefixes finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence


ANSWER_BYTES = 4  # ":1" or ":0", "HD" or "EN", and the end of a line


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a conversation: it had `before` blocks, and has `after` when it is over."""

    conversation: str
    before: int
    after: int


def conversations(kind: str, count: int) -> list[str]:
    return [f"{kind} {i}" for i in range(count)]


def schedule(names: Sequence[str], blocks: int, turns: int, at_once: int) -> Iterator[Turn]:
    """`at_once` conversations go on side by side, turn by turn, until they have `blocks` blocks;
    then the next ones begin, and nobody asks for these again.
    """
    for begin in range(0, len(names), at_once):
        for turn in range(turns):
            for name in names[begin : begin + at_once]:
                yield Turn(name, blocks * turn // turns, blocks * (turn + 1) // turns)


def prefix(answers: bytes, missing: bytes) -> int:
    """How many blocks can be used, those before the first hole: `answers` is a line of ANSWER_BYTES
    for each, which begins with `missing` where it is not there.
    """
    hole = answers.find(missing)
    return (len(answers) if hole < 0 else hole) // ANSWER_BYTES


def usable_share(stored: int, reachable: int) -> float:
    """Of the blocks that take memory, those that a lookup of prefixes finds; 0 of nothing."""
    return reachable / stored if stored else 0.0
