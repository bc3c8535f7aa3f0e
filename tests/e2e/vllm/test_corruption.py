"""A byte of a stored block changes in the shard's memory: it is not used, and that is counted."""

from __future__ import annotations

import mmap
import pathlib

import numpy as np
import pytest
from conftest import DRAM
from conversation import alone, words

PAGE = mmap.PAGESIZE


def large_areas(pid: int) -> list[tuple[int, int]]:
    """Writable memory areas of a process that are as large as a pool can be."""
    areas = []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        where, rights = line.split()[:2]
        begin, end = (int(x, 16) for x in where.split("-"))
        if rights.startswith("rw") and end - begin >= int(DRAM.removesuffix("MiB")) << 20:
            areas.append((begin, end - begin))
    return areas


def read(pid: int, area: tuple[int, int]) -> np.ndarray:
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        memory.seek(area[0])
        return np.frombuffer(memory.read(area[1]), dtype=np.uint8)


def flip(pid: int, address: int) -> None:
    with open(f"/proc/{pid}/mem", "r+b", 0) as memory:
        memory.seek(address)
        byte = memory.read(1)[0]
        memory.seek(address)
        memory.write(bytes([byte ^ 0x10]))


def test_a_flipped_byte_is_recomputed_and_counted(pair, cache):
    prompt = words("a byte flips", 20 * 32 + 5)
    try:
        before = {
            shard.id: [read(shard.pid, area) for area in large_areas(shard.pid)]
            for shard in cache.shards
        }
    except PermissionError as refused:
        pytest.skip(
            f"this machine does not let a test write into another process's memory: {refused}"
        )
    pair.a.complete(prompt, 4, session="flip")
    pair.a.settle()
    flipped = 0
    for shard in cache.shards:
        for area, old in zip(large_areas(shard.pid), before[shard.id]):
            changed = np.flatnonzero((read(shard.pid, area) != old).reshape(-1, PAGE).any(axis=1))
            # One byte in the middle of what was just written there: home and replica both, so that
            # nothing can mend it.
            if len(changed) > 64:
                flip(shard.pid, area[0] + int(changed[len(changed) // 2]) * PAGE + PAGE // 2)
                flipped += 1
    assert flipped, "the stored blocks were not found in any shard's memory"
    corrupt = pair.b.metric("vllm:reprise_corrupt_blocks_total")
    answer = pair.b.complete(prompt, 4, session="flip")
    assert answer.tokens == alone(pair.b, prompt, 4).tokens
    assert pair.b.metric("vllm:reprise_corrupt_blocks_total") > corrupt
    assert answer.cached_tokens < 20 * 32
