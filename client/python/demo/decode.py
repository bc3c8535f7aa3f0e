"""Greedy generation, one step at a time and timed, with a K/V cache and without."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Answer:
    """What was generated, when its first token was there, and the logits of every step."""

    tokens: list[int]
    ttft_seconds: float
    total_seconds: float
    logits: torch.Tensor  # (tokens, vocabulary), fp32


@torch.inference_mode()
def with_cache(
    model: Any, prompt: list[int], cached: int, cache: Any, count: int, started: float
) -> Answer:
    """Computes `prompt[cached:]` on top of `cache` in one step, then one token after another.

    `started` is when the request came (time.perf_counter): what was restored since then is in the
    time to first token.
    """
    step = torch.tensor([prompt[cached:]], device=model.device)
    tokens: list[int] = []
    rows: list[torch.Tensor] = []
    first = 0.0
    while len(tokens) < count:
        logits = model(
            input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits
        rows.append(logits[0, -1].float())
        tokens.append(int(rows[-1].argmax()))
        first = first or time.perf_counter() - started
        step = torch.tensor([tokens[-1:]], device=model.device)
    return Answer(tokens, first, time.perf_counter() - started, torch.stack(rows).cpu())


@torch.inference_mode()
def without_cache(model: Any, prompt: list[int], count: int) -> Answer:
    """Computes the whole sequence again for every token."""
    started = time.perf_counter()
    sequence = list(prompt)
    rows: list[torch.Tensor] = []
    first = 0.0
    for _ in range(count):
        step = torch.tensor([sequence], device=model.device)
        logits = model(input_ids=step, use_cache=False, logits_to_keep=1).logits
        rows.append(logits[0, -1].float())
        sequence.append(int(rows[-1].argmax()))
        first = first or time.perf_counter() - started
    total = time.perf_counter() - started
    return Answer(sequence[len(prompt) :], first, total, torch.stack(rows).cpu())
