"""An engine in a process of its own: prints what it retrieves of a prompt, and a digest of it.

python another_process.py ROUTER SEED TOKENS
"""

from __future__ import annotations

import hashlib
import sys

import torch
from engine import Engine, tokens_of


def digest(kv: torch.Tensor) -> str:
    return hashlib.sha256(kv.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    router, seed, count = sys.argv[1:]
    with Engine({"router": router}) as engine:
        tokens = tokens_of(seed, int(count))
        found = engine.lookup(tokens)
        came, kv = engine.retrieve(tokens)
    print("RETRIEVED", found, came, digest(kv[:, :, :came]))
