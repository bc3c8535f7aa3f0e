"""Chains of page hashes: SGLang's hexadecimal SHA-256 of a page, which stands for all tokens before
it too, is the block key as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reprise.keys import KeyArray

KEY_BYTES = 32


def chain_of(prefix: Sequence[str] | None, hashes: Sequence[str]) -> KeyArray:
    """The whole chain, from the prompt's first page. Raises ValueError for what is no SHA-256."""
    text = "".join((*(prefix or ()), *hashes))
    packed = bytes.fromhex(text)
    count = len(prefix or ()) + len(hashes)
    if len(packed) != count * KEY_BYTES:
        raise ValueError(
            f"{count} page hashes have {len(packed)} bytes: each must be a SHA-256 of "
            f"{KEY_BYTES} bytes"
        )
    return np.frombuffer(packed, np.uint8).reshape(-1, KEY_BYTES)


def pages_of(host_indices: Any, count: int, page_tokens: int) -> npt.NDArray[np.int64]:
    """Page indexes of `count` pages, from the token slots that SGLang names. Raises ValueError
    where they are not `count` whole pages.
    """
    slots = np.asarray(host_indices, np.int64).reshape(-1)
    if slots.size != count * page_tokens:
        raise ValueError(
            f"{slots.size} token slots for {count} pages of {page_tokens} tokens: they must be "
            f"whole pages"
        )
    firsts = slots[::page_tokens]
    if (firsts % page_tokens).any():
        raise ValueError(
            f"token slot {int(firsts[firsts % page_tokens != 0][0])} begins a page and is no "
            f"multiple of {page_tokens}"
        )
    return firsts // page_tokens
