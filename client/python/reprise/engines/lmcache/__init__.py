"""Reprise behind LMCache: a remote storage plug-in of it.

    remote_storage_plugins: ["reprise"]
    extra_config:
      remote_storage_plugin.reprise.module_path: reprise.engines.lmcache
      remote_storage_plugin.reprise.class_name: RepriseAdapter
      remote_storage_plugin.reprise.router: HOST:PORT

LMCache finds the class by attribute. It is imported when asked for, because it needs LMCache and
the rest of the package does not.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RepriseAdapter"]


def __getattr__(name: str) -> Any:
    if name != "RepriseAdapter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import versions

    versions.check()
    from .adapter import RepriseAdapter

    return RepriseAdapter
