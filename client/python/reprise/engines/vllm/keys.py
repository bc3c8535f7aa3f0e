"""Block keys: the engine's own block hashes, as they are, where every process computes the same
ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import numpy as np

KEY_BYTES = 32
CRYPTOGRAPHIC = ("sha256", "sha256_cbor")
# vLLM's, for cryptographic hashes; checked against the installed one in the tests
DEFAULT_SEED = "vllm-none-hash"


def key_scheme(algorithm: str, tokens_per_hash: int, seed: str | None = None) -> str:
    """Names everything that a key's value depends on besides the tokens. Raises ValueError for
    keys that no other process can compute. `seed` is PYTHONHASHSEED; None: from the environment.
    """
    if seed is None:
        seed = os.environ.get("PYTHONHASHSEED")
    if seed is None:
        if algorithm not in CRYPTOGRAPHIC:
            raise ValueError(
                f"--prefix-caching-hash-algo {algorithm} has another random seed in every "
                f"process, so that no other "
                f"server could find this one's blocks: use --prefix-caching-hash-algo sha256, "
                f"or set PYTHONHASHSEED "
                f"to one value on all servers"
            )
        seed = DEFAULT_SEED
    digest = hashlib.sha256(seed.encode()).hexdigest()[:16]
    return f"vllm {algorithm} seed={digest} tokens={tokens_per_hash}"


def keys_of(block_hashes: Sequence[bytes], hashes_per_block: int, blocks: int) -> bytes:
    """Packed keys of the first `blocks` blocks. A block of several hashes has the last one's,
    which stands for all tokens before it; hashes shorter than a key (xxhash) are padded with
    zeros.
    """
    chosen = block_hashes[hashes_per_block - 1 : blocks * hashes_per_block : hashes_per_block]
    packed = b"".join(chosen)
    if len(packed) == len(chosen) * KEY_BYTES:
        return packed
    return b"".join(h.ljust(KEY_BYTES, b"\0") for h in chosen)


def as_array(packed: bytes) -> np.ndarray:
    """(n, 32) array over packed keys."""
    return np.frombuffer(packed, dtype=np.uint8).reshape(-1, KEY_BYTES)
