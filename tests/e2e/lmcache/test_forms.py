"""Every form of LMCache's chunks comes back with its shape, dtype and format, and no other does."""

from __future__ import annotations

import itertools

import pytest

pytest.importorskip("lmcache", reason="LMCache is not installed here: ./dev test installs it")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from lmcache.v1.memory_management import MemoryFormat  # noqa: E402
from storage import HEAD_DIM, HEADS, LAYERS, Storage  # noqa: E402

from reprise.engines.lmcache import parts  # noqa: E402
from reprise.engines.lmcache.chunk_form import ChunkForm  # noqa: E402
from reprise.hints import Evict  # noqa: E402
from reprise.spec import CacheSpec  # noqa: E402

HIDDEN = HEADS * HEAD_DIM
numbers = itertools.count(1000)

FORMS = {
    "whole": (dict(), False, lambda t: (2, LAYERS, t, HIDDEN), MemoryFormat.KV_2LTD),
    "latents": (dict(mla=True), False, lambda t: (1, LAYERS, t, HEAD_DIM),
                MemoryFormat.KV_MLA_FMT),
    "one layer": (dict(use_layerwise=True), True, lambda t: (t, 2, HIDDEN), MemoryFormat.KV_T2D),
    "one layer to blend": (dict(use_layerwise=True, enable_blending=True), True,
                           lambda t: (2, t, HIDDEN), MemoryFormat.KV_2TD),
    "one layer of latents": (dict(mla=True, use_layerwise=True), True, lambda t: (t, HEAD_DIM),
                             MemoryFormat.KV_MLA_FMT),
}  # fmt: skip


@pytest.mark.parametrize("tokens", [256, 100])
@pytest.mark.parametrize("options, layered, shape, fmt", FORMS.values(), ids=FORMS)
def test_a_chunk_comes_back_in_its_form(cache, options, layered, shape, fmt, tokens):
    with Storage(cache.router, **options) as storage:
        key = storage.key(next(numbers))
        keys = key.split_layers(LAYERS) if layered else [key]
        for layer, one in enumerate(keys):
            storage.put(one, storage.memory(shape(tokens), fmt, layer))
        assert storage.backend.batched_contains(keys) == len(keys)
        for layer, one in enumerate(keys):
            memory = storage.backend.get_blocking(one)
            assert tuple(memory.get_shape()) == shape(tokens)
            assert [tuple(s) for s in memory.get_shapes()] == [shape(tokens)]
            assert memory.get_dtype() == torch.bfloat16 and memory.get_memory_format() == fmt
            again = storage.memory(shape(tokens), fmt, layer)
            assert bytes(memory.byte_array) == bytes(again.byte_array)
            assert memory.get_ref_count() == 1
            memory.ref_count_down()
            again.ref_count_down()
        storage.settled()


def test_a_memory_object_of_another_form_is_not_stored(cache, log):
    with Storage(cache.router) as storage:
        key = storage.key(next(numbers))
        storage.put(key, storage.memory((2, LAYERS, 256, HIDDEN // 2), MemoryFormat.KV_2LTD))
        storage.put(key, storage.memory((2, LAYERS, 256, HIDDEN), MemoryFormat.KV_2TD))
        assert not storage.backend.contains(key)
        assert storage.connector.stats()["stores"] == 0
    assert "is no chunk of KV_2LTD" in log.text


def test_tags_and_layers_are_other_chunks(cache):
    with Storage(cache.router) as storage:
        number = next(numbers)
        form = ((2, LAYERS, 256, HIDDEN), MemoryFormat.KV_2LTD)
        storage.put(storage.key(number), storage.memory(*form))
        assert storage.backend.contains(storage.key(number))
        assert storage.backend.contains(storage.key(number, temperature="not a tag"))
        for tags in ({"a": "1"}, {"a": "1", "b": "2"}, {"a": "1@b%2"}):
            tagged = storage.key(number, **{f"lmcache.tag.{k}": v for k, v in tags.items()})
            assert not storage.backend.contains(tagged)
            storage.put(tagged, storage.memory(*form))
            assert storage.backend.contains(tagged)
        assert not storage.backend.contains(storage.key(-number))


def test_a_foreign_block_is_a_miss(cache, log):
    """Bytes under a chunk's keys that are no chunk: nothing of them comes back."""
    with Storage(cache.router) as storage:
        key = storage.key(next(numbers))
        chunk = storage.connector._store._names.chunk(key)
        block = np.full(chunk.kind.spec.block_bytes, 7, np.uint8)
        client = storage.connector._client
        assert client.store(chunk.kind.spec, chunk.keys[:1], [block]).stored == 1
        assert storage.backend.get_blocking(key) is None
        storage.settled()
    assert "a block begins with" in log.text


def big(storage, seed):
    """A memory object of several parts, and its chunk."""
    shape = (2, storage.metadata.kv_shape[0], 256, storage.metadata.kv_shape[3] * HEAD_DIM)
    return storage.memory(shape, MemoryFormat.KV_2LTD, seed)


def test_a_chunk_whose_end_was_dropped_is_a_miss_until_it_is_stored_again(cache):
    with Storage(cache.router, heads=64) as storage:
        key = storage.key(next(numbers))
        storage.put(key, big(storage, 1))
        chunk = storage.connector._store._names.chunk(key)
        client = storage.connector._client
        assert chunk.kind.cut.count > 2
        dropped = client.hint(chunk.kind.spec, chunk.keys, Evict(first_block=2))
        assert dropped.blocks == chunk.kind.cut.count - 2
        assert not storage.backend.contains(key)
        assert storage.backend.get_blocking(key) is None
        storage.settled()
        storage.put(key, big(storage, 1))
        assert storage.backend.contains(key)
        memory, again = storage.backend.get_blocking(key), big(storage, 1)
        assert bytes(memory.byte_array) == bytes(again.byte_array)
        memory.ref_count_down()
        again.ref_count_down()


def test_no_byte_of_another_chunk_is_stored_around_a_short_one(cache):
    with Storage(cache.router) as storage:
        short = storage.key(next(numbers))
        chunk = storage.connector._store._names.chunk(short)
        staging, size = storage.connector._store._staging, chunk.kind.cut.block_bytes
        with staging.lend(size) as one, staging.lend(size) as another:  # used before
            one[:], another[:] = 255, 255
        storage.put(short, storage.memory((2, LAYERS, 3, HIDDEN), MemoryFormat.KV_2LTD))
        block = np.empty(chunk.kind.spec.block_bytes, np.uint8)
        with storage.connector._client.acquire(chunk.kind.spec, chunk.keys) as run:
            assert run.fetch([block]).blocks == 1
        lead = chunk.kind.cut.lead
        end = lead + 3 * chunk.kind.form.token_bytes
        assert block[lead:end].any() and lead > parts.HEADER_BYTES
        assert not block[parts.HEADER_BYTES : lead].any() and not block[end:].any()


GROUPS = [
    ((2, 1, 16, 8),), ((2, 4, 256, 128),), ((1, 61, 256, 576),), ((2, 32, 256, 1024),),
    ((2, 80, 256, 8192),), ((2, 1, 8192, 65536),), ((256, 2, 1024),),
    ((2, 20, 256, 512), (2, 12, 256, 1024)),
]  # fmt: skip


@pytest.mark.parametrize("shapes", GROUPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_parts_are_within_a_blocks_limits_and_hold_all_bytes(shapes, dtype):
    axis = len(shapes[0]) - 2 if len(shapes[0]) == 4 else 0
    tokens = shapes[0][axis]
    layers = sum(s[1] for s in shapes) if len(shapes[0]) == 4 else 1
    form = ChunkForm(shapes, (dtype,) * len(shapes), MemoryFormat.KV_2LTD, axis, tokens, layers)
    cut = parts.cut(form)
    spec = CacheSpec("limits", attention="mla", dtype="i8", layers=cut.layers,
                     head_dim=cut.row_bytes, block_tokens=cut.block_tokens)  # fmt: skip
    assert spec.block_bytes == cut.block_bytes <= 64 << 20
    assert cut.count == cut.needed(form.nbytes)
    assert form.nbytes + parts.HEADER_BYTES <= cut.count * cut.block_bytes
    assert parts.HEADER_BYTES <= cut.lead <= cut.block_bytes
    if form.nbytes > parts.PART_BYTES:
        assert cut.count * cut.block_bytes < 1.1 * form.nbytes
    if form.nbytes > 256 << 20:
        return
    whole = np.arange(form.nbytes, dtype=np.uint32).astype(np.uint8)
    for count in {1, 2, tokens // 2, tokens - 1, tokens}:
        data = whole[: count * form.token_bytes]
        head, tail = parts.ends(data, cut)
        pieces = [head, *parts.middle(data, cut), tail]
        assert np.array_equal(np.concatenate(pieces), data)
        assert cut.needed(data.size) == len(pieces) - (not tail.size)


def test_a_header_is_believed_only_whole():
    form = ChunkForm(((2, 4, 256, 128),), (torch.bfloat16,), MemoryFormat.KV_2LTD, 2, 256, 4)
    other = ChunkForm(((2, 4, 256, 128),), (torch.float16,), MemoryFormat.KV_2LTD, 2, 256, 4)
    block = np.zeros(4096, np.uint8)
    parts.write_header(block, form, 100)
    assert parts.read_header(block, form) == 100
    with pytest.raises(parts.BadHeader, match="is no KV_2LTD 2x4x100x128 float16"):
        parts.read_header(block, other)
    for byte in range(56):  # what follows is padding
        changed = block.copy()
        changed[byte] ^= 1
        with pytest.raises(parts.BadHeader):
            parts.read_header(changed, form)
