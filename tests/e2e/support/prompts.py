"""Prompts of token ids, so that what is cached can be counted exactly."""

from __future__ import annotations

import random

VOCABULARY = range(300, 2000)  # no special token, no single byte


def words(seed: str, count: int) -> list[int]:
    """Token ids that depend on the seed alone."""
    return random.Random(seed).choices(VOCABULARY, k=count)
