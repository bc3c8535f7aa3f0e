"""A worker: memory of its own and a client of each system. `worker.py BLOCKS BLOCK_BYTES SEED`.

Reads one order a line, a JSON object, and answers each with one; what goes wrong is an answer, too.
Times are of the monotonic clock, which all processes share, in nanoseconds.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

from clients import opened
from memory import Memory
from peer import Keys


class Worker:
    """Carries out orders: a method each."""

    def __init__(self, blocks: int, block_bytes: int, seed: int) -> None:
        self._memory = Memory(blocks, block_bytes, seed)
        self._clients: dict[str, Any] = {}
        self._keys = Keys.of("", 0)
        self._expected = 0

    def open(self, system: str, facts: dict[str, Any]) -> None:
        self._clients[system] = opened(system, facts, self._memory)

    def close(self, system: str) -> None:
        self._clients.pop(system).close()

    def prepare(self, prompt: str) -> None:
        """The source is that prompt's, and what was fetched is forgotten."""
        self._keys = Keys.of(prompt, len(self._memory.source))
        self._memory.write(prompt)
        self._memory.spoil()

    def store(self, system: str, at: int) -> list[int]:
        client, keys, blocks = self._clients[system], self._keys, self._memory.source
        begun = _at(at)
        stored = client.store(keys, blocks)
        ended = time.monotonic_ns()
        _require(stored == len(keys), f"{stored} of {len(keys)} blocks were stored")
        return [begun, ended]

    def fetch(self, system: str, at: int) -> list[int]:
        client, keys, blocks = self._clients[system], self._keys, self._memory.target
        begun = _at(at)
        client.fetch(keys, blocks)
        return [begun, time.monotonic_ns()]

    def check(self) -> int:
        """How many blocks were compared, byte for byte."""
        self._memory.check(len(self._keys))
        return len(self._keys)

    def remove(self, system: str) -> None:
        self._clients[system].remove(self._keys)

    def look_up(self, system: str, prompt: str, asked: int, stored: int, times: int) -> list[int]:
        """Nanoseconds of each of `times` lookups of `asked` keys, of which the first `stored` are
        there, after one that is not counted. They were stored by `stock`.
        """
        client, keys = self._clients[system], Keys.of(prompt, asked)
        took = []
        for _ in range(times + 1):
            begun = time.monotonic_ns()
            found = client.prefix(keys)
            took.append(time.monotonic_ns() - begun)
            told = found == stored or system.startswith("socket")
            _require(told, f"{found} blocks were found of {stored}")
        return took[1:]

    def stock(self, system: str, prompt: str, count: int) -> None:
        """Stores the first blocks of a prompt."""
        client, keys = self._clients[system], Keys.of(prompt, count)
        stored = client.store(keys, self._memory.source.first(count))
        _require(stored == count, f"{stored} of {count} blocks were stored")

    def unstock(self, system: str, prompt: str, count: int) -> None:
        """Drops what `stock` stored."""
        self._clients[system].remove(Keys.of(prompt, count))

    def turn(
        self, system: str, prompt: str, before: int, after: int, fetches: bool
    ) -> dict[str, int]:
        """A conversation's next turn: looks up the `before` blocks that it had, and `fetches` what
        is found or has it itself; computes what is not found, or has it too, and stores that and
        the turn's own, up to `after` blocks.
        """
        client, keys = self._clients[system], Keys.of(prompt, after)
        self._memory.write(prompt)
        self._memory.spoil()
        found = client.prefix(keys.first(before)) if before else 0
        checked = found if fetches else 0
        if checked:
            client.fetch(keys.first(checked), self._memory.target.first(checked))
            self._memory.check(checked)
        stored = client.store(keys, self._memory.source.first(after), found)
        return {"found": found, "stored": stored, "checked": checked}

    def tally(self, system: str, prompts: list[str], blocks: int) -> dict[str, int]:
        """Blocks in memory of all prompts, and how many of those a lookup of prefixes reaches."""
        client = self._clients[system]
        keys = [Keys.of(prompt, blocks) for prompt in prompts]
        stored = client.stored(keys)
        return {"stored": stored, "reachable": sum(client.prefix(one) for one in keys)}


def _at(moment: int) -> int:
    """Waits for a moment, so that several workers begin together; when it began."""
    left = moment - time.monotonic_ns()
    if left > 0:
        time.sleep(left / 1e9)
    return time.monotonic_ns()


def _require(right: bool, why: str) -> None:
    if not right:
        raise ValueError(why)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print there, too
    worker = Worker(*(int(argument) for argument in sys.argv[1:]))
    gc.freeze()
    print(json.dumps({"answer": "ready"}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            told = {"answer": getattr(worker, order.pop("do"))(**order)}
        except Exception as error:
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # a library's threads do not keep it
