"""Pages come back bit for bit, whatever layout the host memory has on either side."""

from __future__ import annotations

import hashlib
import itertools

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sglang", reason="SGLang is not installed here: ./dev test installs it")

import backend  # noqa: E402
from backend import after, mha_pool, mha_token, mla_pool, mla_token, slots_of  # noqa: E402
from server import PAGE_TOKENS  # noqa: E402

from reprise.engines.sglang.host_pool import UnsupportedPool, read_pool  # noqa: E402

MHA = ["layer_first", "page_first", "page_first_direct", "page_head", "page_unified"]
MLA = ["layer_first", "page_first", "page_first_direct", "page_unified"]
FROM = [7, 2, 9, 4]  # pages of the pool that is stored from, and of the one that is loaded into
INTO = [3, 11, 0, 8]


def hashes(name: str, count: int) -> list[str]:
    return [hashlib.sha256(f"{name} {i}".encode()).hexdigest() for i in range(count)]


def check(cache, model, source, target, token, name):
    keys = hashes(name, len(FROM))
    untouched = target.kv_buffer.clone()
    with backend.storage(model, cache.router, source) as writer:
        assert writer.batch_exists(keys) == 0
        assert writer.batch_set_v1(keys[:2], slots_of(FROM[:2])) == [True] * 2
        assert writer.batch_set_v1(keys[2:], slots_of(FROM[2:]), after(keys[:2])) == [True] * 2
    with backend.storage(model, cache.router, target) as reader:
        assert reader.batch_exists(keys[1:], after(keys[:1])) == 3
        assert reader.batch_get_v1(keys[:3], slots_of(INTO[:3])) == [True] * 3
        assert reader.batch_get_v1(keys[3:], slots_of(INTO[3:]), after(keys[:3])) == [True]
    for here, there in zip(FROM, INTO):
        for t in range(PAGE_TOKENS):
            stored = token(source, here * PAGE_TOKENS + t)
            loaded = token(target, there * PAGE_TOKENS + t)
            assert torch.equal(stored, loaded), (here, t)
    rest = sorted(set(range(backend.PAGES)) - set(INTO))
    for slot in slots_of(rest).tolist():
        mine = token(target, slot).clone()
        target.kv_buffer, now = untouched, target.kv_buffer
        assert torch.equal(mine, token(target, slot)), "a page that was not asked for changed"
        target.kv_buffer = now


@pytest.mark.parametrize("layouts", [*itertools.product(MHA, MHA)], ids="-".join)
def test_heads(cache, model, layouts):
    source, target = (mha_pool(layout) for layout in layouts)
    check(cache, model, source, target, mha_token, f"heads {layouts}")


@pytest.mark.parametrize("layouts", [*itertools.product(MLA, MLA)], ids="-".join)
def test_latents(cache, model, layouts):
    source, target = (mla_pool(layout) for layout in layouts)
    check(cache, model, source, target, mla_token, f"latents {layouts}")


def test_heads_in_groups_of_one(cache, model):
    source, target = mha_pool("page_unified", head_group_num=2), mha_pool("layer_first")
    check(cache, model, source, target, mha_token, "groups of one")


def test_keys_come_before_values_in_every_layout():
    """What a codec does to K and to V is not the same."""
    for layout in MHA:
        pool = mha_pool(layout)
        planes = read_pool(pool, "kv").planes
        for layer in range(backend.LAYERS):
            for which in (0, 1):
                first = mha_token(pool, 0)[which, layer]
                assert planes[2 * layer + which].address == first[0].data_ptr(), (layout, layer)


def test_a_pool_in_another_layout_is_refused_by_name():
    pool = mha_pool("layer_first")
    pool.layout = "page_first_kv_split"
    with pytest.raises(UnsupportedPool, match="'kv' in layout 'page_first_kv_split'.*page_head"):
        read_pool(pool, "kv")


def test_a_pool_that_keeps_more_than_heads_is_refused_by_name():
    class Mxfp8(type(mha_pool("layer_first"))):
        """What SGLang derives for pools with scales beside."""

    pool = mha_pool("layer_first")
    pool.__class__ = Mxfp8
    with pytest.raises(UnsupportedPool, match="'kv' of this model .Mxfp8.*K/V of attention"):
        read_pool(pool, "kv")
