"""The backend in the test's own process: SGLang's classes, without its server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from server import PAGE_TOKENS, reprise_backend
from sglang.srt.mem_cache.device_pool_info import (
    KVBufferLayout,
    KVBuffers,
    MHABufferInfo,
    MLABufferInfo,
)
from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig, HiCacheStorageExtraInfo
from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost
from sglang.srt.mem_cache.pool_host.mla import MLATokenToKVPoolHost
from sglang.srt.runtime_context import get_context

PAGES = 12
LAYERS = 3
HEADS = 2
HEAD_DIM = 32
LATENT, ROPE = 96, 32


def mha_pool(
    layout: str, dtype: torch.dtype = torch.float16, head_group_num: int = 1
) -> MHATokenToKVPoolHost:
    """A host pool of `PAGES` pages of random numbers."""
    tensors = tuple(torch.zeros(PAGE_TOKENS, HEADS, HEAD_DIM, dtype=dtype) for _ in range(LAYERS))
    pointers = torch.tensor([t.data_ptr() for t in tensors], dtype=torch.uint64)
    info = MHABufferInfo(
        buffers=KVBuffers(
            k=tensors,
            v=tensors,
            k_data_ptrs=pointers,
            v_data_ptrs=pointers,
            layout=KVBufferLayout.NHD,
        ),
        page_size=PAGE_TOKENS,
        head_num=HEADS,
        head_dim=HEAD_DIM,
        v_head_dim=HEAD_DIM,
        dtype=dtype,
        device=torch.device("cpu"),
    )
    pool = MHATokenToKVPoolHost(
        info,
        host_to_device_ratio=0,
        host_size=0,
        page_size=PAGE_TOKENS,
        layout=layout,
        pin_memory=False,
        device_capacity_tokens=0,
        start_layer=0,
        end_layer=LAYERS,
        head_group_num=head_group_num,
        host_token_capacity=PAGES * PAGE_TOKENS,
    )
    pool.kv_buffer.copy_(torch.randn(pool.kv_buffer.shape).to(dtype))
    return pool


def mha_token(pool: Any, slot: int) -> torch.Tensor:
    """[K, V][layer][head][element] of one token slot, by SGLang's own description of the layout."""
    page, token = divmod(slot, PAGE_TOKENS)
    kv = pool.kv_buffer
    if pool.layout == "layer_first":
        return kv[:, :, slot]
    if pool.layout == "page_first":
        return kv[:, slot]
    if pool.layout == "page_first_direct":
        return kv[:, page, :, token]
    if pool.layout == "page_head":
        return kv[:, page, :, token].transpose(1, 2)
    assert pool.layout == "page_unified"
    # [page][group][layer][K, V][token][head of group][element]
    rows = kv[page, :, :, :, token]  # [group][layer][K, V][head of group][element]
    return rows.permute(2, 1, 0, 3, 4).flatten(2, 3)


def mla_pool(layout: str) -> MLATokenToKVPoolHost:
    """A host pool of latents, of `PAGES` pages of random numbers."""
    dim = LATENT + ROPE
    tensors = tuple(torch.zeros(PAGE_TOKENS, 1, dim, dtype=torch.bfloat16) for _ in range(LAYERS))
    info = MLABufferInfo(
        buffers=tensors,
        data_ptrs=torch.tensor([t.data_ptr() for t in tensors], dtype=torch.uint64),
        layer_indices=tuple(range(LAYERS)),
        device_layer_num=LAYERS,
        page_size=PAGE_TOKENS,
        kv_lora_rank=LATENT,
        qk_rope_head_dim=ROPE,
        kv_cache_dim=dim,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )
    pool = MLATokenToKVPoolHost(
        info,
        host_to_device_ratio=0,
        host_size=0,
        page_size=PAGE_TOKENS,
        layout=layout,
        pin_memory=False,
        device_capacity_tokens=0,
        start_layer=0,
        end_layer=LAYERS,
        target_layer_num=LAYERS,
        host_token_capacity=PAGES * PAGE_TOKENS,
    )
    pool.kv_buffer.copy_(torch.randn(pool.kv_buffer.shape).to(pool.dtype))
    return pool


def mla_token(pool: Any, slot: int) -> torch.Tensor:
    """[layer][element] of one token slot, by SGLang's own description of the layout."""
    page, token = divmod(slot, PAGE_TOKENS)
    latent = pool.kv_buffer
    if pool.layout == "layer_first":
        return latent[:, slot, 0]
    if pool.layout == "page_first":
        return latent[slot, :, 0]
    if pool.layout == "page_first_direct":
        return latent[page, :, token, 0]
    assert pool.layout == "page_unified"  # [page][layer][token][element]
    return latent[page, :, token]


def slots_of(pages: list[int]) -> torch.Tensor:
    """Token slots of these pages, as SGLang names them."""
    return torch.cat([torch.arange(p * PAGE_TOKENS, (p + 1) * PAGE_TOKENS) for p in pages])


def config(backend: dict[str, Any], **fields: Any) -> HiCacheStorageConfig:
    values: dict[str, Any] = dict(
        tp_rank=0,
        tp_size=1,
        pp_rank=0,
        pp_size=1,
        attn_cp_rank=0,
        attn_cp_size=1,
        is_mla_model=False,
        enable_storage_metrics=True,
        is_page_first_layout=False,
        model_name="served",
    )
    kept = ("hicache_storage_pass_prefix_keys", "prefetch_threshold")  # SGLang takes these itself
    own = {name: value for name, value in backend.items() if name not in kept}
    return HiCacheStorageConfig(**{**values, **fields}, extra_config=own)


@contextlib.contextmanager
def server_args(model: Any, backend: dict[str, Any], **fields: Any) -> Iterator[None]:
    """What SGLang's process knows of how it was started."""
    values = dict(
        model_path=str(model),
        device="cpu",
        hicache_storage_backend="dynamic",
        hicache_storage_backend_extra_config=json.dumps(backend),
        **fields,
    )
    with get_context().override_server_args(**values):
        yield


@contextlib.contextmanager
def storage(model: Any, router: str, pool: Any = None, **settings: Any) -> Iterator[Any]:
    """A backend over this cache, with `pool` as its K/V pool."""
    from reprise.engines.sglang import RepriseHiCache

    backend = reprise_backend(router, **settings)
    with server_args(model, backend):
        made = RepriseHiCache(config(backend), {})
        try:
            if pool is not None:
                made.register_mem_pool_host(pool)
                made.on_host_pools_registered()
            yield made
        finally:
            made.close()


def after(prefix: list[str]) -> HiCacheStorageExtraInfo:
    return HiCacheStorageExtraInfo(prefix_keys=prefix)
