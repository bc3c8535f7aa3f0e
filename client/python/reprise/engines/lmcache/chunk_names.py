"""LMCache's keys as block keys and cache specs.

LMCache names a chunk by a chained hash of the tokens up to its end, and tells its storage neither
those tokens nor the chunk before: each chunk is a chain of its own, of its parts.
"""

# LMCache is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from typing import Any

import numpy as np
from lmcache.utils import LayerCacheEngineKey

from reprise.engines import digests
from reprise.engines.torch_dtypes import dtype_of
from reprise.keys import KEY_BYTES, KeyArray
from reprise.spec import CacheSpec

from .chunk_form import ChunkForm, form_of
from .parts import VERSION, Cut, cut
from .settings import Settings

DOMAIN = b"reprise lmcache chunk 1\0"
SPEC_TEXT_BYTES_MAX = 512


@dataclasses.dataclass(frozen=True)
class Kind:
    """What chunks of one spec have in common."""

    spec: CacheSpec
    form: ChunkForm
    cut: Cut


@dataclasses.dataclass(frozen=True)
class Chunk:
    """One chunk: `keys` are those of all parts that a full one has."""

    kind: Kind
    keys: KeyArray

    @property
    def name(self) -> tuple[CacheSpec, bytes]:
        return self.kind.spec, self.keys[0].tobytes()


def part_keys(key: Any, count: int) -> KeyArray:
    """Keys of the first `count` parts of the chunk that a CacheEngineKey names: those of its fields
    that are not in the cache spec, each in an encoding that no two values share.
    """
    tags = [[str(name), type(value).__name__, str(value)] for name, value in key.tags or ()]
    text = json.dumps([str(key.chunk_hash_hex), getattr(key, "layer_id", None), tags])
    seed = hashlib.sha256(DOMAIN + text.encode()).digest()
    parts = (hashlib.sha256(seed + part.to_bytes(4, "little")).digest() for part in range(count))
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, KEY_BYTES)


class ChunkNames:
    """The chunks of one engine. Thread-safe."""

    def __init__(self, metadata: Any, config: Any, settings: Settings) -> None:
        self._metadata = metadata
        self._config = config
        self._settings = settings
        self._lock = threading.Lock()
        self._checkpoints: dict[str, tuple[str, str]] = {}
        self._kinds: dict[tuple[Any, ...], Kind] = {}

    def chunk(self, key: Any) -> Chunk:
        """Raises OtherForm or RepriseError where the key's chunks cannot be kept."""
        kind = self._kind(key)
        return Chunk(kind, part_keys(key, kind.cut.count))

    def _kind(self, key: Any) -> Kind:
        # Read anew each time: engines name their groups of layers after the plug-in is made.
        form = form_of(self._metadata, self._config, one_layer=isinstance(key, LayerCacheEngineKey))
        name = (key.model_name, key.world_size, key.worker_id, key.dtype, form)
        with self._lock:
            if name not in self._kinds:
                made = cut(form)
                self._kinds[name] = Kind(self._spec(key, form, made), form, made)
            return self._kinds[name]

    def _spec(self, key: Any, form: ChunkForm, made: Cut) -> CacheSpec:
        if key.model_name not in self._checkpoints:
            self._checkpoints[key.model_name] = digests.checkpoint_identity(
                key.model_name, self._settings.model, self._settings.revision
            )
        model, revision = self._checkpoints[key.model_name]
        element = form.dtypes[0] if len(set(form.dtypes)) == 1 else None
        dtype, itemsize = ("i8", 1) if element is None else (dtype_of(element), element.itemsize)
        if dtype == "i8":
            itemsize = 1
        layout = f"lmcache {form.describe(form.tokens)} key={key.dtype} header={VERSION}"
        if len(layout.encode()) > SPEC_TEXT_BYTES_MAX:
            layout = f"lmcache {digests.value_digest(layout)}"
        return CacheSpec(
            model,
            revision=revision,
            scope=self._settings.scope,
            # Not K and V but what LMCache made of them: one row for each token and layer.
            attention="mla",
            dtype=dtype,
            layers=made.layers,
            head_dim=made.row_bytes // itemsize,
            block_tokens=made.block_tokens,
            # LMCache counts ranks of all kinds in one; of an MLA model's the first writes for all.
            tensor_parallel_size=max(key.world_size, key.worker_id + 1),
            tensor_parallel_rank=key.worker_id,
            engine_layout=layout,
            key_scheme=f"lmcache {self._config.pre_caching_hash_algorithm} chunk={form.tokens}",
        )
