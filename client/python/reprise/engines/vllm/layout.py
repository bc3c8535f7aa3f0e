"""How an attention backend really lays K and V out in memory: read from the registered tensor's
shape and strides.

vLLM gives each layer a view [blocks, heads, tokens, content]. What `content` holds is the backend's
affair, and it moved between releases, so only backends that were read are split into K and V; any
other page is carried as opaque bytes, which is right between servers of one backend and one layout,
and the layout's name is in the cache spec.
"""

from __future__ import annotations

import dataclasses
from typing import Any

INTERLEAVED = ("FLASH_ATTN", "TRITON_ATTN")  # content = [K | V] of one token and head
SPLIT_PAGE = ("CPU_ATTN",)  # a head's page = [all tokens' K | all tokens' V]


class UnsupportedLayout(ValueError):
    """K and V lie in memory in a way that fragments cannot describe."""


@dataclasses.dataclass(frozen=True)
class Plane:
    """One (layer, K|V): strides in bytes; `offset` from the layer's first byte."""

    offset: int
    page_stride: int
    head_stride: int
    token_stride: int


@dataclasses.dataclass(frozen=True)
class LayerLayout:
    """What one layer's tensor says about itself. Equal layouts are interchangeable."""

    name: str  # e.g. "CPU_ATTN isa=vec split HND"
    attention: str  # "gqa" or "mla" (a single plane of opaque rows)
    kv_heads: int
    head_dim: int  # elements of one row
    element: str  # Reprise's dtype name
    page_tokens: int
    pages_per_block: int
    planes: tuple[Plane, ...]


def _order(strides: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """HND or NHD: which of heads and tokens is outer."""
    heads, tokens = strides[1], strides[2]
    if shape[1] == 1 or shape[2] == 1:
        return "ND"
    return "HND" if heads >= tokens else "NHD"


def _is_compact(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Heads, tokens and content of one page form one contiguous run."""
    dims = sorted(((st, sh) for st, sh in zip(strides[1:], shape[1:]) if sh > 1))
    expected = 1
    for stride, size in dims:
        if stride != expected:
            return False
        expected *= size
    return True


def read_layout(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    element_bytes: int,
    *,
    backend: str,
    dtype: str,
    isa: str,
    head_size: int,
    head_size_v: int,
    quantized: bool,
    num_blocks: int,
    block_tokens: int,
) -> LayerLayout:
    """Layout of one layer. `shape` and `strides` (in elements) are the registered tensor's;
    `dtype` is Reprise's name for an unquantized cache's element. Raises UnsupportedLayout.
    """
    if len(shape) != 4:
        raise UnsupportedLayout(
            f"its K/V tensor has {len(shape)} dimensions {tuple(shape)}; known is "
            f"[blocks, heads, tokens, content]"
        )
    if shape[0] % num_blocks or block_tokens % (shape[0] // num_blocks):
        raise UnsupportedLayout(f"its K/V tensor has {shape[0]} pages for {num_blocks} blocks")
    pages_per_block = shape[0] // num_blocks
    page_tokens = block_tokens // pages_per_block
    order = _order(strides, shape)
    page, head, token, cell = (s * element_bytes for s in strides)
    known = f"{backend}{f' isa={isa}' if isa else ''}"
    plain = not quantized and shape[2] == page_tokens and strides[3] == 1
    if plain and head_size == head_size_v and shape[3] == 2 * head_size:
        row = head_size * element_bytes
        common: dict[str, Any] = dict(
            attention="gqa",
            kv_heads=shape[1],
            head_dim=head_size,
            element=dtype,
            page_tokens=page_tokens,
            pages_per_block=pages_per_block,
        )
        if backend in INTERLEAVED:
            return LayerLayout(
                name=f"{known} interleaved",
                **common,
                planes=(Plane(0, page, head, token), Plane(row, page, head, token)),
            )
        if backend in SPLIT_PAGE and token == 2 * row:
            return LayerLayout(
                name=f"{known} split",
                **common,
                planes=(Plane(0, page, head, row), Plane(row * page_tokens, page, head, row)),
            )
    if not _is_compact(shape, strides):
        raise UnsupportedLayout(
            f"pages of {backend} with shape {tuple(shape)} and strides {tuple(strides)} are not "
            f"contiguous; set VLLM_KV_CACHE_LAYOUT to a layer-compact layout"
        )
    row_bytes, rest = divmod(shape[1] * shape[2] * shape[3] * element_bytes, page_tokens)
    if rest:
        raise UnsupportedLayout(
            f"a page of {backend} has {shape[1] * shape[2] * shape[3] * element_bytes} bytes, "
            f"which {page_tokens} tokens do not divide"
        )
    return LayerLayout(
        name=f"{known} opaque {order} {shape[1]}x{shape[2]}x{shape[3]}",
        attention="mla",
        kv_heads=1,
        head_dim=row_bytes,
        element="i8",
        page_tokens=page_tokens,
        pages_per_block=pages_per_block,
        planes=(Plane(0, page, row_bytes, row_bytes),),
    )


def describe_tensor(tensor: Any) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Shape, strides (elements) and element size of a torch tensor."""
    return tuple(tensor.shape), tuple(tensor.stride()), tensor.element_size()
