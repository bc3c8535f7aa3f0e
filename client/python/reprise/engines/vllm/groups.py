"""vLLM's KV cache groups, and what of them can be kept outside: a plan of parts, or one sentence
that names a layer.

A part is what shares one cache spec: the layers of one group with one geometry. A prefix counts
only when every part of every rank has it.
"""

# vLLM is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import dataclasses
import re
from typing import Any

SUPPORTED = (
    "full_attention",
    "mla_attention",
    "sliding_window",
    "sliding_window_mla",
    "sink_full_attention",
)
WHY_NOT = {
    "mamba": "its state is one vector for the whole prefix, not K and V per token",
    "chunked_local_attention": "its blocks belong to chunks, not to a prefix",
    "encoder_only_attention": "it keeps no K/V between steps",
    "cross_attention": "its K/V belongs to the encoder's input, not to the prompt's tokens",
    "unknown": "its layers keep different kinds of state in one group",
}


class UnsupportedModel(ValueError):
    """The model keeps state that Reprise cannot keep outside the engine."""


@dataclasses.dataclass(frozen=True)
class Group:
    """One KV cache group: `index` is vLLM's, `window_tokens` 0 means full attention."""

    index: int
    layer_names: tuple[str, ...]
    block_tokens: int
    window_tokens: int


def layer_index(name: str) -> tuple[int, str]:
    """Sorts layers as the model runs them: by the first number in the name."""
    number = re.search(r"\.(\d+)\.", f".{name}.")
    return (int(number.group(1)) if number else 1 << 30, name)


def plan_groups(kv_cache_config: Any) -> tuple[Group, ...]:
    """The groups to keep, in vLLM's order. Raises UnsupportedModel naming the first layer that
    cannot be.
    """
    from vllm.v1.kv_cache_interface import (
        get_kv_cache_spec_kind,
        get_kv_cache_spec_sliding_window,
        iter_layer_specs,
    )

    kept = set(kv_cache_config.prefix_cacheable_group_ids)
    groups = []
    for index, group in enumerate(kv_cache_config.kv_cache_groups):
        spec = group.kv_cache_spec
        layer = group.layer_names[0] if group.layer_names else f"group {index}"
        kind = get_kv_cache_spec_kind(spec).value
        if kind not in SUPPORTED:
            why = WHY_NOT.get(kind, "Reprise does not know this kind")
            raise UnsupportedModel(
                f"Reprise cannot cache this model: layer {layer} has {kind.replace('_', ' ')} "
                f"state; {why}. Start without --kv-transfer-config, or with another model."
            )
        if any(getattr(s, "tokens_per_state", 1) != 1 for s in iter_layer_specs(spec)):
            raise UnsupportedModel(
                f"Reprise cannot cache this model: layer {layer} compresses several tokens into "
                f"one state. Start without --kv-transfer-config, or with another model."
            )
        if index not in kept:
            if group.enable_kv_transfer:
                raise UnsupportedModel(
                    f"Reprise cannot cache this model: vLLM keeps layer {layer} out of prefix "
                    f"caching. Start without --kv-transfer-config, or with another model."
                )
            continue
        window = get_kv_cache_spec_sliding_window(spec) or 0
        if kind.startswith("sliding_window") and not window:
            raise UnsupportedModel(
                f"Reprise cannot cache this model: the layers of {layer}'s group have different "
                f"windows."
            )
        groups.append(Group(index, tuple(group.layer_names), spec.block_size, window))
    if not groups:
        raise UnsupportedModel("Reprise found no attention layer whose K/V could be cached.")
    return tuple(groups)


def check_parallelism(parallel_config: Any) -> None:
    """Raises UnsupportedModel where one block's tokens are split over ranks."""
    for name, flag in (
        ("decode_context_parallel_size", "--decode-context-parallel-size"),
        ("prefill_context_parallel_size", "--prefill-context-parallel-size"),
    ):
        size = getattr(parallel_config, name, 1)
        if size > 1:
            raise UnsupportedModel(
                f"Reprise does not cache with {flag} {size}: one block's tokens would lie on "
                f"several ranks. Set it to 1."
            )
