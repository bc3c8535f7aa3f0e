"""Any paged layout of an engine holds the same blocks as the canonical one."""

from collections.abc import Callable

import numpy as np
import pytest
import reprise
from conftest import make_spec

torch = pytest.importorskip("torch")

LAYERS, HEADS, DIM, PAGES = 3, 2, 20, 40

Prompt = Callable[[int], np.ndarray]
Planes = list[reprise.Plane]


class Engine:
    """Paged K/V of some layout; `of(layer, which, page, token)` is the (heads, dim) row set."""

    def __init__(self, layout: str, page_tokens: int) -> None:
        rows = (page_tokens, HEADS, DIM)
        shapes = {
            "NHD": (LAYERS, 2, PAGES, page_tokens, HEADS, DIM),
            "HND": (LAYERS, 2, PAGES, HEADS, page_tokens, DIM),
            "pages first": (PAGES, LAYERS, 2, *rows),
            "K and V in one page": (LAYERS, PAGES, 2, *rows),
            "K and V in one row": (LAYERS, PAGES, page_tokens, HEADS, 2, DIM),
        }
        self.layout = layout
        self.memory = torch.zeros(shapes[layout])

    def plane_tensor(self, layer: int, which: int) -> torch.Tensor:
        """(page, token, head, dim), a view."""
        memory = self.memory
        return {
            "NHD": lambda: memory[layer, which],
            "HND": lambda: memory[layer, which].transpose(1, 2),
            "pages first": lambda: memory[:, layer, which],
            "K and V in one page": lambda: memory[layer, :, which],
            "K and V in one row": lambda: memory[layer, :, :, :, which],
        }[self.layout]()

    def planes(self) -> Planes:
        return [
            reprise.plane(self.plane_tensor(layer, which), page=0, token=1, head=2)
            for layer in range(LAYERS)
            for which in (0, 1)
        ]

    def canonical(self, pages: np.ndarray, block_tokens: int) -> np.ndarray:
        """The blocks in the canonical layout: [layer][K, V][head][token][dim], rows of 80 bytes."""
        per_plane = [
            self.plane_tensor(layer, which)[torch.from_numpy(pages).flatten()]
            .reshape(-1, block_tokens, HEADS, DIM)
            .transpose(1, 2)
            for layer in range(LAYERS)
            for which in (0, 1)
        ]
        return (
            torch.stack(per_plane, 1)
            .contiguous()
            .numpy()
            .view(np.uint8)
            .reshape(len(per_plane[0]), -1)
        )


LAYOUTS = ["NHD", "HND", "pages first", "K and V in one page", "K and V in one row"]


@pytest.mark.parametrize("page_tokens", [16, 8])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_paged_memory_is_stored_and_restored(
    client: reprise.Client, prompt: Prompt, layout: str, page_tokens: int
) -> None:
    spec = make_spec(layers=LAYERS, kv_heads=HEADS, head_dim=DIM)
    keys = reprise.block_keys(prompt(80), spec.block_tokens)
    per_block = spec.block_tokens // page_tokens
    source = Engine(layout, page_tokens)
    source.memory.copy_(
        torch.randn(source.memory.shape, generator=torch.Generator().manual_seed(7))
    )
    pages = np.random.default_rng(7).permutation(PAGES)[: 5 * per_block].reshape(5, per_block)

    plan = reprise.PagedPlan(client, spec, source.planes(), page_tokens, owners=source.memory)
    assert plan.pages_per_block == per_block
    assert client.store_paged(spec, keys, plan, pages).stored == 5

    expected = source.canonical(pages, spec.block_tokens)
    flat = np.zeros((5, spec.block_bytes), np.uint8)
    with client.acquire(spec, keys) as run:
        assert run.fetch(flat).blocks == 5
        assert np.array_equal(flat, expected)

        # Another engine, another layout, other pages.
        target = Engine(LAYOUTS[LAYOUTS.index(layout) - 1], page_tokens)
        there = np.random.default_rng(8).permutation(PAGES)[: 4 * per_block].reshape(4, per_block)
        into = reprise.PagedPlan(client, spec, target.planes(), page_tokens, owners=target.memory)
        result = run.fetch_paged(into, there, first=1, count=4)
        assert (result.blocks, result.error) == (4, None)
    assert np.array_equal(target.canonical(there, spec.block_tokens), expected[1:])
    # Nothing beside the named pages was touched.
    touched = np.unique(np.nonzero(target.plane_tensor(0, 0).abs().sum((1, 2, 3)).numpy())[0])
    assert touched.tolist() == sorted(there.flatten().tolist())


def test_latents_are_one_plane_a_layer(client: reprise.Client, prompt: Prompt) -> None:
    spec = make_spec(attention="mla", kv_heads=0, dtype="bf16", head_dim=36)
    keys = reprise.block_keys(prompt(48), spec.block_tokens)
    latents = torch.randn(3, 8, 16, 36).to(torch.bfloat16)
    plan = reprise.PagedPlan(
        client,
        spec,
        [reprise.plane(latents[i], page=0, token=1) for i in range(3)],
        16,
        owners=latents,
    )
    assert client.store_paged(spec, keys, plan, [5, 0, 3]).stored == 3
    back = torch.zeros_like(latents)
    into = reprise.PagedPlan(
        client, spec, [reprise.plane(back[i], page=0, token=1) for i in range(3)], 16, owners=back
    )
    with client.acquire(spec, keys) as run:
        assert run.fetch_paged_async(into, [1, 2, 7]).result().blocks == 3
    assert torch.equal(back[:, [1, 2, 7]], latents[:, [5, 0, 3]])
    assert back[:, [0, 3, 4, 5, 6]].abs().sum() == 0
