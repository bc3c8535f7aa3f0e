"""Memory on a GPU as Python hands it over: told apart without a GPU, refused without one.

What moves it is tested in tests/unit/client/cpp/device_memory_test.cc, and on a GPU by
tests/gpu/gpu_client.py.
"""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reprise
from reprise import memory
from reprise.memory import HOST, BlockBuffers, DevicePlane, Loan, Plane, plane, readable, writable

DEVICE = 3


class CudaArray:
    """What CuPy and Numba have, around host memory."""

    def __init__(self, array: np.ndarray, *, read_only: bool = False, stream: int | None = None):
        self.shape = array.shape
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, read_only),
            "strides": None if array.flags.c_contiguous else array.strides,
            "stream": stream,
            "version": 3,
        }


class CudaTensor:
    """What torch has of a tensor on a GPU."""

    def __init__(self, array: np.ndarray, device: int = DEVICE, kind: str = "cuda") -> None:
        self.array = array
        self.shape = array.shape
        self.device = SimpleNamespace(type=kind, index=device)

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def element_size(self) -> int:
        return self.array.itemsize

    def numel(self) -> int:
        return self.array.size

    def is_contiguous(self) -> bool:
        return self.array.flags.c_contiguous

    def stride(self) -> tuple[int, ...]:
        return tuple(stride // self.array.itemsize for stride in self.array.strides)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with GPUs, all addresses on one of them."""
    monkeypatch.setattr(memory, "require_gpu", lambda device: None)
    monkeypatch.setattr(memory, "_device_of_address", lambda address: DEVICE)


@pytest.mark.usefixtures("gpus")
def test_a_span_knows_the_device_of_its_memory() -> None:
    array = np.zeros((2, 32), np.float16)
    for buffer in (CudaTensor(array), CudaArray(array)):
        span = writable(buffer)
        assert (span.address, span.nbytes, span.device) == (array.ctypes.data, 128, DEVICE)
    assert readable(array).device == HOST


@pytest.mark.usefixtures("gpus")
def test_rows_and_lists_of_device_buffers_are_lent_with_their_device_and_stream() -> None:
    array = np.zeros((3, 64), np.uint8)
    wanted = [array.ctypes.data + 64 * i for i in range(3)]
    rows = [CudaArray(row, stream=77) for row in array]
    for buffers in (CudaTensor(array), CudaArray(array, stream=77), rows):
        lent = BlockBuffers.of(buffers, 64, 3, writable=True)
        assert (lent.addresses.tolist(), lent.device) == (wanted, DEVICE)
    struct = Loan.of_buffers(lent).struct
    assert (struct.device, struct.stream) == (DEVICE, 77)
    on_host = Loan.of_buffers(BlockBuffers.of(array, 64, 3, writable=True)).struct
    assert (on_host.device, on_host.stream) == (HOST, 0)


@pytest.mark.usefixtures("gpus")
def test_memory_in_two_places_is_refused() -> None:
    array = np.zeros((2, 64), np.uint8)
    with pytest.raises(ValueError, match="host memory, GPU 3"):
        BlockBuffers.of([array[0], CudaTensor(array[1])], 64, 2, writable=True)
    with pytest.raises(ValueError, match="GPU 0, GPU 3"):
        BlockBuffers.of([CudaTensor(array[0], 0), CudaTensor(array[1])], 64, 2, writable=True)


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    "buffer, why",
    [
        (CudaArray(np.zeros((4, 4))[:, ::2]), "contiguous"),
        (CudaArray(np.zeros(4), read_only=True), "read-only"),
        (CudaTensor(np.zeros((4, 4)).T), "contiguous"),
        (CudaTensor(np.zeros(4), kind="mps"), "CUDA devices are taken"),
    ],
)
def test_what_cannot_be_written_is_refused(buffer: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        writable(buffer)


@pytest.mark.usefixtures("gpus")
def test_a_plane_of_a_device_tensor_is_that_of_a_host_tensor_and_knows_its_device() -> None:
    array = np.zeros((5, 16, 2, 64), np.float16)
    on_host = plane(array, page=0, token=1, head=2)
    on_device = plane(CudaTensor(array), page=0, token=1, head=2)
    assert isinstance(on_device, DevicePlane) and on_device.device == DEVICE
    assert tuple(on_device) == tuple(on_host) and type(on_host) is Plane


def test_the_stream_is_torchs_current_one_and_the_legacy_stream_has_a_name_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def current(device: int) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(cuda_stream=streams.pop())

    streams = [0, 4711]
    cuda = SimpleNamespace(is_initialized=lambda: True, current_stream=current)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert [memory.current_stream(2), memory.current_stream(2)] == [4711, 1]
    assert asked == [2, 2]
    cuda.is_initialized = lambda: False
    assert memory.current_stream(2) == 1


@pytest.mark.skipif(memory.gpu_count() > 0, reason="there is a GPU here")
def test_without_a_gpu_its_memory_is_refused_with_the_reason_and_the_cure() -> None:
    array = np.zeros((2, 64), np.uint8)
    for buffer in (CudaTensor(array), CudaArray(array)):
        with pytest.raises(reprise.RepriseError, match=r"UNAVAILABLE: .*no GPU.*tensor\.cpu"):
            writable(buffer)
    spec = reprise.CacheSpec("none", dtype="f16", layers=1, kv_heads=1, head_dim=32)
    with reprise.Client(router="127.0.0.1:1") as client:
        planes = [(array.ctypes.data, 1024, 64, 64)] * 2
        with pytest.raises(reprise.RepriseError, match="no GPU"):
            reprise.PagedPlan(client, spec, planes, spec.block_tokens, device=0)
        # The library refuses by itself, too.
        with pytest.raises(reprise.RepriseError, match="UNAVAILABLE: .*GPU 0"):
            client._open_plan(spec, [memory._abi.Plane(*p) for p in planes], 16, 0)
