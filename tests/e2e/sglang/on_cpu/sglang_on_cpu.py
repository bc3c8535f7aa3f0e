"""What SGLang's hierarchical cache lacks on a CPU, as a plugin of SGLang's own kind: copies between
its "device" pool and its host pool, which are CUDA kernels, and pinned memory. Everything else of
SGLang runs as it is.

Found by its entry point (`sglang.srt.plugins`) in the folder beside this file, which the tests put
on PYTHONPATH.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def install() -> None:
    from sglang.srt.mem_cache.pool_host import common, mha, mla

    for module in (mha, mla):
        module.transfer_kv_direct = _copy_rows
        module.transfer_kv_per_layer_direct_pf_lf = _load_layer
        module.transfer_kv_all_layer_direct_lf_pf = _store_layers
    common.ALLOC_MEMORY_FUNCS["cpu"] = _unpinned


def _unpinned(
    dims: tuple[int, ...],
    *,
    dtype: Any,
    device: str,
    pin_memory: bool,
    allocator: Any,
    registration_granularity_bytes: int | None = None,
) -> Any:
    return allocator.allocate(dims, dtype=dtype, device=device)


def _copy_rows(
    src_layers: Sequence[Any],
    dst_layers: Sequence[Any],
    src_indices: Any,
    dst_indices: Any,
    page_size: int,
) -> None:
    """Rows of tokens between layer-first pools."""
    for source, destination in zip(src_layers, dst_layers, strict=True):
        destination[dst_indices] = source[src_indices]


def _load_layer(
    src_ptrs: Sequence[Any],
    dst_ptrs: Sequence[Any],
    src_indices: Any,
    dst_indices: Any,
    layer_id: int,
    page_size: int,
) -> None:
    """One layer out of pages [page][layer][token]."""
    for source, destination in zip(src_ptrs, dst_ptrs, strict=True):
        destination[dst_indices] = source[
            src_indices // page_size, layer_id, src_indices % page_size
        ]


def _store_layers(
    src_ptrs: Sequence[Any],
    dst_ptrs: Sequence[Any],
    src_indices: Any,
    dst_indices: Any,
    page_size: int,
) -> None:
    """All layers into pages [page][layer][token]; `src_ptrs` are K's layers, then V's."""
    layers = len(src_ptrs) // len(dst_ptrs)
    for i, source in enumerate(src_ptrs):
        pages = dst_ptrs[i // layers]
        pages[dst_indices // page_size, i % layers, dst_indices % page_size] = source[src_indices]
