"""What a codec costs attention: its output over restored K/V beside a reference of the same bits.

The reference is KIVI's scheme (Liu et al., "KIVI: a tuning-free asymmetric 2bit quantization for KV
cache", ICML 2024) at four bits, written down in torch: keys per channel over groups of tokens,
values per token over groups of channels, asymmetric, step and low in f16. Keys have a few channels
that are much larger than the others, as the models that KIVI looked at have.
"""

from collections.abc import Callable

import numpy as np
import pytest
import reprise
from conftest import make_spec

torch = pytest.importorskip("torch")

Prompt = Callable[[int], np.ndarray]
BLOCKS, BLOCK_TOKENS, HEADS, DIM, QUERIES = 16, 16, 2, 128, 64
TOKENS = BLOCKS * BLOCK_TOKENS
OUTLIERS = 4  # channels of a head
GROUP = 32


def keys_and_values() -> "torch.Tensor":
    """[K|V][head][token][dim]."""
    random = torch.Generator().manual_seed(11)
    both = torch.randn((2, HEADS, TOKENS, DIM), generator=random)
    for head in range(HEADS):
        channels = torch.randperm(DIM, generator=random)[:OUTLIERS]
        both[0, head, :, channels] = 12 + 3 * both[0, head, :, channels]
    return both


def attention(both: "torch.Tensor") -> "torch.Tensor":
    """Softmax(Q K^T / sqrt(dim)) V of the same queries whatever `both` is."""
    queries = torch.randn((HEADS, QUERIES, DIM), generator=torch.Generator().manual_seed(12))
    keys, values = both.double()
    weights = torch.softmax(queries.double() @ keys.transpose(-1, -2) / DIM**0.5, dim=-1)
    return weights @ values


def error(both: "torch.Tensor") -> float:
    """Of attention over `both`, relative, in the 2-norm."""
    exact = attention(keys_and_values())
    return float((attention(both) - exact).norm() / exact.norm())


def four_bits(x: "torch.Tensor", axis: int, group: int) -> "torch.Tensor":
    """Asymmetric, in groups along `axis`."""
    along = x.movedim(axis, -1)
    groups = along.unflatten(-1, (-1, group))
    low = groups.amin(-1, keepdim=True)
    step = ((groups.amax(-1, keepdim=True) - low) / 15).half().float()
    low = low.half().float()
    codes = torch.where(step > 0, (groups - low) / step, torch.zeros_like(groups))
    return (codes.round().clamp(0, 15) * step + low).flatten(-2).movedim(-1, axis)


def kivi(both: "torch.Tensor") -> "torch.Tensor":
    """As many bits as codec int4: a group of keys ends with its block."""
    keys, values = both
    return torch.stack((four_bits(keys, -2, BLOCK_TOKENS), four_bits(values, -1, GROUP)))


def through_the_cache(
    client: reprise.Client, prompt: Prompt, both: "torch.Tensor", codec: str
) -> "torch.Tensor":
    """What is fetched of what was stored."""
    spec = make_spec(dtype="f32", layers=1, kv_heads=HEADS, head_dim=DIM, codec=codec)
    keys = reprise.block_keys(prompt(TOKENS), BLOCK_TOKENS)
    blocks = both.unflatten(2, (BLOCKS, BLOCK_TOKENS)).permute(2, 0, 1, 3, 4).contiguous()
    assert client.store(spec, keys, blocks.numpy().reshape(BLOCKS, -1)).stored == BLOCKS
    back = np.zeros(blocks.shape, np.float32)
    with client.acquire(spec, keys) as run:
        assert run.fetch(back.reshape(BLOCKS, -1)).blocks == BLOCKS
    return torch.from_numpy(back).permute(1, 2, 0, 3, 4).flatten(2, 3)


def test_int4_costs_attention_what_the_reference_of_as_many_bits_does(
    client: reprise.Client, prompt: Prompt
) -> None:
    both = keys_and_values()
    ours = error(through_the_cache(client, prompt, both, "int4"))
    reference = error(kivi(both))
    keys, values = both
    per_token = error(torch.stack((four_bits(keys, -1, GROUP), four_bits(values, -1, GROUP))))
    print(f"attention error: int4 {ours:.4f}, KIVI {reference:.4f}, keys per token {per_token:.4f}")
    assert 0 < ours <= reference * 1.01, "one percent for the rounding of steps"
    assert per_token > 2 * reference, "keys without outliers tell nothing"


def test_more_bits_cost_attention_less(client: reprise.Client, prompt: Prompt) -> None:
    both = keys_and_values()
    errors = {
        codec: error(through_the_cache(client, prompt, both, codec))
        for codec in ("none", "int8", "fp8_e4m3", "int4", "int4_g64")
    }
    print(errors)
    assert errors["none"] == 0
    assert errors["int8"] < errors["fp8_e4m3"] < errors["int4"] < errors["int4_g64"]
