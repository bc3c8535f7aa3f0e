"""The storage interface by itself: what is refused at start, what a miss and a failure answer."""

from __future__ import annotations

import json
import pathlib
import re
import time

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sglang", reason="SGLang is not installed here: ./dev test installs it")

import backend  # noqa: E402
from backend import PAGES, after, mha_pool, slots_of  # noqa: E402
from server import reprise_backend  # noqa: E402
from sglang.srt.mem_cache.hicache_storage import (  # noqa: E402
    PoolHitPolicy,
    PoolName,
    PoolTransfer,
)
from stored import leases  # noqa: E402
from test_host_pools import hashes  # noqa: E402

from reprise.engines.sglang import RepriseHiCache, versions  # noqa: E402

NOBODY = "127.0.0.1:1"
ROOT = pathlib.Path(__file__).parents[3]


def make(model, settings, **fields):
    with backend.server_args(model, settings):
        return RepriseHiCache(backend.config(settings, **fields), {})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"interface_v1": 0}, 'set "interface_v1": 1'),
        ({"hicache_storage_pass_prefix_keys": False}, '"hicache_storage_pass_prefix_keys": true'),
        ({"ruoter": "x"}, "unknown setting 'ruoter'; known are"),
        ({"router": ()}, "set either router"),
        ({"shards": [NOBODY]}, "set either router"),
        ({"load_timeout_ms": -1}, "load_timeout_ms is -1; it must be a number >= 0"),
        ({"tls_ca": "/no/such/file"}, "hicache_storage_backend_extra_config: TLS needs"),
    ],
)
def test_a_wrong_configuration_is_refused_at_start_with_what_to_set(model, change, says):
    with pytest.raises(ValueError, match=says):
        make(model, {**reprise_backend(NOBODY), **change})


@pytest.mark.parametrize("readme", ["README.md", "client/python/README.md"])
def test_the_configuration_that_the_readme_shows_is_taken(model, readme):
    text = (ROOT / readme).read_text()
    (shown,) = re.findall(r"--hicache-storage-backend-extra-config '(.*?)'", text, re.DOTALL)
    settings = {**json.loads(shown), "router": NOBODY}
    make(model, settings).close()


def test_context_parallel_ranks_are_refused(model):
    with pytest.raises(ValueError, match="--attn-cp-size to 1"):
        make(model, reprise_backend(NOBODY), attn_cp_size=2)


def test_pools_that_keep_the_last_pages_alone_are_refused_by_name(model):
    with backend.storage(model, NOBODY, mha_pool("layer_first")) as storage:
        with pytest.raises(ValueError, match="host pool 'swa' too: --disable-hybrid-swa-memory"):
            storage.register_mem_host_pool_v2(mha_pool("layer_first"), PoolName.SWA)


def test_another_sglang_is_named(monkeypatch):
    versions.check()
    monkeypatch.setitem(versions.NEEDED, "sglang.srt.mem_cache.hicache_storage", ("NoSuchThing",))
    with pytest.raises(versions.UnsupportedSglang, match="hicache_storage.NoSuchThing"):
        versions.check()


def test_two_pools_are_asked_loaded_and_stored_under_specs_of_their_own(cache, model):
    keys = hashes("two pools", 4)
    both = slots_of([0, 1, 2, 3])
    kv, draft = mha_pool("page_first"), mha_pool("layer_first")
    drafts = PoolTransfer(PoolName.DRAFT, keys=keys, host_indices=both)
    with backend.storage(model, cache.router, kv) as storage:
        storage.register_mem_host_pool_v2(draft, PoolName.DRAFT)
        assert storage.batch_set_v1(keys, both) == [True] * 4
        assert storage.batch_exists(keys) == 4
        found = storage.batch_exists_v2(keys, [drafts])
        assert (found.kv_hit_pages, found.extra_pool_hit_pages["draft"]) == (0, 0)
        first = PoolTransfer(PoolName.DRAFT, keys=keys[:3], host_indices=both[: 3 * 16])
        assert storage.batch_set_v2([first]) == {"draft": [True] * 3}
        found = storage.batch_exists_v2(keys, [drafts])
        assert (found.kv_hit_pages, found.extra_pool_hit_pages["draft"]) == (3, 3)
        assert found.restorable_prefix_pages == [1, 2, 3]
        before = draft.kv_buffer.clone()
        draft.kv_buffer.zero_()
        assert storage.batch_get_v2([first]) == {"draft": [True] * 3}
        assert torch.equal(draft.kv_buffer[:, :, : 3 * 16], before[:, :, : 3 * 16])
        trailing = PoolTransfer(PoolName.DRAFT, keys=keys, hit_policy=PoolHitPolicy.TRAILING_PAGES)
        assert storage.batch_exists_v2(keys, [trailing]).kv_hit_pages == 0


def test_ranks_and_scopes_have_pages_of_their_own_and_latents_are_everybodys(cache, model):
    keys, slots = hashes("ranks", 2), slots_of([0, 1])

    def found(make_pool, *, scope="", **rank):
        settings = reprise_backend(cache.router, scope=scope)
        with backend.server_args(model, settings):
            storage = RepriseHiCache(backend.config(settings, **rank), {})
        try:
            with backend.server_args(model, settings):
                storage.register_mem_pool_host(make_pool("layer_first"))
                had = storage.batch_exists(keys)
                storage.batch_set_v1(keys, slots)
            return had
        finally:
            storage.close()

    assert found(mha_pool, tp_size=2, tp_rank=0) == 0
    assert found(mha_pool, tp_size=2, tp_rank=1) == 0
    assert found(mha_pool, tp_size=2, tp_rank=1) == 2
    assert found(mha_pool, tp_size=2, tp_rank=1, scope="another") == 0
    assert found(mha_pool, tp_size=2, tp_rank=1, pp_size=2, pp_rank=1) == 0
    assert found(backend.mla_pool, tp_size=4, tp_rank=0, is_mla_model=True) == 0
    assert found(backend.mla_pool, tp_size=4, tp_rank=3, is_mla_model=True) == 2


def test_what_is_no_page_is_refused_and_nothing_is_stored(cache, model):
    keys = hashes("no page", 2)
    with backend.storage(model, cache.router, mha_pool("layer_first")) as storage:
        with pytest.raises(ValueError, match="31 token slots for 2 pages of 16 tokens"):
            storage.batch_set_v1(keys, slots_of([0, 1])[:-1])
        with pytest.raises(ValueError, match="token slot 8 begins a page"):
            storage.batch_set_v1(keys, slots_of([0, 1]) + 8)
        with pytest.raises(ValueError, match="each must be a SHA-256"):
            storage.batch_exists(["abcd"])
        assert storage.batch_exists(keys) == 0


def test_a_question_that_no_load_follows_lets_its_leases_go(cache, model):
    keys = hashes("held", PAGES)
    pool = mha_pool("layer_first")
    with backend.storage(model, cache.router, pool, lookup_hold_ms=700) as storage:
        storage.batch_set_v1(keys, slots_of(list(range(PAGES))))
        assert storage.batch_exists(keys) == PAGES
        assert leases(cache) == 1
        deadline = time.monotonic() + 10
        while leases(cache) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert leases(cache) == 0
        # And no more of them are held than is set.
    with backend.storage(model, cache.router, pool, lookups_held_max=2) as storage:
        for count in range(1, PAGES):
            assert storage.batch_exists(keys[:count]) == count
        assert leases(cache) == 2


def test_a_cache_that_is_away_is_a_miss_told_once(model, caplog):
    keys, slots = hashes("away", 2), slots_of([0, 1])
    with backend.storage(model, NOBODY, mha_pool("layer_first"), lookup_timeout_ms=300) as storage:
        for _ in range(3):
            assert storage.batch_exists(keys) == 0
            assert storage.batch_get_v1(keys, slots) == [False, False]
            assert storage.batch_set_v1(keys, slots) == [False, False]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("did not answer" in line for line in told) == 1
    assert sum("did not store" in line for line in told) == 1


def test_pages_after_a_prefix_that_is_not_stored_are_refused(cache, model):
    keys = hashes("hole", 4)
    with backend.storage(model, cache.router, mha_pool("layer_first")) as storage:
        assert storage.batch_set_v1(keys[2:], slots_of([2, 3]), after(keys[:2])) == [False, False]
        assert storage.batch_exists(keys[2:], after(keys[:2])) == 0


def test_single_pages_and_clearing_are_refused_with_what_to_do(model):
    with backend.storage(model, NOBODY) as storage:
        with pytest.raises(NotImplementedError, match='another "scope"'):
            storage.clear()
        with pytest.raises(NotImplementedError, match='"interface_v1": 1'):
            storage.get("00" * 32)


def test_what_moved_is_reported_once(cache, model):
    keys, slots = hashes("moved", 3), slots_of([0, 1, 2])
    with backend.storage(model, cache.router, mha_pool("layer_first")) as storage:
        storage.batch_set_v1(keys, slots)
        storage.batch_get_v1(keys, slots)
        moved = storage.get_stats()
        assert (moved.backup_pgs, moved.prefetch_pgs) == ([3], [3])
        assert moved.backup_bandwidth[0] > 0 and moved.prefetch_bandwidth[0] > 0
        assert storage.get_stats().backup_pgs == []
