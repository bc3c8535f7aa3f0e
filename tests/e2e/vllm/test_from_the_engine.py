"""What the connector reads from vLLM itself: layouts, groups, keys, versions. Against vLLM's own
classes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import types

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

import reprise  # noqa: E402
from reprise.engines import digests  # noqa: E402
from reprise.engines.vllm import groups, keys, layout, settings, versions  # noqa: E402
from reprise.engines.vllm.spec_from_engine import Part, parts_of_rank  # noqa: E402
from vllm.v1.kv_cache_interface import (  # noqa: E402
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    KVCacheTensor,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
    create_kv_cache_views,
)
from vllm.v1.kv_cache_layout import KVCacheLayout  # noqa: E402

BLOCKS, TOKENS, HEADS, DIM = 6, 32, 2, 64


def views(spec, kind: KVCacheLayout, layers: int = 3, kernel: int | None = None):
    """Per-layer tensors as vLLM itself lays them out."""
    page = spec.page_size_bytes
    raw = torch.zeros(layers * BLOCKS * page, dtype=torch.int8)
    outer_layers = kind.is_layer_compact
    tensor = KVCacheTensor(
        size=raw.numel(),
        layers=[f"l.{i}" for i in range(layers)],
        layer_stride=page * BLOCKS if outer_layers else page,
        block_stride=page if outer_layers else page * layers,
    )
    return create_kv_cache_views(raw, spec, BLOCKS, kind, tensor, kernel)


def read(tensor, backend: str, spec, **changes):
    shape, strides, size = layout.describe_tensor(tensor)
    known = dict(
        backend=backend,
        dtype="f32",
        isa="",
        head_size=spec.head_size,
        head_size_v=spec.head_size_v,
        quantized=False,
        num_blocks=BLOCKS,
        block_tokens=TOKENS,
    )
    return layout.read_layout(shape, strides, size, **{**known, **changes})


def at(tensor, plane, block: int, head: int, token: int, count: int, pages: int = 1):
    """The floats that a plane's strides point to."""
    flat = torch.as_strided(tensor, (tensor.untyped_storage().nbytes() // 4,), (1,), 0)
    page, inner = block * pages + token // (TOKENS // pages), token % (TOKENS // pages)
    start = (
        tensor.storage_offset() * 4
        + plane.offset
        + page * plane.page_stride
        + head * plane.head_stride
        + inner * plane.token_stride
    )
    return flat[start // 4 : start // 4 + count]


@pytest.mark.parametrize(
    "kind", [KVCacheLayout.LBHNC, KVCacheLayout.LBNHC, KVCacheLayout.BLHNC, KVCacheLayout.BLNHC]
)
def test_interleaved_backends_are_found_by_their_strides_in_every_layout(kind):
    spec = FullAttentionSpec(
        block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32
    )
    for tensor in views(spec, kind):
        found = read(tensor, "FLASH_ATTN", spec)
        assert (found.attention, found.kv_heads, found.head_dim) == ("gqa", HEADS, DIM)
        k, v = tensor.split(DIM, dim=-1)  # as flash_attn.py reads it
        k[4, 1, 7] = torch.arange(DIM) + 1.0
        v[4, 1, 7] = torch.arange(DIM) + 1000.0
        assert torch.equal(at(tensor, found.planes[0], 4, 1, 7, DIM), torch.arange(DIM) + 1.0)
        assert torch.equal(at(tensor, found.planes[1], 4, 1, 7, DIM), torch.arange(DIM) + 1000.0)


def test_the_cpu_backend_keeps_k_and_v_in_halves_of_a_heads_page():
    spec = FullAttentionSpec(
        block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32
    )
    for tensor in views(spec, KVCacheLayout.LBHNC):
        found = read(tensor, "CPU_ATTN", spec, isa="vec")
        assert found.name == "CPU_ATTN isa=vec split"
        halves = tensor.view(BLOCKS, HEADS, TOKENS * 2, -1)  # as cpu_attn.py reads it
        key_cache, value_cache = halves.chunk(2, dim=2)
        key_cache[5, 1, 3] = 7.0
        value_cache[5, 1, 3] = 9.0
        assert torch.all(at(tensor, found.planes[0], 5, 1, 3, DIM) == 7.0)
        assert torch.all(at(tensor, found.planes[1], 5, 1, 3, DIM) == 9.0)


def test_kernel_blocks_smaller_than_the_managers_are_pages():
    spec = FullAttentionSpec(
        block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32
    )
    tensor = views(spec, KVCacheLayout.LBNHC, kernel=16)[1]
    found = read(tensor, "FLASH_ATTN", spec)
    assert (found.page_tokens, found.pages_per_block) == (16, 2)
    tensor.split(DIM, dim=-1)[0][2 * 3 + 1, 0, 4] = 5.0
    assert torch.all(at(tensor, found.planes[0], 3, 0, 20, DIM, pages=2) == 5.0)


def test_mla_and_unknown_backends_are_carried_as_opaque_pages_and_named_in_the_spec():
    mla = MLAAttentionSpec(block_size=TOKENS, num_kv_heads=1, head_size=96, dtype=torch.float32)
    found = read(views(mla, KVCacheLayout.LBHNC)[0], "TRITON_MLA", mla)
    assert (found.attention, found.element, found.head_dim) == ("mla", "i8", 96 * 4)
    spec = FullAttentionSpec(
        block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32
    )
    one, other = (
        read(views(spec, KVCacheLayout[kind])[0], "SOMETHING_NEW", spec)
        for kind in ("LBHNC", "LBNHC")
    )
    assert one.attention == "mla" and one.head_dim * TOKENS == spec.page_size_bytes
    assert one.name != other.name, "two layouts of one backend would exchange bytes"


def test_quantized_and_unequal_heads_are_not_split_into_k_and_v():
    spec = FullAttentionSpec(
        block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32
    )
    tensor = views(spec, KVCacheLayout.LBHNC)[0]
    assert read(tensor, "FLASH_ATTN", spec, quantized=True).attention == "mla"
    assert read(tensor, "FLASH_ATTN", spec, head_size_v=32).attention == "mla"


def test_pages_that_fragments_cannot_describe_are_refused():
    spec = FullAttentionSpec(
        block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32
    )
    with pytest.raises(layout.UnsupportedLayout, match="not contiguous"):
        # [block, head, layer, token, content]: another layer lies between the heads of a page.
        apart = torch.zeros(BLOCKS, HEADS, 3, TOKENS, 2 * DIM)[:, :, 1]
        read(apart, "SOMETHING_NEW", spec)
    with pytest.raises(layout.UnsupportedLayout, match="dimensions"):
        read(torch.zeros(2, BLOCKS, TOKENS, HEADS, DIM), "FLASH_ATTN", spec)


# ---- Groups


def config(*specs, names=("model.layers.0.attn", "model.layers.1.attn")):
    return KVCacheConfig(
        num_blocks=8,
        kv_cache_tensors=[],
        kv_cache_groups=[KVCacheGroupSpec([name], spec) for name, spec in zip(names, specs)],
    )


FULL = FullAttentionSpec(block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32)
WINDOW = SlidingWindowSpec(
    block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32, sliding_window=96
)


def test_full_attention_windows_and_mla_are_planned():
    planned = groups.plan_groups(config(FULL, WINDOW))
    assert [(g.block_tokens, g.window_tokens) for g in planned] == [(TOKENS, 0), (TOKENS, 96)]
    mla = MLAAttentionSpec(block_size=64, num_kv_heads=1, head_size=96, dtype=torch.float32)
    assert groups.plan_groups(config(mla))[0].block_tokens == 64


def test_recurrent_state_is_refused_with_the_layer_named():
    mamba = MambaSpec(block_size=TOKENS, shapes=((4, 4),), dtypes=(torch.float32,))
    with pytest.raises(
        groups.UnsupportedModel, match=r"model\.layers\.1\.mixer.*one vector for the whole prefix"
    ):
        groups.plan_groups(
            config(FULL, mamba, names=("model.layers.0.attn", "model.layers.1.mixer"))
        )


def test_blocks_that_lie_on_several_ranks_are_refused_with_the_flag():
    @dataclasses.dataclass
    class Parallel:
        decode_context_parallel_size: int = 2

    with pytest.raises(groups.UnsupportedModel, match="--decode-context-parallel-size 2"):
        groups.check_parallelism(Parallel())


def test_layers_are_ordered_as_the_model_runs_them():
    names = ["model.layers.10.attn", "model.layers.2.attn", "model.layers.0.attn"]
    assert sorted(names, key=groups.layer_index) == [names[2], names[1], names[0]]


# ---- Ranks


def parts_of(rank: int, layers: list[str], tensors) -> list[Part]:
    """What pipeline rank `rank` of 2 keeps when it has these layers."""
    names = ["model.layers.0.attn", "model.layers.1.attn", "model.layers.2.attn"]
    layer = types.SimpleNamespace(
        get_attn_backend=lambda: types.SimpleNamespace(get_name=lambda: "FLASH_ATTN"),
        get_kv_cache_spec=lambda unused: FULL,
    )
    engine = types.SimpleNamespace(
        model_config=types.SimpleNamespace(
            model="m",
            revision="r",
            dtype=torch.float32,
            hf_config=types.SimpleNamespace(),
            hf_text_config=types.SimpleNamespace(rope_theta=10000.0),
        ),
        load_config=types.SimpleNamespace(load_format="auto"),
        cache_config=types.SimpleNamespace(
            prefix_caching_hash_algo="sha256", cache_dtype="auto"
        ),
        compilation_config=types.SimpleNamespace(
            static_forward_context=dict.fromkeys(names, layer)
        ),
    )
    found = parts_of_rank(
        engine,
        (groups.Group(0, tuple(names), TOKENS, 0),),
        dict(zip(layers, tensors)),
        BLOCKS,
        types.SimpleNamespace(kv_tp_replicas=1),
        settings.Settings(router=("r",)),
        (1, 0, 2, rank),
        TOKENS,
    )
    return [part for part, _ in found]


def test_each_pipeline_rank_keeps_its_own_layers_under_a_spec_of_its_own():
    tensors = views(FULL, KVCacheLayout.LBHNC, layers=3)
    (first,) = parts_of(0, ["model.layers.0.attn", "model.layers.1.attn"], tensors)
    (second,) = parts_of(1, ["model.layers.2.attn"], tensors)
    assert first.layer_names == ("model.layers.0.attn", "model.layers.1.attn")
    assert second.layer_names == ("model.layers.2.attn",)
    assert (first.spec.layers, second.spec.layers) == (2, 1)
    (balanced,) = parts_of(1, ["model.layers.1.attn", "model.layers.2.attn"], tensors)
    assert balanced.spec.layers == first.spec.layers
    assert balanced.spec.fingerprint != first.spec.fingerprint, "ranks would exchange layers"


# ---- Keys


def test_keys_are_the_engines_hashes_as_they_are():
    hashes = [hashlib.sha256(bytes([i])).digest() for i in range(5)]
    assert keys.keys_of(hashes, 1, 3) == b"".join(hashes[:3])
    assert keys.keys_of(hashes, 2, 2) == hashes[1] + hashes[3], (
        "a block of two hashes has the later one's"
    )
    assert keys.as_array(keys.keys_of([b"x" * 16], 1, 1)).shape == (1, 32)


def test_hashes_with_a_random_seed_are_refused_with_the_flag_to_set(monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(ValueError, match="--prefix-caching-hash-algo sha256.*PYTHONHASHSEED"):
        keys.key_scheme("xxhash", 32)
    assert keys.key_scheme("xxhash", 32, "7") != keys.key_scheme("sha256", 32, "7")
    assert keys.key_scheme("sha256", 32) != keys.key_scheme("sha256", 32, "7")


def test_the_default_seed_is_vllms():
    from vllm.v1.core.kv_cache_utils import DEFAULT_NONE_HASH_SEED

    assert keys.DEFAULT_SEED == DEFAULT_NONE_HASH_SEED


VECTORS = pathlib.Path(__file__).parents[2] / "unit" / "client" / "key_vectors.json"


@pytest.mark.parametrize("row", json.loads(VECTORS.read_text())["vllm"], ids=lambda r: r["name"])
def test_vllm_itself_computes_our_keys_of_sha256_cbor(monkeypatch, row):
    """The vectors that the C++ and Python tests share, and the library, beside the engine."""
    import reprise
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core import kv_cache_utils

    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if row["seed"] != keys.DEFAULT_SEED:
        monkeypatch.setenv("PYTHONHASHSEED", row["seed"])
    function = get_hash_fn_by_name("sha256_cbor")
    kv_cache_utils.init_none_hash(function)
    assert kv_cache_utils.NONE_HASH.hex() == row["root"]
    tokens, block_tokens, salt = row["tokens"], row["block_tokens"], row["cache_salt"]
    if tokens:  # vLLM takes no empty prompt
        request = make_request(tokens, function, block_tokens=block_tokens, cache_salt=salt)
        assert [block_hash.hex() for block_hash in request.block_hashes] == row["keys"]
    ours = reprise.vllm_block_keys(tokens, block_tokens, row["seed"], salt)
    assert [bytes(key).hex() for key in ours] == row["keys"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha256_cbor"])
def test_salt_adapter_and_image_are_inside_the_engines_hashes(algorithm):
    """What we take as keys tells prompts apart that differ in nothing else."""
    from vllm.lora.request import LoRARequest
    from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core import kv_cache_utils

    function = get_hash_fn_by_name(algorithm)
    kv_cache_utils.init_none_hash(function)

    def image(identifier: str, offset: int):
        return [MultiModalFeatureSpec(None, "image", identifier, PlaceholderRange(offset, 20))]

    kinds = [
        {},
        {"cache_salt": "one"},
        {"cache_salt": "two"},
        {"lora_request": LoRARequest("one", 1, "/a")},
        {"lora_request": LoRARequest("two", 1, "/a")},
        {"lora_request": LoRARequest("one", 1, "/b")},
        {"mm_features": image("one", 4)},
        {"mm_features": image("two", 4)},
        {"mm_features": image("one", 5)},
    ]
    made = [make_request([7] * (2 * TOKENS), function, **kind).block_hashes for kind in kinds]
    for block in range(2):
        packed = {keys.keys_of(hashes, 1, block + 1)[-keys.KEY_BYTES :] for hashes in made}
        assert len(packed) == len(kinds), f"block {block} of two of these has one key"


def make_request(tokens, function, name="r1", block_tokens=TOKENS, **attributes):
    from vllm import SamplingParams
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher
    from vllm.v1.request import Request

    params = SamplingParams(max_tokens=8)
    hasher = get_request_block_hasher(block_tokens, function)
    return Request(name, tokens, params, None, block_hasher=hasher, **attributes)


# ---- Digests, settings, versions


def test_weights_of_the_same_name_have_another_digest_when_one_byte_differs(tmp_path):
    for name, byte in (("one", 0), ("two", 1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(bytes(1000) + bytes([byte]))
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "generation_config.json").write_text(name)
    assert digests.folder_digest(tmp_path / "one") != digests.folder_digest(tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").write_bytes(bytes(1001))
    assert digests.folder_digest(tmp_path / "one") == digests.folder_digest(tmp_path / "two")


def test_a_misspelt_setting_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown setting 'ruoter'"):
        settings.Settings.from_extra_config({"ruoter": "x"})
    with pytest.raises(ValueError, match="set either router"):
        settings.Settings.from_extra_config({})
    with pytest.raises(ValueError, match="load_timeout_ms is 'soon'"):
        settings.Settings.from_extra_config({"router": "x", "load_timeout_ms": "soon"})


def test_a_server_is_who_its_certificate_says_or_speaks_plaintext() -> None:
    files = {"tls_ca": "ca.pem", "tls_cert": "me.pem", "tls_key": "me.key"}
    made = settings.Settings.from_extra_config(
        {"router": "r:1", **files, "tls_server_id": "spiffe://x/reprise"}
    )
    assert made.client_arguments("n")["tls"] == reprise.Tls(
        "ca.pem", "me.pem", "me.key", ("spiffe://x/reprise",)
    )
    plain = settings.Settings.from_extra_config({"router": "r:1"})
    assert plain.client_arguments("n")["tls"] is None
    with pytest.raises(ValueError, match="tls_key is missing"):
        settings.Settings.from_extra_config({"router": "r:1", "tls_ca": "a", "tls_cert": "b"})


def test_this_vllm_is_known_and_an_unknown_interface_is_one_clear_sentence(monkeypatch):
    versions.check()
    needed = {**versions.NEEDED, "vllm.v1.request": ("Request.a_method_of_the_future",)}
    monkeypatch.setattr(versions, "NEEDED", needed)
    with pytest.raises(
        versions.UnsupportedVllm,
        match=r"run with vLLM 0\.32 .* vLLM 9\.9\.9 .*a_method_of_the_future",
    ):
        versions.check("9.9.9")


def test_another_version_with_the_same_interface_is_a_warning(caplog):
    import logging

    versions.logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING):
            versions.check("0.33.1")
    finally:
        versions.logger.removeHandler(caplog.handler)
    assert "this is 0.33.1" in caplog.text
