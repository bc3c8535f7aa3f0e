"""The cache spec of one rank's host pool, from the running server."""

# SGLang is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import dataclasses
import json
import types
from typing import Any

from reprise.engines import digests
from reprise.spec import CacheSpec

from .host_pool import HostPool
from .settings import Settings

# SGLang's chained SHA-256 of a page's tokens, seeded with the request's extra_key and cache_salt.
KEY_SCHEME = "sglang sha256"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What is served: which weights, and how they are computed with."""

    model: str
    revision: str
    rope_digest: str
    numerics: str  # what changes K and V's values besides the weights as stored


def server_arguments() -> Any:
    """What this process's server was started with, as SGLang resolved it: a member per argument."""
    from sglang.srt.runtime_context import get_context

    return types.SimpleNamespace(**get_context().resolved_server_args_dict())


def read_checkpoint(args: Any, settings: Settings) -> Checkpoint:
    """`args`: see server_arguments."""
    from sglang.srt.utils.hf_transformers_utils import get_config

    overrides = json.loads(args.json_model_override_args or "{}")
    config = get_config(
        args.model_path, args.trust_remote_code, args.revision, model_override_args=overrides
    )
    model, revision = digests.checkpoint_identity(
        args.model_path, settings.model, settings.revision
    )
    if not revision:
        revision = getattr(config, "_commit_hash", None) or args.revision or ""
    if "dummy" in str(args.load_format):
        revision += f" dummy seed={args.random_seed}"
    numerics = [f"compute={args.dtype}", f"cache={args.kv_cache_dtype}"]
    if args.quantization:
        numerics.append(f"quantization={args.quantization}")
    if overrides:
        numerics.append(f"overrides={digests.value_digest(overrides)[:16]}")
    text = getattr(config, "get_text_config", lambda: config)()
    return Checkpoint(model, revision, digests.rope_digest(text), " ".join(numerics))


def spec_of(
    pool: HostPool,
    name: str,
    checkpoint: Checkpoint,
    storage: Any,
    settings: Settings,
    version: str,
) -> CacheSpec:
    """The spec of pool `name` on this rank. `storage` is SGLang's HiCacheStorageConfig, `version`
    the server's weight version.
    """
    # Every rank has the whole latent, and one writes it for all.
    ranks = 1 if pool.attention == "mla" else storage.tp_size
    layout = f"sglang {name} {checkpoint.numerics}"
    if pool.draft_layers:
        layout += f" drafts={pool.draft_layers}"
    return CacheSpec(
        checkpoint.model,
        revision=f"{checkpoint.revision} version={version}".strip(),
        scope=settings.scope,
        codec=settings.codec,
        attention=pool.attention,
        dtype=pool.dtype,
        layers=pool.layers,
        kv_heads=pool.kv_heads,
        head_dim=pool.head_dim,
        block_tokens=pool.page_tokens,
        tensor_parallel_size=ranks,
        tensor_parallel_rank=storage.tp_rank % ranks,
        pipeline_parallel_size=storage.pp_size,
        pipeline_parallel_rank=storage.pp_rank,
        rope_digest=checkpoint.rope_digest,
        engine_layout=layout,
        key_scheme=KEY_SCHEME,
    )
