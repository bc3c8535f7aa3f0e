"""The settings of `--hicache-storage-backend-extra-config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import ClassVar

from reprise.engines.settings import CacheSettings


@dataclasses.dataclass(frozen=True)
class Settings(CacheSettings):
    """Times are milliseconds. See client/python/README.md for each."""

    WHERE: ClassVar[str] = "hicache_storage_backend_extra_config"
    NOT_OURS: ClassVar[Collection[str]] = (
        "backend_name",
        "module_path",
        "class_name",
        "interface_v1",
        "allocator",
    )

    lookup_timeout_ms: int = 1_000  # a later answer counts as nothing
    lookup_hold_ms: int = 10_000  # pages found stay leased for their load this long
    lookups_held_max: int = 64  # the oldest lets go first
    load_timeout_ms: int = 3_000  # then the rest is computed
    save_timeout_ms: int = 3_000  # then the rest stays unsaved
    explain_interval_ms: int = 60_000  # how often a whole miss is looked into; 0: never
