"""The memory of a running shard, looked into and changed from outside: what no API would do."""

from __future__ import annotations

import mmap
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE


def pool(pid: int) -> dict[int, np.ndarray]:
    """The memory that a shard keeps blocks in: address of each extent, and its bytes."""
    found = {}
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
            if "memfd:reprise-extent" in line:
                begin, end = (int(x, 16) for x in line.split()[0].split("-"))
                memory.seek(begin)
                found[begin] = np.frombuffer(memory.read(end - begin), dtype=np.uint8)
    return found


def written(before: dict[int, np.ndarray], after: dict[int, np.ndarray]) -> list[int]:
    """Addresses of the pages that changed."""
    pages = []
    for address, now in after.items():
        old = before.get(address, np.zeros_like(now))
        changed = np.flatnonzero((now != old).reshape(-1, PAGE).any(axis=1))
        pages += [address + int(page) * PAGE for page in changed]
    return pages


def flip(pid: int, address: int) -> None:
    with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
        memory.seek(address)
        byte = memory.read(1)[0]
        memory.seek(address)
        memory.write(bytes([byte ^ 0x10]))


def flip_in_each_copy(
    shards: Iterable[Any], before: dict[str, dict[int, np.ndarray]], pages: int
) -> int:
    """One byte of what each shard stored since `before` (its pool, by id), where that is more than
    so many pages of memory: at home and on the replica, so that nothing can mend it. Returns in how
    many shards.
    """
    flipped = 0
    for shard in shards:
        changed = written(before[shard.id], pool(shard.pid))
        if len(changed) > pages:
            flip(shard.pid, changed[len(changed) // 2] + PAGE // 2)
            flipped += 1
    return flipped
