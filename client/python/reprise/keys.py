"""Block keys and block checksums: the names and the proof of what is stored."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from reprise import _abi
from reprise.memory import readable

KEY_BYTES = 32
CHECKSUM_BYTES = 16

#: (n, 32) uint8, packed, in prefix order from the chain's first block.
KeyArray: TypeAlias = npt.NDArray[np.uint8]
#: What is taken for keys: a `KeyArray`, packed bytes, or one `bytes` of 32 per key.
KeysLike: TypeAlias = Union[KeyArray, bytes, Sequence[bytes]]
#: What is taken for tokens: ints in [0, 2**32), an integer array or a CPU tensor, of one dimension.
TokensLike: TypeAlias = Any


def block_keys(
    tokens: TokensLike,
    block_tokens: int = 16,
    *,
    salt: bytes = b"",
    extra: bytes = b"",
    parent: bytes | None = None,
) -> KeyArray:
    """The key of every full block of `tokens`, shape (len(tokens) // block_tokens, 32), uint8.

    Each key is SHA-256 over its parent's key, its own tokens and `extra`, so it stands for the
    whole prefix. `salt` (a tenant's secret) enters the first block and so all of them; `extra` (a
    LoRA name, the hashes of images) enters each. `parent` is the key to continue from. Raises
    ValueError for what is not tokens, RepriseError for a `block_tokens` outside the limits.
    """
    ids = as_tokens(tokens)
    _require_block_tokens(block_tokens)
    if parent is not None and len(parent) != KEY_BYTES:
        raise ValueError(f"parent has {len(parent)} bytes: a key has {KEY_BYTES}")
    keys = _empty_keys(ids, block_tokens)
    error = _abi.Error()
    code = _abi.library().reprise_block_keys(
        tokens_pointer(ids), ids.size, block_tokens,
        None if parent is None else (ctypes.c_uint8 * KEY_BYTES).from_buffer_copy(parent),
        salt or None, len(salt), extra or None, len(extra),
        keys_pointer(keys), ctypes.byref(error),
    )  # fmt: skip
    _abi.check(code, error)
    return keys


def vllm_block_keys(
    tokens: TokensLike, block_tokens: int, seed: str, cache_salt: str | None = None
) -> KeyArray:
    """vLLM's `sha256_cbor` block hashes of `tokens`, shape (len(tokens) // block_tokens, 32),
    uint8: those of text prompts without a LoRA adapter, as vLLM 0.32 makes them.

    `seed` is the engine's PYTHONHASHSEED string ("vllm-none-hash" where it is not set);
    `cache_salt` is the request's, None or "" where it has none. Raises ValueError for what cannot
    be either.
    """
    ids = as_tokens(tokens)
    _require_block_tokens(block_tokens)
    _require_whole(seed=seed, cache_salt=cache_salt or "")
    keys = _empty_keys(ids, block_tokens)
    error = _abi.Error()
    code = _abi.library().reprise_vllm_block_keys(
        tokens_pointer(ids), ids.size, block_tokens, seed.encode(),
        None if cache_salt is None else cache_salt.encode(),
        keys_pointer(keys), ctypes.byref(error),
    )  # fmt: skip
    _abi.check(code, error)
    return keys


def sglang_page_keys(
    tokens: TokensLike,
    page_tokens: int,
    *,
    extra_key: str | None = None,
    cache_salt: str | None = None,
) -> KeyArray:
    """SGLang's page hashes of `tokens`, shape (len(tokens) // page_tokens, 32), uint8: those of
    text prompts without a LoRA adapter or a speculative model, as SGLang 0.5.23 makes them.

    `extra_key` and `cache_salt` are the request's, None or "" where it has none. Raises ValueError
    for what cannot be either.
    """
    ids = as_tokens(tokens)
    _require_block_tokens(page_tokens)
    _require_whole(extra_key=extra_key or "", cache_salt=cache_salt or "")
    keys = _empty_keys(ids, page_tokens)
    error = _abi.Error()
    code = _abi.library().reprise_sglang_page_keys(
        tokens_pointer(ids), ids.size, page_tokens,
        (extra_key or "").encode(), (cache_salt or "").encode(),
        keys_pointer(keys), ctypes.byref(error),
    )  # fmt: skip
    _abi.check(code, error)
    return keys


def checksum(buffer: Any, section_bytes: int) -> bytes:
    """The block checksum, 16 bytes, of a contiguous buffer in sections of `section_bytes`."""
    span = readable(buffer)
    if span.nbytes == 0 or section_bytes <= 0:
        raise ValueError(
            f"checksum of {span.nbytes} bytes in sections of {section_bytes}: both must be above 0"
        )
    digest = (ctypes.c_uint8 * CHECKSUM_BYTES)()
    _abi.library().reprise_checksum(span.address, span.nbytes, section_bytes, digest)
    return bytes(digest)


def as_tokens(tokens: TokensLike) -> npt.NDArray[np.uint32]:
    """Contiguous uint32 tokens. Raises ValueError unless they are one-dimensional and each fits."""
    ids = np.asarray(tokens)
    if ids.ndim != 1:
        raise ValueError(f"tokens have shape {ids.shape}: one prompt, of one dimension, is taken")
    if ids.size == 0:
        return np.empty(0, np.uint32)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"tokens are {ids.dtype}: integers are taken")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > 0xFFFFFFFF:
        raise ValueError(f"token {low if low < 0 else high}: must be in [0, 2**32)")
    return np.ascontiguousarray(ids, np.uint32)


def as_keys(keys: KeysLike) -> KeyArray:
    """Contiguous (n, 32) uint8 keys. Raises ValueError for anything that is not whole keys."""
    if isinstance(keys, np.ndarray):
        if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != KEY_BYTES:
            raise ValueError(
                f"keys are {keys.dtype} of shape {keys.shape}: (n, {KEY_BYTES}) uint8 is taken"
            )
        return np.ascontiguousarray(keys)
    packed = keys if isinstance(keys, (bytes, bytearray, memoryview)) else b"".join(_whole(keys))
    if len(packed) % KEY_BYTES:
        raise ValueError(f"keys have {len(packed)} bytes: a multiple of {KEY_BYTES} is taken")
    return np.frombuffer(packed, np.uint8).reshape(-1, KEY_BYTES)


def _whole(keys: Sequence[bytes]) -> Sequence[bytes]:
    for index, key in enumerate(keys):
        if len(key) != KEY_BYTES:
            raise ValueError(f"key {index} has {len(key)} bytes: {KEY_BYTES} are taken")
    return keys


def tokens_of_keys(
    keys: KeyArray, tokens: TokensLike | None, block_tokens: int
) -> npt.NDArray[np.uint32]:
    """The tokens that `keys` stand for, those after them left out; none for None. Raises ValueError
    when there are fewer."""
    if tokens is None:
        return np.empty(0, np.uint32)
    ids = as_tokens(tokens)
    needed = len(keys) * block_tokens
    if ids.size < needed:
        raise ValueError(
            f"{ids.size} tokens for {len(keys)} keys of {block_tokens} each: {needed} needed"
        )
    return ids[:needed]


def keys_pointer(keys: KeyArray) -> Any:
    """The keys as the ABI takes them; NULL for none. The caller keeps the array alive."""
    # A tenth of what `keys.ctypes.data_as` takes.
    return ctypes.byref(ctypes.c_uint8.from_address(keys.ctypes.data)) if keys.size else None


def tokens_pointer(tokens: npt.NDArray[np.uint32]) -> Any:
    """The tokens as the ABI takes them; NULL for none. The caller keeps the array alive."""
    return ctypes.byref(ctypes.c_uint32.from_address(tokens.ctypes.data)) if tokens.size else None


def _empty_keys(tokens: npt.NDArray[np.uint32], block_tokens: int) -> KeyArray:
    return np.empty((tokens.size // block_tokens, KEY_BYTES), np.uint8)


def _require_whole(**texts: str) -> None:
    for name, text in texts.items():
        if "\0" in text:  # the ABI's texts end there, and another key would come back
            raise ValueError(f"{name} {text!r} has a NUL character")


def _require_block_tokens(block_tokens: int) -> None:
    if not 0 < block_tokens < 2**32:
        raise ValueError(f"block_tokens = {block_tokens}: must be above 0")
