"""The detour of K/V that lies on a device, run in host memory: blocks have the canonical layout."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from reprise import CacheSpec  # noqa: E402
from reprise.engines.vllm.groups import Group  # noqa: E402
from reprise.engines.vllm.spec_from_engine import Part, Planes  # noqa: E402
from reprise.engines.vllm.staging import Stager  # noqa: E402
from test_from_the_engine import BLOCKS, DIM, HEADS, TOKENS, read, views  # noqa: E402
from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec  # noqa: E402
from vllm.v1.kv_cache_layout import KVCacheLayout  # noqa: E402

FULL = FullAttentionSpec(block_size=TOKENS, num_kv_heads=HEADS, head_size=DIM, dtype=torch.float32)
MLA = MLAAttentionSpec(block_size=TOKENS, num_kv_heads=1, head_size=96, dtype=torch.float32)
KINDS = [
    ("FLASH_ATTN", FULL, KVCacheLayout.LBNHC, None),
    ("FLASH_ATTN", FULL, KVCacheLayout.LBHNC, None),
    ("FLASH_ATTN", FULL, KVCacheLayout.LBNHC, 16),
    ("CPU_ATTN", FULL, KVCacheLayout.LBHNC, None),
    ("TRITON_MLA", MLA, KVCacheLayout.LBHNC, None),
]


def stager_of(tensors, backend: str, spec) -> Stager:
    found = read(tensors[0], backend, spec)
    cache_spec = CacheSpec(
        "m",
        attention=found.attention,
        dtype=found.element,
        layers=len(tensors),
        kv_heads=found.kv_heads if found.attention == "gqa" else 0,
        head_dim=found.head_dim,
        block_tokens=TOKENS,
        engine_layout=f"vllm {found.name}",
    )
    group = Group(0, ("l",), TOKENS, 0)
    part = Part(group, ("l",), cache_spec, found.page_tokens, found.pages_per_block)
    return Stager(part, Planes((), tuple(tensors)))


def pages(stager: Stager, blocks: list[int]) -> list[int]:
    per_block = stager.part.pages_per_block
    return [block * per_block + i for block in blocks for i in range(per_block)]


@pytest.mark.parametrize("backend, spec, kind, kernel", KINDS)
def test_blocks_that_were_gathered_come_back_into_other_pages(backend, spec, kind, kernel):
    tensors = views(spec, kind, kernel=kernel)
    for number, tensor in enumerate(tensors):
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)))
    stager = stager_of(tensors, backend, spec)
    host = stager.buffers(2)
    stager.gather(pages(stager, [4, 1]), host, None)
    kept = [tensor.clone() for tensor in tensors]
    stager.scatter(pages(stager, [0, 5]), host)
    ratio = tensors[0].shape[0] // BLOCKS
    for tensor, old in zip(tensors, kept):
        moved, before = (t.reshape(BLOCKS, ratio, *t.shape[1:]) for t in (tensor, old))
        assert torch.equal(moved[0], before[4]) and torch.equal(moved[5], before[1])
        assert torch.equal(moved[1:5], before[1:5])


def test_a_block_is_layer_then_k_and_v_then_head_then_token():
    tensors = views(FULL, KVCacheLayout.LBNHC)
    for number, tensor in enumerate(tensors):
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)))
    stager = stager_of(tensors, "FLASH_ATTN", FULL)
    host = stager.buffers(1)
    stager.gather(pages(stager, [3]), host, None)
    block = host.view(torch.float32).view(len(tensors), 2, HEADS, TOKENS, DIM)
    for number, tensor in enumerate(tensors):
        k, v = tensor.split(DIM, dim=-1)
        assert torch.equal(block[number, 0], k[3]) and torch.equal(block[number, 1], v[3])
