"""The cache spec of one rank's part of one group, from the running engine."""

from __future__ import annotations

import dataclasses
from typing import Any

from reprise.engines import digests
from reprise.engines.torch_dtypes import dtype_of
from reprise.spec import CacheSpec

from . import keys, layout
from .groups import Group
from .settings import Settings

@dataclasses.dataclass(frozen=True)
class Part:
    """What one rank keeps of one group under one spec. Travels from the workers to the
    scheduler.
    """

    group: Group
    layer_names: tuple[str, ...]
    spec: CacheSpec
    page_tokens: int
    pages_per_block: int

    def variant(self, lora_digest: str, epoch: str) -> CacheSpec:
        """The spec of a request with a LoRA adapter, or after the engine's weights were
        replaced.
        """
        if not lora_digest and not epoch:
            return self.spec
        scope = self.spec.scope + (f" epoch={epoch}" if epoch else "")
        return dataclasses.replace(self.spec, lora_digest=lora_digest, scope=scope)


@dataclasses.dataclass(frozen=True)
class Planes:
    """Where a part lies in this process: (address, page, head, token stride) per (layer, K|V),
    and the tensors.
    """

    rows: tuple[tuple[int, int, int, int], ...]
    owners: tuple[Any, ...]


def model_identity(vllm_config: Any, settings: Settings) -> tuple[str, str]:
    """(model, revision). Folders that hold the same weights are the same model wherever they
    lie.
    """
    config = vllm_config.model_config
    name, revision = digests.checkpoint_identity(config.model, settings.model, settings.revision)
    if not revision:
        revision = getattr(config.hf_config, "_commit_hash", None) or config.revision or ""
    load_format = str(getattr(vllm_config.load_config, "load_format", "auto"))
    if "dummy" in load_format:
        revision += f" dummy seed={config.seed}"
    return name, revision


def numerics(vllm_config: Any) -> str:
    """What changes K and V's values besides the weights as stored: the dtype they are computed
    in, quantization.
    """
    config = vllm_config.model_config
    parts = [
        f"compute={str(config.dtype).removeprefix('torch.')}",
        f"cache={vllm_config.cache_config.cache_dtype}",
    ]
    if getattr(config, "quantization", None):
        parts.append(f"quantization={config.quantization}")
    return " ".join(parts)


def check_scales(vllm_config: Any) -> None:
    """Raises ValueError where each process finds its own K/V scales, so that bytes do not mean
    the same.
    """
    if getattr(vllm_config.cache_config, "calculate_kv_scales", False):
        raise ValueError(
            "--calculate-kv-scales gives every server other K/V scales, so their quantized "
            "blocks are not "
            "interchangeable: use a checkpoint that has scales, or --kv-cache-dtype auto"
        )


def parts_of_rank(
    vllm_config: Any,
    groups: tuple[Group, ...],
    kv_caches: dict[str, Any],
    num_blocks: int,
    kv_cache_config: Any,
    settings: Settings,
    ranks: tuple[int, int, int, int],
    tokens_per_hash: int,
) -> list[tuple[Part, Planes]]:
    """Parts of this rank, with where they lie. `ranks` is (tp size, tp rank, pp size, pp rank).
    Raises UnsupportedLayout naming the layer.
    """
    model, revision = model_identity(vllm_config, settings)
    tp_size, tp_rank, pp_size, pp_rank = ranks
    replicas = max(
        1, getattr(kv_cache_config, "kv_tp_replicas", 1)
    )  # ranks with the same K/V share blocks
    common: dict[str, Any] = dict(
        model=model,
        revision=revision,
        scope=settings.scope,
        codec=settings.codec,
        tensor_parallel_size=max(1, tp_size // replicas),
        tensor_parallel_rank=tp_rank // replicas,
        pipeline_parallel_size=pp_size,
        pipeline_parallel_rank=pp_rank,
        rope_digest=digests.rope_digest(vllm_config.model_config.hf_text_config),
        key_scheme=keys.key_scheme(
            vllm_config.cache_config.prefix_caching_hash_algo, tokens_per_hash
        ),
    )
    found: list[tuple[Part, Planes]] = []
    for group in groups:
        layouts = _layouts(vllm_config, group, kv_caches, num_blocks)
        for number, (one, names) in enumerate(layouts.items()):
            where = (
                f"group={group.index}.{number}"
                if len(groups) > 1 or len(layouts) > 1
                else "group=0"
            )
            spec = CacheSpec(
                **common,
                attention=one.attention,
                dtype=one.element,
                layers=len(names),
                kv_heads=one.kv_heads if one.attention == "gqa" else 0,
                head_dim=one.head_dim,
                block_tokens=group.block_tokens,
                window_tokens=group.window_tokens,
                engine_layout=f"vllm {one.name} {numerics(vllm_config)} {where}",
            )
            rows = tuple(
                (
                    kv_caches[name].data_ptr() + plane.offset,
                    plane.page_stride,
                    plane.head_stride,
                    plane.token_stride,
                )
                for name in names
                for plane in one.planes
            )
            part = Part(group, tuple(names), spec, one.page_tokens, one.pages_per_block)
            found.append((part, Planes(rows, tuple(kv_caches[name] for name in names))))
    return found


def _layouts(
    vllm_config: Any, group: Group, kv_caches: dict[str, Any], num_blocks: int
) -> dict[layout.LayerLayout, list[str]]:
    """The group's layers on this rank by layout, in the model's order."""
    from .groups import layer_index

    found: dict[layout.LayerLayout, list[str]] = {}
    for name in sorted(group.layer_names, key=layer_index):
        if name not in kv_caches:  # another pipeline rank's
            continue
        try:
            found.setdefault(
                _read(vllm_config, name, kv_caches[name], num_blocks, group.block_tokens), []
            ).append(name)
        except layout.UnsupportedLayout as error:
            raise layout.UnsupportedLayout(f"Reprise cannot cache layer {name}: {error}") from None
    return found


def _read(
    vllm_config: Any, name: str, tensor: Any, num_blocks: int, block_tokens: int
) -> layout.LayerLayout:
    layer = vllm_config.compilation_config.static_forward_context[name]
    backend = layer.get_attn_backend().get_name()
    spec = layer.get_kv_cache_spec(vllm_config)
    shape, strides, element_bytes = layout.describe_tensor(tensor)
    mode = getattr(spec, "kv_quant_mode", None)
    return layout.read_layout(
        shape,
        strides,
        element_bytes,
        backend=backend,
        dtype=dtype_of(tensor.dtype),
        isa=str(getattr(layer, "isa", "") or ""),
        head_size=getattr(spec, "head_size", 0),
        head_size_v=getattr(spec, "head_size_v", 0),
        quantized=bool(mode),
        num_blocks=num_blocks,
        block_tokens=block_tokens,
    )
