"""A restored prefix is the engine's own, bit for bit; what cannot be is refused by name."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import reprise
from demo.cluster import Cluster

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from reprise.engines.transformers import PrefixCache, UnsupportedModel, model_digest  # noqa: E402
from transformers import DynamicCache  # noqa: E402

SMALL = dict(
    vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
)  # fmt: skip


def llama(seed: int = 0, dtype: Any = torch.float32, **changes: Any) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(**{**SMALL, "initializer_range": 0.2, **changes})
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def mixtral() -> Any:
    torch.manual_seed(1)
    config = transformers.MixtralConfig(**SMALL, num_local_experts=4, initializer_range=0.2)
    return transformers.MixtralForCausalLM(config).eval()


def qwen_moe() -> Any:
    torch.manual_seed(2)
    config = transformers.Qwen3MoeConfig(
        **SMALL, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        initializer_range=0.2,
    )  # fmt: skip
    return transformers.Qwen3MoeForCausalLM(config).eval()


def deepseek() -> Any:
    torch.manual_seed(3)
    config = transformers.DeepseekV3Config(
        **{**SMALL, "num_key_value_heads": 4}, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, moe_intermediate_size=32, first_k_dense_replace=1, kv_lora_rank=32,
        q_lora_rank=None, qk_nope_head_dim=16, qk_rope_head_dim=12, v_head_dim=16, head_dim=12,
        initializer_range=0.2,
    )  # fmt: skip
    return transformers.DeepseekV3ForCausalLM(config).eval()


def gpt2() -> Any:
    torch.manual_seed(4)
    config = transformers.GPT2Config(
        vocab_size=300, n_embd=64, n_layer=2, n_head=4, n_positions=512, initializer_range=0.2
    )
    return transformers.GPT2LMHeadModel(config).eval()


MODELS: dict[str, Callable[[], Any]] = {
    "llama": llama,
    "llama bf16": lambda: llama(dtype=torch.bfloat16),
    "llama of one head (MQA)": lambda: llama(num_key_value_heads=1),
    "mixtral (MoE)": mixtral,
    "qwen3 (MoE)": qwen_moe,
    "deepseek v3 (MLA, MoE)": deepseek,
    "gpt2 (MHA, no RoPE)": gpt2,
}


@pytest.fixture(scope="module")
def ids() -> Any:
    return torch.randint(0, 300, (1, 140), generator=torch.Generator().manual_seed(5))


def prefixes_of(client: reprise.Client, model: Any, **options: Any) -> PrefixCache:
    return PrefixCache(client, model, scope=str(uuid.uuid4()), **options)


@torch.inference_mode()
def prefill(model: Any, ids: Any, cache: DynamicCache | None = None) -> tuple[Any, DynamicCache]:
    cache = DynamicCache(config=model.config) if cache is None else cache
    done = cache.get_seq_length()
    return model(input_ids=ids[:, done:], past_key_values=cache, use_cache=True).logits, cache


@pytest.mark.parametrize("name", MODELS)
def test_a_restored_prefix_computes_the_same_logits_bit_for_bit(
    client: reprise.Client, ids: Any, name: str
) -> None:
    model = MODELS[name]()
    prefixes = prefixes_of(client, model)
    _, full = prefill(model, ids[:, :112])
    stored = prefixes.save(ids[:, :112], full, session="s")
    assert (stored.stored, stored.error) == (7, None)

    restored = prefixes.restore(ids, session="s")
    assert (restored.cached_tokens, restored.blocks, restored.prompt_tokens) == (112, 7, 140)
    assert restored.bytes == 7 * prefixes.spec.block_bytes
    for mine, theirs in zip(restored.cache.layers, full.layers, strict=True):
        assert torch.equal(mine.keys, theirs.keys) and torch.equal(mine.values, theirs.values)

    expected, _ = prefill(model, ids, full)  # the engine's own cache, in the same steps
    logits, grown = prefill(model, ids, restored.cache)
    assert torch.equal(logits, expected)
    assert grown.get_seq_length() == 140

    cold, _ = prefill(model, ids)
    assert torch.equal(cold[:, -1].argmax(-1), logits[:, -1].argmax(-1)) or name == "llama bf16"


def test_fp32_logits_equal_those_of_one_prefill(client: reprise.Client, ids: Any) -> None:
    model = llama(
        hidden_size=256, intermediate_size=512, num_attention_heads=8, num_key_value_heads=4
    )
    prefixes = prefixes_of(client, model)
    cold, cache = prefill(model, ids)
    prefixes.save(ids[:, :112], cache)
    logits, _ = prefill(model, ids, prefixes.restore(ids).cache)
    largest = (logits[:, -1] - cold[:, -1]).abs().max().item()
    assert largest <= 1e-5 * cold.abs().max().item()


def test_usage_is_exact_and_one_token_is_always_computed(client: reprise.Client, ids: Any) -> None:
    model = llama()
    prefixes = prefixes_of(client, model)
    _, cache = prefill(model, ids)
    prefixes.save(ids, cache)
    for prompt, cached in (
        (1, 0),
        (16, 0),
        (17, 16),
        (32, 16),
        (33, 32),
        (128, 112),
        (129, 128),
        (140, 128),
    ):
        restored = prefixes.restore(ids[0, :prompt])
        assert restored.usage == {
            "prompt_tokens": prompt,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        assert restored.cache.get_seq_length() == cached
    assert prefixes.restore(ids[:, :0]).cached_tokens == 0


def test_a_prefix_that_is_not_worth_a_load_is_computed(client: reprise.Client, ids: Any) -> None:
    model = llama()
    prefixes = prefixes_of(client, model, min_load_tokens=64)
    _, cache = prefill(model, ids)
    prefixes.save(ids[:, :96], cache)
    fetches = client.stats()["fetches"]
    assert prefixes.restore(ids[:, :60]).cached_tokens == 0, "the prompt is shorter"
    other = ids.clone()
    other[:, 50:] += 1
    assert prefixes.restore(other).cached_tokens == 0, "what is stored of it is shorter"
    assert client.stats()["fetches"] == fetches
    assert prefixes.restore(ids[:, :65]).cached_tokens == 64


def test_only_what_comes_sooner_is_restored(client: reprise.Client, ids: Any) -> None:
    model = llama()
    prefixes = prefixes_of(client, model, faster_only=True)
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    computed = prefixes.generate(ids, **options)
    assert prefixes.crossover._prefills.n == 1, "the prompt's own pass and no other"
    # On this machine, so they say, a token is computed at once and restored in a second, ...
    for tokens in (64, 128, 256):
        prefixes.crossover.note_prefill(tokens, 1e-6 * tokens)
        prefixes.crossover.note_restore(tokens, 1.0 * tokens)
    assert prefixes.restore(ids).cached_tokens == 0
    # ... and then the other way round.
    for tokens in (64, 128, 256) * 40:
        prefixes.crossover.note_prefill(tokens, 1.0 * tokens)
        prefixes.crossover.note_restore(tokens, 1e-6 * tokens)
    restored = prefixes.generate(ids, **options)
    assert restored.usage["prompt_tokens_details"]["cached_tokens"] == 128
    assert torch.equal(restored.sequences, computed.sequences)


def test_generate_restores_before_and_saves_after(client: reprise.Client, ids: Any) -> None:
    model = llama()
    prefixes = prefixes_of(client, model)
    options = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    first = prefixes.generate(ids, session="s", **options)
    assert first.usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert first.stored.stored == (140 + 23) // 16
    again = prefixes.generate(ids, session="s", **options)
    assert again.usage["prompt_tokens_details"]["cached_tokens"] == 128
    assert torch.equal(first.sequences, expected) and torch.equal(again.sequences, expected)
    # The next turn finds the answer, too.
    turn = torch.cat([first.sequences, ids[:, :20]], dim=1)
    assert prefixes.restore(turn).cached_tokens == 160


def test_a_prompt_that_is_kept_cannot_be_forgotten_until_its_claim_ends(
    own_cluster: Callable[..., Cluster], ids: Any
) -> None:
    cluster = own_cluster(shards=1, replication=1)  # a copy on its way would keep blocks too
    with reprise.Client(router=cluster.router) as client:
        model = llama()
        prefixes = prefixes_of(client, model)
        _, cache = prefill(model, ids)
        assert prefixes.save(ids, cache).stored == 8
        kept = prefixes.keep(ids, ttl=60, claim_id="tool call", priority=90)
        assert (kept.outcome, kept.blocks, kept.ttl) == ("applied", 8, 60)
        stays = prefixes.forget(ids)
        assert (stays.outcome, stays.blocks) == ("clipped", 0) and "claim" in stays.why
        assert prefixes.restore(ids).cached_tokens == 128
        pinned = prefixes.keep(ids[:, :32], ttl=60, claim_id="tool call", pin=True)
        assert (pinned.outcome, pinned.blocks) == ("applied", 2), "in place of the former one"
        assert prefixes.forget(ids).blocks == 6
        client.hint(prefixes.spec, None, reprise.Release("tool call"))
        assert (prefixes.forget(ids).outcome, prefixes.forget(ids).outcome) == (
            "applied", "missing")
        assert prefixes.keep(ids[:, :5], ttl=60).outcome == "missing", "less than one block"


def test_weights_that_differ_in_one_bit_share_nothing(client: reprise.Client, ids: Any) -> None:
    model, scope = llama(), str(uuid.uuid4())
    _, cache = prefill(model, ids)
    PrefixCache(client, model, scope=scope).save(ids, cache)
    same = PrefixCache(client, llama(), scope=scope)
    assert same.restore(ids).cached_tokens == 128
    digest = model_digest(model)
    weight = model.model.layers[1].mlp.down_proj.weight.data.view(torch.int32)
    weight[3, 5] ^= 1
    assert model_digest(model) != digest
    assert PrefixCache(client, model, scope=scope).restore(ids).cached_tokens == 0
    weight[3, 5] ^= 1
    assert model_digest(model) == digest
    other_norm = llama(rms_norm_eps=1e-5 if model.config.rms_norm_eps != 1e-5 else 1e-6)
    assert model_digest(other_norm) != digest


def test_salts_and_given_revisions_separate(client: reprise.Client, ids: Any) -> None:
    model, scope = llama(), str(uuid.uuid4())
    _, cache = prefill(model, ids)
    PrefixCache(client, model, scope=scope, salt=b"a", revision="v1").save(ids, cache)
    assert (
        PrefixCache(client, model, scope=scope, salt=b"a", revision="v1").restore(ids).blocks == 8
    )
    assert (
        PrefixCache(client, model, scope=scope, salt=b"b", revision="v1").restore(ids).blocks == 0
    )
    assert (
        PrefixCache(client, model, scope=scope, salt=b"a", revision="v2").restore(ids).blocks == 0
    )


def test_saving_does_not_wait_and_the_model_goes_on(client: reprise.Client, ids: Any) -> None:
    model = llama()
    prefixes = prefixes_of(client, model)
    _, cache = prefill(model, ids[:, :128])
    saving = prefixes.save_async(ids[:, :128], cache)
    prefill(model, ids, cache)
    assert saving.result().stored == 8
    _, expected = prefill(model, ids[:, :128])
    restored = prefixes.restore(ids).cache
    for mine, theirs in zip(restored.layers, expected.layers):
        assert torch.equal(mine.keys, theirs.keys)


def test_a_cache_that_is_down_leaves_everything_to_compute(ids: Any) -> None:
    model = llama()
    with reprise.Client(shards=["127.0.0.1:9"], timeout=0.5) as nobody:
        prefixes = PrefixCache(nobody, model)
        restored = prefixes.restore(ids)
        assert (restored.cached_tokens, restored.cache.get_seq_length()) == (
            0,
            0,
        ) and restored.error
        logits, cache = prefill(model, ids, restored.cache)
        assert prefixes.save(ids, cache).error
    assert torch.equal(logits, prefill(model, ids)[0])


def test_layers_that_are_not_full_attention_are_refused_by_name(client: reprise.Client) -> None:
    mistral = transformers.MistralForCausalLM(
        transformers.MistralConfig(**SMALL, sliding_window=32)
    )
    with pytest.raises(
        UnsupportedModel, match="layer 0 is sliding_attention|layer 0 is DynamicSlidingWindow"
    ):
        PrefixCache(client, mistral)
    gemma = transformers.Gemma3ForCausalLM(
        transformers.Gemma3TextConfig(
            **{**SMALL, "num_hidden_layers": 6}, head_dim=16, sliding_window=32
        )
    )
    with pytest.raises(UnsupportedModel, match="layer 0 is sliding_attention"):
        PrefixCache(client, gemma)
    mamba = transformers.Qwen3NextForCausalLM(
        transformers.Qwen3NextConfig(
            **{**SMALL, "num_hidden_layers": 4}, head_dim=16, linear_num_key_heads=2,
            linear_num_value_heads=2, linear_key_head_dim=16, linear_value_head_dim=16,
            num_experts=2, num_experts_per_tok=1, moe_intermediate_size=32,
            shared_expert_intermediate_size=32,
        )
    )  # fmt: skip
    with pytest.raises(UnsupportedModel, match="layer 0 is linear_attention"):
        PrefixCache(client, mamba)


def test_other_models_that_cannot_be_stored_are_refused_by_name(client: reprise.Client) -> None:
    scaled = llama(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    with pytest.raises(UnsupportedModel, match="'dynamic'.*length"):
        PrefixCache(client, scaled)
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=300, d_model=32, d_ff=64, num_layers=1, num_heads=2, d_kv=16
        )
    )
    with pytest.raises(UnsupportedModel, match="encoder-decoder"):
        PrefixCache(client, t5)
    with pytest.raises(UnsupportedModel, match="float64"):
        PrefixCache(client, llama(dtype=torch.float64))


def test_batches_and_foreign_caches_are_refused(client: reprise.Client, ids: Any) -> None:
    model = llama()
    prefixes = prefixes_of(client, model)
    two = ids.repeat(2, 1)
    with pytest.raises(ValueError, match="batch of 2"):
        prefixes.restore(two)
    _, batch = prefill(model, two)
    with pytest.raises(ValueError, match="batch size 2"):
        prefixes.save(ids, batch)
    _, foreign = prefill(llama(num_hidden_layers=2), ids)
    with pytest.raises(ValueError, match="2 layers"):
        prefixes.save(ids, foreign)
    _, narrow = prefill(llama(num_key_value_heads=1), ids)
    with pytest.raises(ValueError, match="layer 0 holds"):
        prefixes.save(ids, narrow)
    for option in ({"num_beams": 2}, {"cache_implementation": "static"}, {"use_cache": False}):
        with pytest.raises(ValueError, match=next(iter(option))):
            prefixes.generate(ids, max_new_tokens=1, **option)


def test_switching_adapters_is_noticed(client: reprise.Client, ids: Any) -> None:
    model = llama()
    prefixes = prefixes_of(client, model)
    model.peft_config, model.active_adapters = {"law": None}, ["law"]
    with pytest.raises(ValueError, match="active adapters"):
        prefixes.restore(ids)
    with_adapter = prefixes_of(client, model)
    assert with_adapter.spec.lora_digest and not prefixes.spec.lora_digest
