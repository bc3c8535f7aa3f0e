"""What one LMCache engine stored, another one retrieves, bit for bit; other models do not."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("lmcache", reason="LMCache is not installed here: ./dev test installs it")

import torch  # noqa: E402
from another_process import digest  # noqa: E402
from engine import CHUNK_TOKENS, Engine, same, tokens_of, wait_until  # noqa: E402


def test_another_process_retrieves_what_this_one_stored(cache):
    tokens = tokens_of("another process", 1000)
    with Engine({"router": cache.router}) as engine:
        kv = engine.computed("another process", 1000)
        engine.store(tokens, kv)
    script = pathlib.Path(__file__).with_name("another_process.py")
    done = subprocess.run(
        [sys.executable, str(script), cache.router, "another process", "1000"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("RETRIEVED")]
    assert lines == [f"RETRIEVED 768 768 {digest(kv[:, :, :768])}"], done.stderr[-2000:]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.uint8]
)
def test_bits_come_back_of_every_dtype(cache, dtype):
    tokens = tokens_of("dtypes", 2 * CHUNK_TOKENS)
    with Engine({"router": cache.router}, dtype=dtype) as engine:
        kv = engine.computed("dtypes", len(tokens))
        assert engine.lookup(tokens) == 0
        engine.store(tokens, kv)
        assert engine.lookup(tokens) == len(tokens)
        came, back = engine.retrieve(tokens)
    assert came == len(tokens) and same(back, kv)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 700])
@pytest.mark.parametrize("head_dim", [64, 4096], ids=["one part", "several parts"])
def test_a_short_last_chunk_comes_back_as_it_was(cache, count, head_dim):
    seed = f"short {count} {head_dim}"
    tokens = tokens_of(seed, count)
    options = dict(head_dim=head_dim, memory_gib=0.25, save_unfull_chunk=True)
    with Engine({"router": cache.router}, **options) as engine:
        kv = engine.computed(seed, count)
        engine.store(tokens, kv)
        assert engine.lookup(tokens) == count
        came, back = engine.retrieve(tokens)
        assert engine.allocated() == 0
    assert came == count and same(back, kv)


def test_a_chunk_larger_than_a_block_is_a_chain_of_parts(cache):
    tokens = tokens_of("large", CHUNK_TOKENS)
    with Engine(
        {"router": cache.router, "load_timeout_ms": 8000}, layers=36, heads=16, head_dim=128,
        memory_gib=0.25,
    ) as engine:  # fmt: skip
        kv = engine.computed("large", len(tokens))
        assert kv.nbytes > 64 << 20
        engine.store(tokens, kv)
        assert engine.connector.stats()["blocks_stored"] > 1
        came, back = engine.retrieve(tokens)
        stats = engine.connector.stats()
    assert came == len(tokens) and same(back, kv)
    # All but the two parts at its ends go to and from the memory object itself.
    assert stats["bytes_fetched"] < 1.1 * kv.nbytes


OTHERS = {
    "model": dict(model="another"),
    "dtype of as many bytes": dict(dtype=torch.float16),
    "layers": dict(layers=3),
    "rank": dict(rank=(1, 2)),
    "world size": dict(rank=(0, 2)),
    "hash": dict(pre_caching_hash_algorithm="builtin"),
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_another_model_or_layout_is_a_miss(cache, options):
    tokens = tokens_of("others", 2 * CHUNK_TOKENS)
    with Engine({"router": cache.router}) as one, Engine({"router": cache.router}, **options) as b:
        one.store(tokens, one.computed("others", len(tokens)))
        assert one.lookup(tokens) == len(tokens)
        assert b.lookup(tokens) == 0
        assert b.retrieve(tokens)[0] == 0


def test_each_rank_has_its_own(cache):
    tokens = tokens_of("ranks", CHUNK_TOKENS)
    where = {"router": cache.router}
    with Engine(where, rank=(0, 2)) as first, Engine(where, rank=(1, 2)) as second:
        kv = [engine.computed(engine.name, len(tokens)) for engine in (first, second)]
        first.store(tokens, kv[0])
        assert (first.lookup(tokens), second.lookup(tokens)) == (len(tokens), 0)
        second.store(tokens, kv[1])
        for engine, own in zip((first, second), kv):
            came, back = engine.retrieve(tokens)
            assert came == len(tokens) and same(back, own)


@pytest.mark.parametrize("setting", ["scope", "revision", "model"])
def test_what_a_setting_names_otherwise_is_a_miss(cache, setting):
    tokens = tokens_of("settings", CHUNK_TOKENS)
    where = {"router": cache.router}
    with Engine(where) as one, Engine({**where, setting: "another"}) as other:
        one.store(tokens, one.computed("settings", len(tokens)))
        assert (one.lookup(tokens), other.lookup(tokens)) == (len(tokens), 0)


def test_why_another_layout_misses_is_told(cache, log):
    tokens = tokens_of("told", CHUNK_TOKENS)
    with Engine({"router": cache.router}) as one, Engine({"router": cache.router}, layers=3) as b:
        one.store(tokens, one.computed("told", len(tokens)))
        assert b.lookup(tokens) == 0
        wait_until(lambda: "cache spec field" in log.text, 10, "nothing was told")
    assert "Nothing is shared between them" in log.text


def test_a_gap_ends_what_is_found_and_what_comes(cache):
    tokens = tokens_of("gap", 4 * CHUNK_TOKENS)
    with Engine({"router": cache.router}) as engine:
        kv = engine.computed("gap", len(tokens))
        engine.store(tokens, kv)
        keys = [key for _, _, key in engine.engine.token_database.process_tokens(tokens)]
        assert engine.backend.remove(keys[2]) and not engine.backend.contains(keys[2])
        assert engine.backend.contains(keys[3]), "each chunk is kept by itself"
        assert engine.lookup(tokens) == 2 * CHUNK_TOKENS
        came, back = engine.retrieve(tokens)
        assert came == 2 * CHUNK_TOKENS and same(back[:, :, :came], kv[:, :, :came])
        engine.settled()
        # The next one who computes the prompt mends it.
        engine.store(tokens, kv)
        assert engine.lookup(tokens) == len(tokens)


def test_lmcache_clears_the_chunks_of_a_prompt(cache):
    tokens = tokens_of("clear", 2 * CHUNK_TOKENS)
    with Engine({"router": cache.router}) as engine:
        engine.store(tokens, engine.computed("clear", len(tokens)))
        assert engine.engine.clear(tokens=tokens) == 2
        assert engine.lookup(tokens) == 0


def test_what_is_stored_is_not_sent_again(cache):
    tokens = tokens_of("again", 3 * CHUNK_TOKENS)
    with Engine({"router": cache.router}) as engine:
        kv = engine.computed("again", len(tokens))
        engine.store(tokens, kv)
        sent = engine.connector.stats()["bytes_stored"]
        engine.store(tokens, kv)
        assert engine.connector.stats()["bytes_stored"] == sent
