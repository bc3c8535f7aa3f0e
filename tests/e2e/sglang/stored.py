"""What the shards keep: backups of SGLang follow an answer, so a test waits for them."""

from __future__ import annotations

import time
from typing import Any

from shard_api import describe


COPIES = 2  # that the session's cache keeps of each block


def blocks(cache: Any) -> int:
    """Blocks on all shards, replicas counted."""
    return sum(describe(shard.address).blocks for shard in cache.shards)


def leases(cache: Any) -> int:
    return sum(describe(shard.address).leases for shard in cache.shards)


class Growth:
    """Blocks stored since this was made."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._before = blocks(cache)

    def reaches(self, count: int, timeout_s: float = 20.0) -> None:
        """Returns when that many more are stored, copies counted. Raises AssertionError."""
        deadline = time.monotonic() + timeout_s
        while (grown := blocks(self._cache) - self._before) < count:
            assert time.monotonic() < deadline, f"{grown} blocks were stored, not {count}"
            time.sleep(0.05)
