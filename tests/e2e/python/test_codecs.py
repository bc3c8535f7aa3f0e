"""Under a codec blocks are smaller where they are stored, and come back within its bounds."""

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reprise
from conftest import make_spec

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from reprise.engines.transformers import PrefixCache  # noqa: E402
from test_transformers import llama, prefill  # noqa: E402

Prompt = Callable[[int], np.ndarray]
BLOCKS = 4
SLACK = 1 + 2.0**-10  # of f32 arithmetic, and of int4's steps, which are rounded to f16


def bound(codec: str, numbers: np.ndarray) -> np.ndarray:
    """The largest error of each number; axes (block, layer, K|V, head, token, dim)."""
    each_head = dict(axis=(-2, -1), keepdims=True)
    largest = np.abs(numbers).max(**each_head)
    if codec == "int8":
        return largest / 127 / 2
    if codec == "fp8_e4m3":
        return np.maximum(np.abs(numbers) / 17, np.exp2(np.ceil(np.log2(largest / 448))) / 1024)
    # Not more than if all of a head were one group.
    return (numbers.max(**each_head) - numbers.min(**each_head)) / 15 / 2


@pytest.mark.parametrize("codec", ["fp8_e4m3", "int8", "int4", "int4_g64"])
def test_blocks_are_smaller_and_come_back_within_the_bound(
    client: reprise.Client, prompt: Prompt, codec: str
) -> None:
    spec = make_spec(dtype="f32", layers=2, kv_heads=2, head_dim=64, codec=codec)
    keys = reprise.block_keys(prompt(BLOCKS * spec.block_tokens), spec.block_tokens)
    numbers = np.random.default_rng(1).normal(0, 3, (BLOCKS, 2, 2, 2, 16, 64)).astype(np.float32)
    stored = client.store(spec, keys, numbers.reshape(BLOCKS, -1))
    assert (stored.stored, stored.error) == (BLOCKS, None)
    assert stored.bytes == BLOCKS * spec.stored_bytes
    assert spec.stored_bytes < spec.block_bytes * 0.3
    back = np.zeros_like(numbers)
    with client.acquire(spec, keys) as run:
        result = run.fetch(back.reshape(BLOCKS, -1))
        assert (result.blocks, result.bytes) == (BLOCKS, BLOCKS * spec.stored_bytes)
    errors = np.abs(back - numbers)
    assert (errors <= bound(codec, numbers) * SLACK).all()
    assert errors.max() > 0, "a codec that loses nothing is none"


def test_without_a_codec_a_block_is_stored_as_it_is() -> None:
    assert make_spec().stored_bytes == make_spec().block_bytes
    assert make_spec(codec="none").stored_bytes == make_spec().block_bytes


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"codec": "zip"}, "fp8_e4m3"), ({"codec": "int8", "dtype": "f8_e4m3"}, "f8_e4m3")],
)
def test_a_codec_that_cannot_be_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(reprise.RepriseError, match=named) as refused:
        make_spec(**fields).fingerprint
    assert refused.value.code_name == "INVALID_ARGUMENT"


def test_a_transformers_cache_is_restored_within_the_bound(client: reprise.Client) -> None:
    model = llama()
    ids = torch.randint(0, 300, (1, 140), generator=torch.Generator().manual_seed(5))
    prefixes = PrefixCache(client, model, scope=str(uuid.uuid4()), codec="int8")
    _, full = prefill(model, ids[:, :112])
    stored = prefixes.save(ids[:, :112], full)
    assert (stored.stored, stored.error) == (7, None)
    restored = prefixes.restore(ids)
    assert (restored.cached_tokens, restored.bytes) == (112, 7 * prefixes.spec.stored_bytes)
    for mine, theirs in zip(restored.cache.layers, full.layers, strict=True):
        for back, went in ((mine.keys, theirs.keys), (mine.values, theirs.values)):
            assert not torch.equal(back, went)
            assert (back - went).abs().max() <= went.abs().max() / 127 / 2 * SLACK
    logits, _ = prefill(model, ids, restored.cache)
    expected, _ = prefill(model, ids, full)
    assert (logits - expected).norm() < 0.2 * expected.norm()
