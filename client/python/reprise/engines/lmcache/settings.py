"""The settings of a plug-in in LMCache's `extra_config`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from reprise.engines.settings import CacheSettings

PREFIX = "remote_storage_plugin."


@dataclasses.dataclass(frozen=True)
class Settings(CacheSettings):
    """Times are milliseconds. See client/python/README.md for each."""

    WHERE: ClassVar[str] = "extra_config, remote_storage_plugin.reprise"
    NOT_OURS: ClassVar[Collection[str]] = ("module_path", "class_name")

    lookup_timeout_ms: int = 1_000  # a later answer counts as nothing
    lookup_hold_ms: int = 10_000  # chunks found stay leased for their load this long
    chunks_held_max: int = 512  # the oldest lets go first
    load_timeout_ms: int = 3_000  # then the rest is computed
    save_timeout_ms: int = 3_000  # then the rest stays unsaved
    load_threads: int = 8  # chunks that are loaded at once
    save_threads: int = 4
    explain_interval_ms: int = 60_000  # how often a whole miss is looked into; 0: never

    @classmethod
    def of_plugin(cls, extra_config: Mapping[str, Any] | None, plugin: str) -> Settings:
        """Those of the plug-in `plugin` ("reprise", or "reprise.NAME" where there are several).
        Raises ValueError naming the setting that is unknown or cannot be right.
        """
        prefix = f"{PREFIX}{plugin}."
        given = {str(name): value for name, value in (extra_config or {}).items()}
        # What has a dot more is another instance's.
        ours = {name[len(prefix) :]: v for name, v in given.items() if name.startswith(prefix)}
        settings = cls.from_extra_config({n: v for n, v in ours.items() if "." not in n})
        for name in ("lookup_timeout_ms", "load_timeout_ms", "save_timeout_ms", "load_threads",
                     "save_threads"):  # fmt: skip
            if getattr(settings, name) < 1:
                raise ValueError(f"{cls.WHERE}: {name} is 0; it must be at least 1")
        if settings.codec:
            raise ValueError(
                f"{cls.WHERE}: codec is {settings.codec!r}; LMCache's chunks are kept bit for bit, "
                f"so leave it out"
            )
        return settings
