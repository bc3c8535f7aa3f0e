"""Buffers: what is taken, without a copy, and what is refused with a sentence."""

import ctypes
import gc
import weakref
from typing import Any

import numpy as np
import pytest
from reprise.memory import BlockBuffers, Plane, plane, readable, writable

torch = pytest.importorskip("torch")


def test_spans_point_at_the_buffers_own_memory() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    tensor = torch.arange(12, dtype=torch.bfloat16)
    owned = bytearray(b"abcdef")
    assert (readable(array).address, readable(array).nbytes) == (array.ctypes.data, 48)
    assert (writable(tensor).address, writable(tensor).nbytes) == (tensor.data_ptr(), 24)
    span = writable(owned)
    ctypes.memset(span.address, ord("z"), 2)
    assert owned == b"zzcdef"
    assert bytes((ctypes.c_char * 3).from_address(readable(b"xyz").address)) == b"xyz"


@pytest.mark.parametrize(
    "buffer, error, why",
    [
        (b"bytes", ValueError, "read-only"),
        (np.arange(8)[::2], ValueError, "contiguous"),
        (torch.zeros(4, 4).T, ValueError, "contiguous"),
        (memoryview(bytearray(8))[::2], ValueError, "contiguous"),
        (torch.zeros(4, device="meta"), ValueError, "host memory"),
        ([1, 2, 3], TypeError, "is no buffer"),
        (7, TypeError, "is no buffer"),
    ],
)
def test_what_cannot_be_written_is_refused(buffer: Any, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        writable(buffer)


def test_read_only_arrays_are_readable_alone() -> None:
    array = np.zeros(4)
    array.flags.writeable = False
    assert readable(array).nbytes == 32
    with pytest.raises(ValueError, match="read-only"):
        writable(array)


def test_one_buffer_per_block_or_rows_of_one_array_are_the_same_addresses() -> None:
    rows = np.zeros((3, 64), np.uint8)
    from_rows = BlockBuffers.of(rows, 64, 3, writable=True)
    from_list = BlockBuffers.of([rows[0], rows[1], rows[2]], 64, 3, writable=True)
    assert from_rows.addresses.tolist() == from_list.addresses.tolist()
    tensor = torch.zeros(3, 4, 4)
    assert BlockBuffers.of(tensor, 64, 3, writable=True).addresses.tolist() == [
        tensor.data_ptr() + 64 * i for i in range(3)
    ]
    assert BlockBuffers.of([], 64, 0, writable=True).addresses.size == 0


@pytest.mark.parametrize(
    "buffers, error, why",
    [
        ([bytearray(64)], ValueError, "1 buffers for 2 blocks"),
        ([bytearray(64), bytearray(63)], ValueError, "buffer 1 has 63 bytes"),
        (np.zeros((2, 63), np.uint8), ValueError, "first axis must be the blocks"),
        (np.zeros(128, np.uint8), ValueError, "first axis must be the blocks"),
        (bytearray(128), TypeError, "one buffer per block"),
        (iter([bytearray(64)]), TypeError, "one buffer per block"),
    ],
)
def test_buffers_that_are_not_the_blocks_are_refused(
    buffers: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        BlockBuffers.of(buffers, 64, 2, writable=True)


def test_buffers_keep_their_owners_alive() -> None:
    array = np.zeros((2, 64), np.uint8)
    gone = weakref.ref(array)
    held = BlockBuffers.of(array, 64, 2, writable=True)
    del array
    gc.collect()
    assert gone() is not None and held.addresses.size == 2
    del held
    gc.collect()
    assert gone() is None


def test_planes_are_read_off_any_layout() -> None:
    pages, tokens, heads, dim = 5, 16, 2, 8
    nhd = np.zeros((2, pages, tokens, heads, dim), np.float32)
    assert plane(nhd[1], page=0, token=1, head=2) == Plane(nhd[1].ctypes.data, 1024, 32, 64)
    hnd = torch.zeros(pages, heads, tokens, dim, dtype=torch.bfloat16)
    assert plane(hnd, page=0, head=1, token=2) == Plane(hnd.data_ptr(), 512, 256, 16)
    latent = torch.zeros(pages, tokens, 40, dtype=torch.float16)
    assert plane(latent, page=0, token=1) == Plane(latent.data_ptr(), 1280, 0, 80)
    packed = torch.zeros(pages, tokens, 2, heads, dim)
    values = plane(packed[:, :, 1], page=0, token=1, head=2)
    assert values == Plane(packed.data_ptr() + 64, 2048, 32, 128)


@pytest.mark.parametrize(
    "axes, why",
    [({"page": 0, "token": 0, "head": 2}, "another one"), ({"page": 0, "token": 1}, "exactly one")],
)
def test_axes_that_do_not_name_the_tensor_are_refused(axes: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        plane(np.zeros((2, 4, 2, 8)), **axes)


def test_rows_that_are_not_contiguous_are_refused() -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        plane(np.zeros((2, 4, 2, 8))[..., ::2], page=0, token=1, head=2)
    with pytest.raises(TypeError, match="neither"):
        plane([1, 2], page=0, token=1)
