"""Which SGLang this was run with, and one clear sentence where the interface is another."""

# SGLang is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import logging

from reprise.engines.interface import absent

TESTED_SERIES = ("0.5.23",)

# What the backend overrides, is called by or reads. An SGLang that lacks one of them would fail
# later and less clearly.
NEEDED = {
    "sglang.srt.managers.scheduler_components.weight_updater": (
        "SchedulerWeightUpdaterManager.record_weight_version_after_update",
    ),
    "sglang.srt.mem_cache.hicache_storage": (
        "HiCacheStorage.batch_exists",
        "HiCacheStorage.batch_exists_v2",
        "HiCacheStorage.batch_get_v1",
        "HiCacheStorage.batch_get_v2",
        "HiCacheStorage.batch_set_v1",
        "HiCacheStorage.batch_set_v2",
        "HiCacheStorage.on_host_pools_registered",
        "HiCacheStorage.register_mem_host_pool_v2",
        "HiCacheStorage.register_mem_pool_host",
        "HiCacheStorageConfig",
        "HiCacheStorageExtraInfo",
        "PoolHitPolicy.ALL_PAGES",
        "PoolName.KV",
        "PoolTransferResult",
    ),
    "sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller": (
        "HybridCacheController.parse_storage_backend_extra_config",
    ),
    "sglang.srt.mem_cache.pool_host.mha": ("MHATokenToKVPoolHost",),
    "sglang.srt.mem_cache.pool_host.mla": ("MLATokenToKVPoolHost",),
    "sglang.srt.mem_cache.unified_radix_cache": (
        "UnifiedRadixCache.get_last_hash_value",
        "UnifiedRadixCache.get_prefix_hash_values",
    ),
    "sglang.srt.observability.metrics_collector": ("StorageMetrics",),
    "sglang.srt.plugins.hook_registry": ("HookRegistry.apply_hooks", "HookType.AFTER"),
    "sglang.srt.runtime_context": (
        "RuntimeContext.resolved_server_args_dict",
        "get_context",
        "get_serving",
    ),
    "sglang.srt.utils.hf_transformers_utils": ("get_config",),
}

logger = logging.getLogger("sglang.reprise")


class UnsupportedSglang(RuntimeError):
    """The running SGLang has another storage interface than the ones that this was run with."""


def missing_parts() -> list[str]:
    """Names that the backend needs and that the installed SGLang does not have."""
    return [
        f"{module}.{name}" for module, names in NEEDED.items() for name in absent(module, names)
    ]


def check(version: str | None = None) -> None:
    """Raises UnsupportedSglang where the interface is unknown; warns where only the number is."""
    if version is None:
        import sglang

        version = sglang.__version__
    missing = missing_parts()
    if missing:
        raise UnsupportedSglang(
            f"Reprise's HiCache backend was run with SGLang {', '.join(TESTED_SERIES)} and does "
            f"not know the storage interface of SGLang {version} (it lacks {', '.join(missing)}): "
            f"install a Reprise made for it, or SGLang {TESTED_SERIES[-1]}."
        )
    if ".".join(version.split(".")[:3]) not in TESTED_SERIES:
        logger.warning(
            "Reprise's HiCache backend was run with SGLang %s; this is %s. Its interface looks the "
            "same; blocks are shared only between servers of one layout in any case.",
            ", ".join(TESTED_SERIES),
            version,
        )
