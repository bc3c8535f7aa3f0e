"""Which vLLM this was run with, and one clear sentence where the interface is another."""

# vLLM is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import logging

from reprise.engines.interface import absent

TESTED_SERIES = ("0.32",)

_BASE = "vllm.distributed.kv_transfer.kv_connector.v1.base"
CONNECTOR_METHODS = (
    "bind_gpu_block_pool",
    "build_connector_meta",
    "build_connector_worker_meta",
    "build_kv_connector_stats",
    "build_prom_metrics",
    "get_block_ids_with_load_errors",
    "get_handshake_metadata",
    "get_kv_connector_stats",
    "get_num_new_matched_tokens",
    "get_transfer_results",
    "has_pending_block_frees",
    "has_pending_push_work",
    "on_new_request",
    "register_kv_caches",
    "reset_cache",
    "set_xfer_handshake_metadata_pp_aware",
    "start_load_kv",
    "update_connector_output",
    "update_state_after_alloc",
    "wait_for_save",
)

# What the connector overrides or calls. A vLLM that lacks one of them would fail later and less
# clearly.
NEEDED = {
    _BASE: (
        *(f"KVConnectorBase_V1.{method}" for method in CONNECTOR_METHODS),
        "SupportsHMA.request_finished_all_groups",
        "KVConnectorTransferResults",
        "KVConnectorWorkerMetadata",
        "KVConnectorHandshakeMetadata",
    ),
    "vllm.v1.core.sched.output": ("KVConnectorBlockState.get_block_ids",),
    "vllm.v1.core.block_pool": ("BlockPool.touch", "BlockPool.free_blocks"),
    "vllm.v1.kv_cache_interface": (
        "KVCacheConfig.prefix_cacheable_group_ids",
        "get_kv_cache_spec_kind",
        "get_kv_cache_spec_sliding_window",
        "iter_layer_specs",
    ),
}

logger = logging.getLogger("vllm.reprise")


class UnsupportedVllm(RuntimeError):
    """The running vLLM has another connector interface than the ones that this was run with."""


def missing_parts() -> list[str]:
    """Names that the connector needs and that the installed vLLM does not have."""
    return [
        f"{module}.{name}" for module, names in NEEDED.items() for name in absent(module, names)
    ]


def check(version: str | None = None) -> None:
    """Raises UnsupportedVllm where the interface is unknown; warns where only the number is."""
    if version is None:
        import vllm

        version = vllm.__version__
    missing = missing_parts()
    if missing:
        raise UnsupportedVllm(
            f"Reprise's vLLM connector was run with vLLM {', '.join(TESTED_SERIES)} and does "
            f"not know the connector "
            f"interface of vLLM {version} (it lacks {', '.join(missing)}): install a Reprise "
            f"made for it, or vLLM "
            f"{TESTED_SERIES[-1]}."
        )
    if ".".join(version.split(".")[:2]) not in TESTED_SERIES:
        logger.warning(
            "Reprise's vLLM connector was run with vLLM %s; this is %s. Its interface looks "
            "the same; "
            "blocks are shared only between servers of one layout in any case.",
            ", ".join(TESTED_SERIES),
            version,
        )
