"""Hugging Face Transformers: restore a prompt's prefix into a `DynamicCache`, and save one from it.

    from reprise.engines.transformers import PrefixCache

    prefixes = PrefixCache(client, model)
    answer = prefixes.generate(input_ids, session="user-1", max_new_tokens=64)
    answer.usage["prompt_tokens_details"]["cached_tokens"]

Models: decoders with full attention in every layer. Llama, Qwen, Mistral and their like (MHA, GQA,
MQA); mixture-of-experts models such as Mixtral and Qwen-MoE, whose K/V is attention's and nothing
more, since experts keep no state; DeepSeek's MLA, of which Transformers caches the compressed
latent. Sliding-window, chunked, indexed, hybrid and linear-state layers, encoder-decoders,
quantized caches and position encodings that depend on the prompt's length are refused by name when
`PrefixCache` is made.

One sequence at a time: a batch of two or more is refused. The bytes go straight from and to the
cache's own tensors, in host memory and on a GPU; without CUDA in the library, and for a model that
is spread over devices, through one host tensor.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from reprise.client import Client, StoreResult
from reprise.engines.claims import own_claim
from reprise.engines.crossover import Crossover
from reprise.engines.first_forward import FirstForward
from reprise.engines.model_identity import (
    active_adapters,
    digest_of,
    model_digest,
    rope_digest,
    rope_types,
)
from reprise.hints import Evict, Hint, HintAnswer, Pin, Retain
from reprise.keys import KeyArray, TokensLike, as_tokens, block_keys
from reprise.memory import HOST, PagedPlan, Plane, gpu_count
from reprise.operation import Operation
from reprise.run import FetchResult
from reprise.spec import CacheSpec
from reprise.usage import Usage, usage_details

#: Changes whenever what a stored block holds changes.
ENGINE_LAYOUT = "transformers/1"

DTYPE_NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}

# Position encodings whose keys depend on how long the prompt is, so that a prefix of one prompt has
# other keys in a longer one.
LENGTH_DEPENDENT_ROPE = frozenset({"dynamic", "longrope", "su"})

class UnsupportedModel(ValueError):
    """The model keeps state that is not stored; the message names the layer or setting."""


@dataclass(frozen=True)
class Restored:
    """A restored prefix: pass `cache` as `past_key_values` and compute the rest."""

    cache: DynamicCache
    prompt_tokens: int
    cached_tokens: int  # exact; at least one token of the prompt is always left to compute
    blocks: int
    bytes: int = 0
    lanes: dict[str, int] = field(default_factory=dict)  # blocks by lane
    tiers: dict[str, int] = field(default_factory=dict)  # blocks by tier
    shards: int = 0  # shards that served
    error: str | None = None  # why it is shorter than what is stored; None: nothing went wrong

    @property
    def usage(self) -> Usage:
        """The prompt's part of an OpenAI `usage` object."""
        return usage_details(self.prompt_tokens, self.cached_tokens)


@dataclass(frozen=True)
class Generation:
    """An answer: `sequences` is prompt and answer, shape (1, tokens)."""

    sequences: torch.Tensor
    restored: Restored
    stored: StoreResult
    output: Any  # what model.generate returned

    @property
    def usage(self) -> Usage:
        """The prompt's part of an OpenAI `usage` object."""
        return self.restored.usage


class PrefixCache:
    """Restores and saves the prefixes of one model's prompts.

    The cache spec comes from the model as it is: the layers, heads and dtype of the cache that it
    really fills (one token is computed to see them), its position encoding, and a digest of its
    configuration and of every weight. Two models whose weights differ in one bit never share a
    block. Make it after loading weights or adapters, and again after changing them. Thread-safe as
    far as the model is.
    """

    def __init__(
        self,
        client: Client,
        model: PreTrainedModel,
        *,
        block_tokens: int = 16,
        name: str | None = None,
        revision: str | None = None,
        scope: str = "",
        salt: bytes = b"",
        codec: str = "",
        min_load_tokens: int = 1,
        faster_only: bool = False,
        timeout: float | None = None,
    ) -> None:
        """`name` is the model's name for people (default: its class); `revision` replaces the
        digest, where one who knows what is loaded wants to save reading the weights once; `scope`
        and `salt` separate what must not be shared; `codec` stores less and restores what is near
        (`CacheSpec`), default: bit for bit; a stored prefix shorter than `min_load_tokens` is
        computed; with `faster_only` so is one of which the measurements so far (`crossover`) say
        that this is sooner than to restore it; `timeout` (seconds) bounds each restore and save,
        None: the client's default.

        Raises UnsupportedModel naming what cannot be stored.
        """
        self._client = client
        self._model = model
        self._salt = salt
        self._min_load_tokens = min_load_tokens
        self._timeout = timeout
        #: What restores and prefills took so far, in `restore` and `generate`.
        self.crossover = Crossover()
        self._faster_only = faster_only
        self._shape = _CacheShape.of(model)
        adapters = active_adapters(model)
        self.spec = CacheSpec(
            name or type(model).__name__,
            revision=model_digest(model) if revision is None else revision,
            scope=scope,
            attention=self._shape.attention,
            dtype=DTYPE_NAMES[self._shape.dtype],
            layers=self._shape.layers,
            kv_heads=self._shape.spec_heads,
            head_dim=self._shape.row,
            block_tokens=block_tokens,
            rope_digest=rope_digest(model),
            lora_digest=digest_of(adapters) if adapters else "",
            codec=codec,
            engine_layout=ENGINE_LAYOUT,
        )
        self._adapters = adapters

    def restore(self, input_ids: TokensLike, session: str | None = None) -> Restored:
        """The longest stored prefix of the prompt, in a new cache.

        `input_ids` is one prompt, shape (tokens,) or (1, tokens). At least one token is left to
        compute, so that there are logits. A cache that is down or misses answers an empty
        `DynamicCache`.
        """
        tokens = _one_prompt(input_ids)
        self._require_same_adapters()
        cache = DynamicCache(config=self._model.config)
        usable = max(0, tokens.size - 1) // self.spec.block_tokens * self.spec.block_tokens
        keys = block_keys(tokens[:usable], self.spec.block_tokens, salt=self._salt)
        fetched = FetchResult(blocks=0)
        started = time.perf_counter()
        if len(keys) and usable >= self._min_load_tokens:
            with self._client.acquire(
                self.spec, keys, session=session, timeout=self._timeout
            ) as run:
                fetched = FetchResult(blocks=0, error=run.error)
                if run.blocks and self._worth(run.tokens):
                    memory = _Memory.empty(self._shape, run.tokens, _place(self._model.device))
                    plan = memory.plan(self._client, self.spec)
                    fetched = run.fetch_paged(plan, np.arange(run.blocks), timeout=self._timeout)
                    memory.fill(cache, fetched.blocks * self.spec.block_tokens, self._model.device)
        if fetched.error is None:
            restored = fetched.blocks * self.spec.block_tokens
            self.crossover.note_restore(restored, time.perf_counter() - started)
        return Restored(
            cache=cache,
            prompt_tokens=tokens.size,
            cached_tokens=fetched.blocks * self.spec.block_tokens,
            blocks=fetched.blocks,
            bytes=fetched.bytes,
            lanes=fetched.lanes,
            tiers=fetched.tiers,
            shards=fetched.shards,
            error=fetched.error,
        )

    def save(self, input_ids: TokensLike, cache: Cache, session: str | None = None) -> StoreResult:
        """Stores the full blocks of what `cache` holds of `input_ids` (prompt and answer).

        `cache` must have been filled by this model from these very tokens. What is stored already
        is not sent again. Raises ValueError for a cache of another shape or a batch.
        """
        return self.save_async(input_ids, cache, session).result()

    def save_async(
        self, input_ids: TokensLike, cache: Cache, session: str | None = None
    ) -> Operation[StoreResult]:
        """`save` without waiting. `cache` may grow meanwhile: it grows by new tensors."""
        tokens = _one_prompt(input_ids)
        self._require_same_adapters()
        covered = min(tokens.size, int(cache.get_seq_length()))
        blocks = covered // self.spec.block_tokens
        if blocks == 0:
            return Operation.finished(self._client, StoreResult(stored=0, present=0))
        covered = blocks * self.spec.block_tokens
        keys = block_keys(tokens[:covered], self.spec.block_tokens, salt=self._salt)
        plan = _Memory.of(cache, self._shape, covered).plan(self._client, self.spec)
        return self._client.store_paged_async(
            self.spec, keys, plan, np.arange(blocks),
            tokens=tokens[:covered], session=session, timeout=self._timeout,
        )  # fmt: skip

    def keep(
        self,
        input_ids: TokensLike,
        ttl: float,
        session: str | None = None,
        *,
        priority: int = 50,
        pin: bool = False,
        claim_id: str | None = None,
    ) -> HintAnswer:
        """Keeps the full blocks of `input_ids`, those stored now and those to come, for `ttl`
        seconds: they go last, lower `priority` (1 to 100) first; with `pin` they do not go at all.
        A claim named `claim_id` is replaced (default: the session's; without one the prefix's).
        """
        keys = self._full_blocks(input_ids)
        name = claim_id or own_claim(session, ("prefix", keys[-1:].tobytes().hex()))
        hint = Pin(name, ttl) if pin else Retain(name, ttl, priority)
        return self._hint(keys, hint, session)

    def forget(self, input_ids: TokensLike, session: str | None = None) -> HintAnswer:
        """Drops the full blocks of `input_ids` that no other prompt needs and no claim keeps."""
        return self._hint(self._full_blocks(input_ids), Evict(), session)

    def _full_blocks(self, input_ids: TokensLike) -> KeyArray:
        self._require_same_adapters()
        return block_keys(_one_prompt(input_ids), self.spec.block_tokens, salt=self._salt)

    def _hint(self, keys: KeyArray, hint: Hint, session: str | None) -> HintAnswer:
        if not len(keys):
            return HintAnswer("missing", 0, 0.0, 0, "the tokens are fewer than one block's")
        return self._client.hint(self.spec, keys, hint, session=session, timeout=self._timeout)

    def generate(
        self, input_ids: TokensLike, *, session: str | None = None, **options: Any
    ) -> Generation:
        """`model.generate` with the prefix restored before and the whole saved after.

        `options` go to `model.generate`. Raises ValueError for options that make more than one
        sequence or another kind of cache.
        """
        _require_plain_generation(options)
        restored = self.restore(input_ids, session)
        prompt = torch.as_tensor(_one_prompt(input_ids).astype(np.int64), device=self._model.device)
        arguments: dict[str, Any] = {"attention_mask": torch.ones_like(prompt)[None], **options}
        arguments.update(past_key_values=restored.cache, return_dict_in_generate=True)
        with FirstForward(self._model) as prefill:
            output = self._model.generate(prompt[None], **arguments)  # type: ignore[operator]
        stored = self.save(output.sequences[0].cpu(), output.past_key_values, session)
        self._note_prefill(restored.prompt_tokens - restored.cached_tokens, prefill.seconds())
        return Generation(output.sequences, restored, stored, output)

    def _worth(self, tokens: int) -> bool:
        if tokens < self._min_load_tokens:
            return False
        return not self._faster_only or self.crossover.pays(tokens)

    def _note_prefill(self, tokens: int, seconds: float | None) -> None:
        if seconds is not None and seconds > 0:
            self.crossover.note_prefill(tokens, seconds)
            self._client.note_prefill(self.spec, tokens, seconds)

    def _require_same_adapters(self) -> None:
        now = active_adapters(self._model)
        if now != self._adapters:
            raise ValueError(
                f"the model's active adapters are {now} and were {self._adapters} when this "
                "PrefixCache was made: make one for each"
            )


@dataclass(frozen=True)
class _CacheShape:
    """What a model's cache holds per token: `layers` times `heads` rows of keys and of values."""

    layers: int
    heads: int
    key_row: int  # elements
    value_row: int
    dtype: torch.dtype
    latent: bool  # MLA: keys are the compressed latent, values the rotated key, both of one head

    @property
    def attention(self) -> str:
        return "mla" if self.latent else "gqa"

    @property
    def spec_heads(self) -> int:
        return 0 if self.latent else self.heads

    @property
    def planes(self) -> int:
        return 1 if self.latent else 2

    @property
    def row(self) -> int:
        return self.key_row + self.value_row if self.latent else self.key_row

    @classmethod
    def of(cls, model: PreTrainedModel) -> _CacheShape:
        """From the cache that the model fills computing one token. Raises UnsupportedModel."""
        config = model.config
        if getattr(config, "is_encoder_decoder", False):
            raise UnsupportedModel(
                f"{type(model).__name__} is an encoder-decoder: decoders are stored"
            )
        rope = rope_types(config)
        if rope & LENGTH_DEPENDENT_ROPE:
            raise UnsupportedModel(
                f"rope_type {sorted(rope & LENGTH_DEPENDENT_ROPE)[0]!r}: its keys depend on the "
                "prompt's length, so a prefix's K/V is not the same in a longer prompt"
            )
        cache = DynamicCache(config=config)
        _require_full_attention(cache, config)
        with torch.inference_mode():
            token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
            model(input_ids=token, past_key_values=cache, use_cache=True)
        _require_full_attention(cache, config)
        shapes = {_layer_shape(index, layer) for index, layer in enumerate(cache.layers)}
        if len(shapes) != 1:
            raise UnsupportedModel(
                f"layers cache different shapes (heads, keys, values, dtype): {shapes}"
            )
        heads, key_row, value_row, dtype = shapes.pop()
        if dtype not in DTYPE_NAMES:
            raise UnsupportedModel(
                f"the cache is {dtype}: {', '.join(map(str, DTYPE_NAMES))} are stored"
            )
        latent = key_row != value_row
        rank = getattr(config.get_text_config(decoder=True), "kv_lora_rank", None)
        if latent and (heads != 1 or rank != key_row):
            raise UnsupportedModel(
                f"keys have {key_row} elements a head and values {value_row}, in {heads} heads: "
                "only equal ones, or a compressed latent (MLA), are stored"
            )
        return cls(len(cache.layers), heads, key_row, value_row, dtype, latent)


def _layer_shape(index: int, layer: Any) -> tuple[int, int, int, torch.dtype]:
    keys, values = layer.keys, layer.values
    if keys is None or values is None or keys.ndim != 4 or keys.shape[1] != values.shape[1]:
        raise UnsupportedModel(f"layer {index} ({type(layer).__name__}) keeps no K/V of its own")
    return keys.shape[1], keys.shape[-1], values.shape[-1], keys.dtype


def _require_full_attention(cache: DynamicCache, config: Any) -> None:
    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None)
    for index, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer:
            kind = kinds[index] if kinds else type(layer).__name__
            raise UnsupportedModel(
                f"layer {index} is {kind} ({type(layer).__name__}): only layers with full "
                "attention are stored"
            )


def _place(device: torch.device) -> torch.device:
    """Where blocks of K/V on `device` are taken from and put: there, if the library reaches it."""
    reached = device.type == "cuda" and (device.index or 0) < gpu_count()
    return device if reached else torch.device("cpu")


class _Memory:
    """K/V of one prompt, all on one device, as planes of a `PagedPlan` with a block per page."""

    def __init__(
        self, shape: _CacheShape, planes: list[torch.Tensor], whole: torch.Tensor | None
    ) -> None:
        # Each plane is (heads, tokens, row), rows contiguous, in the order [layer][K, V] (MLA:
        # [layer]).
        self._shape = shape
        self._planes = planes
        self._whole = whole

    @classmethod
    def empty(cls, shape: _CacheShape, tokens: int, device: torch.device) -> _Memory:
        """Uninitialised memory for `tokens` tokens: one allocation."""
        sizes = (shape.layers, shape.planes, shape.heads, tokens, shape.row)
        whole = torch.empty(sizes, dtype=shape.dtype, device=device)
        return cls(shape, list(whole.flatten(0, 1)), whole)

    @classmethod
    def of(cls, cache: Cache, shape: _CacheShape, tokens: int) -> _Memory:
        """The first `tokens` tokens of a cache: its tensors, or a copy where those do not do."""
        pairs = [_layer_tensors(index, layer, shape) for index, layer in enumerate(cache.layers)]
        if len(pairs) != shape.layers:
            raise ValueError(f"the cache has {len(pairs)} layers: this model has {shape.layers}")
        devices = {tensor.device for pair in pairs for tensor in pair}
        device = next(iter(devices)) if len(devices) == 1 else torch.device("cpu")
        place = _place(device)
        if not shape.latent and devices == {place}:
            lent = [t if t.stride(-1) == 1 else t.contiguous() for pair in pairs for t in pair]
            return cls(shape, lent, None)
        memory = cls.empty(shape, tokens, place)
        assert memory._whole is not None
        for layer, (keys, values) in zip(memory._whole, pairs):
            if shape.latent:
                layer[0, :, :, : shape.key_row].copy_(keys[:, :tokens])
                layer[0, :, :, shape.key_row :].copy_(values[:, :tokens])
            else:
                layer[0].copy_(keys[:, :tokens])
                layer[1].copy_(values[:, :tokens])
        return memory

    def plan(self, client: Client, spec: CacheSpec) -> PagedPlan:
        """One page per block: the pages of block i are [i]."""
        planes = []
        for tensor in self._planes:
            head, token, _ = (stride * tensor.element_size() for stride in tensor.stride())
            planes.append(Plane(tensor.data_ptr(), token * spec.block_tokens, head, token))
        place = self._planes[0].device
        device = HOST if place.type == "cpu" else place.index or 0
        owners = self._planes
        return PagedPlan(client, spec, planes, spec.block_tokens, owners=owners, device=device)

    def fill(self, cache: DynamicCache, tokens: int, device: torch.device) -> None:
        """Gives the first `tokens` tokens to an empty cache; a copy only to another device."""
        if tokens == 0:
            return
        assert self._whole is not None
        held = self._whole[:, :, None, :, :tokens].to(device)
        layers: list[Any] = list(cache.layers)
        for layer, planes in zip(layers, held):
            if self._shape.latent:
                keys, values = planes[0].split([self._shape.key_row, self._shape.value_row], dim=-1)
            else:
                keys, values = planes[0], planes[1]
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values


def _layer_tensors(index: int, layer: Any, shape: _CacheShape) -> tuple[torch.Tensor, torch.Tensor]:
    if not isinstance(layer, DynamicLayer) or layer.keys is None or layer.values is None:
        raise ValueError(
            f"layer {index} of the cache is {type(layer).__name__}: a DynamicCache is taken"
        )
    keys, values = layer.keys, layer.values
    if keys.shape[0] != 1:
        raise ValueError(
            f"the cache has batch size {keys.shape[0]}: one sequence at a time is stored"
        )
    wanted = (shape.heads, shape.key_row, shape.value_row, shape.dtype)
    if _layer_shape(index, layer) != wanted:
        raise ValueError(
            f"layer {index} holds {_layer_shape(index, layer)}: this model fills {wanted}"
        )
    return keys[0], values[0]


def _one_prompt(input_ids: TokensLike) -> npt.NDArray[np.uint32]:
    array = (
        input_ids.cpu().numpy() if isinstance(input_ids, torch.Tensor) else np.asarray(input_ids)
    )
    if array.ndim == 2:
        if array.shape[0] != 1:
            raise ValueError(f"a batch of {array.shape[0]} prompts: one at a time is taken")
        array = array[0]
    return as_tokens(array)


def _require_plain_generation(options: dict[str, Any]) -> None:
    for name in ("num_beams", "num_return_sequences"):
        if options.get(name, 1) not in (None, 1):
            raise ValueError(f"{name} = {options[name]}: one sequence at a time is stored")
    for name in ("past_key_values", "cache_implementation", "inputs_embeds"):
        if options.get(name) is not None:
            raise ValueError(
                f"{name} is set: the prefix is restored into a DynamicCache from token ids"
            )
    if options.get("use_cache") is False:
        raise ValueError("use_cache = False: without a cache there is nothing to restore into")
