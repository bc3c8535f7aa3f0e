"""Reprise behind SGLang: a storage backend of its hierarchical cache.

    --enable-hierarchical-cache --hicache-storage-backend dynamic
    --hicache-storage-backend-extra-config '{
        "backend_name": "reprise", "module_path": "reprise.engines.sglang",
        "class_name": "RepriseHiCache", "interface_v1": 1,
        "hicache_storage_pass_prefix_keys": true, "router": "HOST:PORT"}'

SGLang finds the class by attribute. It is imported when asked for, because it needs SGLang and the
rest of the package does not.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RepriseHiCache"]


def __getattr__(name: str) -> Any:
    if name != "RepriseHiCache":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import versions

    versions.check()
    from .storage import RepriseHiCache

    return RepriseHiCache
