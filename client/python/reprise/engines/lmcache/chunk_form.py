"""What a chunk of LMCache is in memory: the shapes and dtypes of its tensors, one behind another,
and LMCache's name for their order.
"""

# LMCache is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from lmcache.v1.memory_management import MemoryFormat


class OtherForm(ValueError):
    """A memory object is no chunk of this engine's K/V."""


@dataclasses.dataclass(frozen=True)
class ChunkForm:
    """A full chunk, of `tokens` tokens. What is shorter differs in the token axis alone."""

    shapes: tuple[tuple[int, ...], ...]  # one per group of layers
    dtypes: tuple[torch.dtype, ...]
    fmt: MemoryFormat
    token_axis: int
    tokens: int
    layers: int  # that it holds

    @property
    def nbytes(self) -> int:
        return sum(
            math.prod(shape) * dtype.itemsize for shape, dtype in zip(self.shapes, self.dtypes)
        )

    @property
    def token_bytes(self) -> int:
        return self.nbytes // self.tokens

    def shapes_of(self, tokens: int) -> list[torch.Size]:
        """The shapes of a chunk of so many tokens."""
        axis = self.token_axis
        return [torch.Size((*s[:axis], tokens, *s[axis + 1 :])) for s in self.shapes]

    def describe(self, tokens: int) -> str:
        """One text for one form: what a chunk's header and the cache spec compare."""
        tensors = (
            f"{'x'.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"
            for shape, dtype in zip(self.shapes_of(tokens), self.dtypes)
        )
        return f"{self.fmt.name} {', '.join(tensors)}"

    def tokens_of(self, chunk: Any) -> int:
        """How many tokens a memory object holds. Raises OtherForm where it is no such chunk."""
        shapes, dtypes = chunk.get_shapes(), chunk.get_dtypes()
        fmt, nbytes = chunk.get_memory_format(), chunk.get_size()
        tokens, odd = divmod(nbytes, self.token_bytes)
        if (
            odd
            or not 1 <= tokens <= self.tokens
            or fmt != self.fmt
            or list(shapes) != self.shapes_of(tokens)
            or tuple(dtypes) != self.dtypes
        ):
            raise OtherForm(
                f"a memory object of {nbytes} bytes, {fmt.name}, shapes "
                f"{[tuple(s) for s in shapes]} and {list(dtypes)} is no chunk of "
                f"{self.describe(self.tokens)}"
            )
        return int(tokens)


def form_of(metadata: Any, config: Any, *, one_layer: bool) -> ChunkForm:
    """The form of the chunks that an engine with this LMCacheMetadata and LMCacheEngineConfig keeps
    under its keys; `one_layer`: under those of its layerwise mode.
    """
    shapes = [tuple(shape) for shape in metadata.get_shapes()]
    dtypes = tuple(metadata.get_dtypes())
    tokens = metadata.chunk_size
    if not one_layer:  # [K, V or latent][layer][token][element]
        fmt = MemoryFormat.KV_MLA_FMT if metadata.use_mla else MemoryFormat.KV_2LTD
        return ChunkForm(tuple(shapes), dtypes, fmt, 2, tokens, sum(s[1] for s in shapes))
    if len(shapes) != 1:
        raise OtherForm(f"layers one by one of {len(shapes)} kinds: use_layerwise is not for them")
    parts, _, _, elements = shapes[0]
    if metadata.use_mla:
        return ChunkForm(((tokens, elements),), dtypes, MemoryFormat.KV_MLA_FMT, 0, tokens, 1)
    if config.enable_blending:
        return ChunkForm(((parts, tokens, elements),), dtypes, MemoryFormat.KV_2TD, 1, tokens, 1)
    return ChunkForm(((tokens, parts, elements),), dtypes, MemoryFormat.KV_T2D, 0, tokens, 1)
