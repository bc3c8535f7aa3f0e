"""The cache spec: everything that must agree for two K/V tensors to be interchangeable."""

from __future__ import annotations

import ctypes
import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property

from reprise import _abi


@dataclass(frozen=True)
class CacheSpec:
    """Names a kind of K/V block; its `fingerprint` separates key spaces, so nothing is shared by
    mistake.

    A block is the K and V of `block_tokens` consecutive tokens, all `layers`, in the canonical
    layout `[layer][K, V][kv head][token][head dim]` (MLA: `[layer][token][latent]`), every row
    padded to 16 bytes. Mixture-of-experts models are "gqa" or "mla" like dense ones: their K/V is
    attention's, and the experts keep nothing.

    Fields that are left at their defaults mean: no revision, no scope, full attention, no parallel
    split, no LoRA adapter, no codec, the canonical layout, Reprise's own block keys.

    Under a codec the client encodes blocks on their way to a shard and decodes them on their way
    back: `stored_bytes` instead of `block_bytes` are sent and kept, and the numbers that come back
    are near those that went, within the bounds of kernels/quantize/quantize.h. The caller's memory
    is the same with and without one. For `dtype` "f32", "f16" and "bf16".
    """

    model: str
    _: dataclasses.KW_ONLY
    revision: str = ""  # weights revision or digest
    scope: str = ""  # operator's namespace, e.g. a release name
    attention: str = "gqa"  # "gqa" (MHA and MQA included) or "mla"
    dtype: str = "bf16"  # "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "i8"
    layers: int
    kv_heads: int = 0  # of this tensor-parallel rank; "mla": 0
    head_dim: int  # elements per head; "mla": elements of the latent
    block_tokens: int = 16
    window_tokens: int = 0  # sliding attention window; 0: full attention
    tensor_parallel_size: int = 1
    tensor_parallel_rank: int = 0
    pipeline_parallel_size: int = 1
    pipeline_parallel_rank: int = 0
    rope_digest: str = ""
    lora_digest: str = ""
    codec: str = ""  # "fp8_e4m3", "int8", "int4", "int4_g64": lossy, see below
    engine_layout: str = ""
    key_scheme: str = ""

    def to_json(self) -> str:
        """The spec as the C ABI takes it."""
        return json.dumps(dataclasses.asdict(self))

    @property
    def block_bytes(self) -> int:
        """Bytes of one canonical block. Raises RepriseError for an impossible spec."""
        return self._measured[1]

    @property
    def stored_bytes(self) -> int:
        """Bytes of one block at a shard: those of an encoded one under a codec."""
        return self._measured[2]

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the canonical encoding. Raises RepriseError for an impossible spec."""
        return self._measured[0]

    @property
    def planes(self) -> int:
        """Planes of a `PagedPlan` under this spec: K and V of each layer, or one latent of each."""
        return self.layers * (1 if self.attention == "mla" else 2)

    @cached_property
    def _measured(self) -> tuple[bytes, int, int]:
        fingerprint = (ctypes.c_uint8 * 32)()
        block_bytes, stored_bytes = ctypes.c_uint64(), ctypes.c_uint64()
        error = _abi.Error()
        code = _abi.library().reprise_fingerprint(
            self.to_json().encode(),
            fingerprint,
            ctypes.byref(block_bytes),
            ctypes.byref(stored_bytes),
            ctypes.byref(error),
        )
        _abi.check(code, error)
        return bytes(fingerprint), block_bytes.value, stored_bytes.value
