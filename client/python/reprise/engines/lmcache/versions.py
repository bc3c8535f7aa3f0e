"""Which LMCache this was run with, and one clear sentence where the interface is another."""

# LMCache is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import importlib.metadata
import logging

from reprise.engines.interface import absent

TESTED_SERIES = ("0.5.6",)

# What the plug-in overrides, is called by or reads. An LMCache that lacks one of them would fail
# later and less clearly.
NEEDED = {
    "lmcache.logging": ("init_logger",),
    "lmcache.utils": ("CacheEngineKey.chunk_hash", "LayerCacheEngineKey.layer_id"),
    "lmcache.v1.exceptions": ("IrrecoverableException",),
    "lmcache.v1.memory_management": (
        "MemoryFormat.KV_2LTD",
        "MemoryFormat.KV_2TD",
        "MemoryFormat.KV_MLA_FMT",
        "MemoryFormat.KV_T2D",
        "MemoryObj.byte_array",
        "MemoryObj.get_dtypes",
        "MemoryObj.get_memory_format",
        "MemoryObj.get_shapes",
        "MemoryObj.ref_count_down",
        "MemoryObj.ref_count_up",
    ),
    "lmcache.v1.metadata": ("LMCacheMetadata.get_dtypes", "LMCacheMetadata.get_shapes"),
    "lmcache.v1.storage_backend.connector": (
        "ConnectorAdapter.can_parse",
        "ConnectorAdapter.create_connector",
        "extract_plugin_type",
    ),
    "lmcache.v1.storage_backend.connector.base_connector": (
        "RemoteConnector.batched_async_contains",
        "RemoteConnector.batched_contains",
        "RemoteConnector.batched_get",
        "RemoteConnector.batched_get_non_blocking",
        "RemoteConnector.batched_put",
        "RemoteConnector.remove_sync",
    ),
    "lmcache.v1.storage_backend.local_cpu_backend": ("LocalCPUBackend.allocate",),
}

logger = logging.getLogger("lmcache.reprise")


class UnsupportedLMCache(ImportError):
    """The installed LMCache has another plug-in interface than the ones that this was run with.

    LMCache reports an ImportError of a plug-in and goes on without it.
    """


def missing_parts() -> list[str]:
    """Names that the plug-in needs and that the installed LMCache does not have."""
    return [
        f"{module}.{name}" for module, names in NEEDED.items() for name in absent(module, names)
    ]


def check(version: str | None = None) -> None:
    """Raises UnsupportedLMCache where the interface is unknown; warns where only the number is."""
    if version is None:
        version = importlib.metadata.version("lmcache")
    missing = missing_parts()
    if missing:
        raise UnsupportedLMCache(
            f"Reprise's plug-in was run with LMCache {', '.join(TESTED_SERIES)} and does not know "
            f"the storage interface of LMCache {version} (it lacks {', '.join(missing)}): install "
            f"a Reprise made for it, or LMCache {TESTED_SERIES[-1]}."
        )
    if ".".join(version.split(".")[:3]) not in TESTED_SERIES:
        logger.warning(
            "Reprise's plug-in was run with LMCache %s; this is %s. Its interface looks the same; "
            "chunks are shared only between engines of one layout in any case.",
            ", ".join(TESTED_SERIES),
            version,
        )
