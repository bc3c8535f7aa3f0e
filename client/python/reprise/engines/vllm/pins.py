"""Blocks of the engine that wait for a save: referenced, so that no request gets them before they
were read.

This is what makes saves free of charge for a request's end: it frees its blocks as always, and
those that are still being read stay away from the free list until the read is over or its time is
up.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Pins:
    def __init__(self) -> None:
        self._pool: Any = None
        self._held: dict[int, list[Any]] = {}
        self._count = 0

    def bind(self, pool: Any) -> None:
        """`pool` is vLLM's BlockPool."""
        self._pool = pool

    @property
    def blocks(self) -> int:
        return self._count

    def capacity(self, fraction: float) -> int:
        return int(self._pool.num_gpu_blocks * fraction) if self._pool is not None else 0

    def hold(self, save_id: int, block_ids: Iterable[int]) -> None:
        blocks = [self._pool.blocks[i] for i in block_ids]
        self._pool.touch(blocks)
        self._held[save_id] = blocks
        self._count += len(blocks)

    def release(self, save_id: int) -> None:
        blocks = self._held.pop(save_id, None)
        if blocks is None:
            return
        self._count -= len(blocks)
        self._pool.free_blocks(reversed(blocks))

    def __bool__(self) -> bool:
        return bool(self._held)
