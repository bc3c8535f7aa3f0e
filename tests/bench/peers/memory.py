"""A worker's memory: what it stores, and where what it fetches arrives; both touched beforehand."""

from __future__ import annotations

import ctypes
import hashlib

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

STAMP_EVERY = 4096  # bytes: a page of another prompt would be seen
_compare = ctypes.CDLL(None).memcmp
_compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


class Blocks:
    """Blocks side by side, in each form that some client takes as it is."""

    def __init__(self, array: Bytes) -> None:
        self.array = array  # (n, block bytes)
        self.block_bytes = array.shape[1]
        self.views = [memoryview(row) for row in array]
        self.addresses = [array.ctypes.data + i * self.block_bytes for i in range(len(array))]

    def first(self, count: int) -> Blocks:
        return Blocks(self.array[:count])

    def __len__(self) -> int:
        return len(self.array)


class Memory:
    """One prompt's blocks to store, and room for as many that are fetched."""

    def __init__(self, blocks: int, block_bytes: int, seed: int) -> None:
        content = np.random.default_rng(seed).integers(0, 256, (blocks, block_bytes), np.uint8)
        self.source = Blocks(content)
        self.target = Blocks(np.zeros_like(content))

    def write(self, prompt: str) -> None:
        """Makes the source this prompt's, different from every other's on each page."""
        stamp = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "little")
        pages = self.source.array.reshape(-1).view(np.uint64)[:: STAMP_EVERY // 8]
        pages[:] = np.uint64(stamp) ^ np.arange(len(pages), dtype=np.uint64)

    def spoil(self) -> None:
        """Nothing of what was fetched before is left in the target."""
        self.target.array.fill(0)

    def check(self, count: int) -> None:
        """Raises ValueError unless the first `count` blocks that were fetched are those stored."""
        size = self.source.block_bytes
        if not _compare(self.target.addresses[0], self.source.addresses[0], count * size):
            return
        for i in range(count):
            if _compare(self.target.addresses[i], self.source.addresses[i], size):
                raise ValueError(f"block {i} came back with other bytes than were stored")
