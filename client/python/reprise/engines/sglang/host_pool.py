"""Where K and V lie in a host pool of SGLang, as planes of a `PagedPlan`.

Every layout of a pool (`--hicache-mem-layout`) is strides over one tensor, so blocks are gathered
from and scattered into any of them without a copy between, and servers of different layouts share
them.
"""

# SGLang is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost
from sglang.srt.mem_cache.pool_host.mla import MLATokenToKVPoolHost

from reprise.engines.torch_dtypes import dtype_of
from reprise.memory import Plane, plane


class UnsupportedPool(ValueError):
    """This pool cannot be kept: it holds something else than K/V per token, or in another form."""


@dataclasses.dataclass(frozen=True)
class HostPool:
    """One host pool, read. `planes` are in the order [layer][K, V] (MLA: [layer])."""

    attention: str
    dtype: str
    layers: int
    kv_heads: int  # MLA: 0
    head_dim: int
    page_tokens: int
    draft_layers: int  # of `layers`, a speculative model's at the end
    planes: tuple[Plane, ...]
    owner: Any  # the tensor


def read_pool(pool: Any, name: str) -> HostPool:
    """Raises UnsupportedPool with the pool's name and what to do."""
    # Exactly these classes: one that derives from them keeps more beside (scales, indexes).
    if type(pool) not in (MHATokenToKVPoolHost, MLATokenToKVPoolHost):
        raise UnsupportedPool(
            f"Reprise cannot keep the host pool {name!r} of this model ({type(pool).__name__}): it "
            f"keeps K/V of attention (MHA, GQA, MLA) alone"
        )
    if getattr(pool, "dcp_size", 1) > 1 or getattr(pool, "_layer_shard_enabled", False):
        raise UnsupportedPool(f"Reprise cannot keep the host pool {name!r}: it is context-parallel")
    if pool.kv_buffer is None:
        raise UnsupportedPool(f"Reprise cannot keep the host pool {name!r}: it has no memory")
    found = _read_mla(pool) if type(pool) is MLATokenToKVPoolHost else _read_mha(pool)
    if found is None:
        raise UnsupportedPool(
            f"Reprise cannot keep the host pool {name!r} in layout {pool.layout!r}: set "
            f"--hicache-mem-layout to layer_first, page_first, page_first_direct or page_head"
        )
    return found


def _read_mha(pool: Any) -> HostPool | None:
    if pool.v_head_dim != pool.head_dim:
        raise UnsupportedPool(
            f"Reprise cannot keep this model: heads of K have {pool.head_dim} elements, those of V "
            f"{pool.v_head_dim}"
        )
    view = _mha_view(pool)
    if view is None:
        return None
    return HostPool(
        attention="gqa",
        dtype=dtype_of(pool.dtype),
        layers=pool.layer_num,
        kv_heads=pool.head_num,
        head_dim=pool.head_dim,
        page_tokens=pool.page_size,
        draft_layers=pool.layer_num - pool.target_layer_num,
        planes=tuple(view(layer, which) for layer in range(pool.layer_num) for which in (0, 1)),
        owner=pool.kv_buffer,
    )


def _mha_view(pool: Any) -> Callable[[int, int], Plane] | None:
    """(layer, K or V) -> its plane; None for a layout whose heads have no one stride."""
    kv, page_tokens = pool.kv_buffer, pool.page_size
    if pool.layout == "layer_first":  # [K, V][layer][token][head][element]
        return lambda layer, which: plane(
            kv[which, layer].unflatten(0, (-1, page_tokens)), page=0, token=1, head=2
        )
    if pool.layout == "page_first":  # [K, V][token][layer][head][element]
        return lambda layer, which: plane(
            kv[which, :, layer].unflatten(0, (-1, page_tokens)), page=0, token=1, head=2
        )
    if pool.layout == "page_first_direct":  # [K, V][page][layer][token][head][element]
        return lambda layer, which: plane(kv[which, :, layer], page=0, token=1, head=2)
    if pool.layout == "page_head":  # [K, V][page][head][token][layer][element]
        return lambda layer, which: plane(kv[which, :, :, :, layer], page=0, head=1, token=2)
    if pool.layout == "page_unified":  # [page][group][layer][K, V][token][head of group][element]
        if kv.shape[5] == 1:
            return lambda layer, which: plane(
                kv[:, :, layer, which, :, 0], page=0, head=1, token=2
            )
        if kv.shape[1] == 1:
            return lambda layer, which: plane(kv[:, 0, layer, which], page=0, token=1, head=2)
    return None


def _read_mla(pool: Any) -> HostPool | None:
    view = _mla_view(pool)
    if view is None:
        return None
    return HostPool(
        attention="mla",
        dtype=dtype_of(pool.dtype),
        layers=pool.layer_num,
        kv_heads=0,
        head_dim=pool.kv_cache_dim,
        page_tokens=pool.page_size,
        draft_layers=pool.layer_num - pool.target_layer_num,
        planes=tuple(view(layer) for layer in range(pool.layer_num)),
        owner=pool.kv_buffer,
    )


def _mla_view(pool: Any) -> Callable[[int], Plane] | None:
    latent, page_tokens = pool.kv_buffer, pool.page_size
    if pool.layout == "layer_first":  # [layer][token][1][element]
        return lambda layer: plane(
            latent[layer, :, 0].unflatten(0, (-1, page_tokens)), page=0, token=1
        )
    if pool.layout == "page_first":  # [token][layer][1][element]
        return lambda layer: plane(
            latent[:, layer, 0].unflatten(0, (-1, page_tokens)), page=0, token=1
        )
    if pool.layout == "page_first_direct":  # [page][layer][token][1][element]
        return lambda layer: plane(latent[:, layer, :, 0], page=0, token=1)
    if pool.layout == "page_unified":  # [page][layer][token][element]
        return lambda layer: plane(latent[:, layer], page=0, token=1)
    return None
