"""Caller memory: buffers, one per block, and an engine's paged tensors, as addresses for the C ABI.

A buffer is a numpy array, a torch tensor, anything with Python's buffer protocol (bytearray,
memoryview, mmap), or anything in GPU memory with `__cuda_array_interface__`. Nothing is copied: the
library reads and writes the buffer itself, and what is returned here keeps the buffer's owner
alive. torch is never imported: a tensor is known by its methods.

Memory on a GPU is all of one device. The library waits for what the caller has given to its current
stream by the time of the call, and what it has done is right for every stream.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from reprise import _abi
from reprise.errors import UNAVAILABLE, RepriseError

if TYPE_CHECKING:
    from reprise.client import Client
    from reprise.spec import CacheSpec

#: One buffer per block, or one contiguous array or tensor whose first axis is the blocks.
BuffersLike: TypeAlias = Any
#: Page indexes: `block_tokens // page_tokens` per block, in token order; any integer shape, read in
#: C order.
PagesLike: TypeAlias = Any


#: The device of what is in host memory.
HOST = -1

_NO_STREAM = 0  # REPRISE_STREAM_NONE
_LEGACY_STREAM = 1  # REPRISE_STREAM_LEGACY: what torch calls stream 0


@dataclass(frozen=True)
class Span:
    """A contiguous range of memory, alive while `owner` is."""

    address: int
    nbytes: int
    owner: object
    device: int = HOST  # index of the GPU
    stream: int = _NO_STREAM  # what the memory's last use was given to, where its owner says so


class Plane(NamedTuple):
    """One (layer, K or V) of an engine's paged memory; strides in bytes between neighbours."""

    address: int  # of element [page 0][head 0][token 0][0]
    page_stride: int
    head_stride: int
    token_stride: int


class DevicePlane(Plane):
    """A plane in a GPU's memory."""

    device: int = HOST

    @classmethod
    def on(cls, plane: Plane, device: int) -> DevicePlane:
        """The same plane, known to be on `device`."""
        made = cls(*plane)
        made.device = device
        return made


def gpu_count() -> int:
    """How many GPUs the library can use: 0 in a build without CUDA and on a machine without one."""
    return int(_abi.library().reprise_gpu_count(None))


def require_gpu(device: int) -> None:
    """Raises RepriseError (UNAVAILABLE) that says why memory on `device` cannot be used."""
    error = _abi.Error()
    if _abi.library().reprise_gpu_count(ctypes.byref(error)) == 0:
        raise RepriseError(
            UNAVAILABLE,
            f"memory on GPU {device} cannot be used: {error.text()}; move it to host memory "
            "(tensor.cpu())",
        )


def readable(buffer: Any) -> Span:
    """The span of a contiguous buffer. Raises TypeError or ValueError, and RepriseError for memory
    on a GPU that the library cannot use.
    """
    return _span(buffer, writable=False)


def writable(buffer: Any) -> Span:
    """The same for a buffer that may be written."""
    return _span(buffer, writable=True)


def _span(buffer: Any, *, writable: bool) -> Span:
    if _is_tensor(buffer):
        device = _device_of_tensor(buffer)
        if not buffer.is_contiguous():
            raise ValueError(
                f"tensor of shape {tuple(buffer.shape)} is not contiguous: "
                "pass one that is, or a PagedPlan"
            )
        nbytes = buffer.numel() * buffer.element_size()
        return Span(buffer.data_ptr(), nbytes, buffer, device)
    if hasattr(buffer, "__cuda_array_interface__"):
        return _span_of_interface(buffer, writable=writable)
    if isinstance(buffer, np.ndarray):
        if not buffer.flags.c_contiguous:
            raise ValueError(f"array of shape {buffer.shape} is not C-contiguous")
        if writable and not buffer.flags.writeable:
            raise ValueError("array is read-only: bytes are written into it")
        return Span(buffer.ctypes.data, buffer.nbytes, buffer)
    try:
        view = memoryview(buffer)
    except TypeError as failure:
        raise TypeError(
            f"{type(buffer).__name__} is no buffer: pass a numpy array, a torch tensor, or an "
            "object with the buffer protocol or __cuda_array_interface__"
        ) from failure
    if not view.c_contiguous:
        raise ValueError("memoryview is not contiguous")
    if writable and view.readonly:
        raise ValueError(f"{type(buffer).__name__} is read-only: bytes are written into it")
    if view.nbytes == 0:
        return Span(0, 0, buffer)
    array = np.frombuffer(view, np.uint8)
    return Span(array.ctypes.data, view.nbytes, array)


def _is_tensor(buffer: Any) -> bool:
    return hasattr(buffer, "data_ptr") and hasattr(buffer, "element_size")


def _device_of_tensor(tensor: Any) -> int:
    kind = getattr(tensor.device, "type", str(tensor.device))
    if kind == "cpu":
        return HOST
    if kind != "cuda":
        raise ValueError(
            f"tensor is on {tensor.device}: host memory and CUDA devices are taken; move it "
            "(tensor.cpu()) first"
        )
    device = int(tensor.device.index)
    require_gpu(device)
    return device


def _span_of_interface(buffer: Any, *, writable: bool) -> Span:
    """A span from `__cuda_array_interface__` (numba.readthedocs.io, CUDA Array Interface v3)."""
    interface = buffer.__cuda_array_interface__
    address, read_only = interface["data"]
    shape, itemsize = tuple(interface["shape"]), np.dtype(interface["typestr"]).itemsize
    nbytes = itemsize
    for axis in shape:
        nbytes *= axis
    strides = interface.get("strides")
    if strides is not None and nbytes:
        expected = itemsize
        for axis, stride in reversed(list(zip(shape, strides))):
            if axis > 1 and stride != expected:
                raise ValueError(f"array of shape {shape} is not C-contiguous")
            expected *= axis
    if writable and read_only:
        raise ValueError(f"{type(buffer).__name__} is read-only: bytes are written into it")
    device = _device_of_address(address or 0)
    return Span(address or 0, nbytes, buffer, device, interface.get("stream") or _NO_STREAM)


def _device_of_address(address: int) -> int:
    require_gpu(0)
    device, error = ctypes.c_int32(HOST), _abi.Error()
    code = _abi.library().reprise_device_of(address, ctypes.byref(device), ctypes.byref(error))
    _abi.check(code, error)
    return device.value


def current_stream(device: int) -> int:
    """What the caller's latest work on `device` was given to, as the ABI wants it: torch's current
    stream where torch is used, else CUDA's legacy default stream.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return _LEGACY_STREAM
    return int(torch.cuda.current_stream(device).cuda_stream) or _LEGACY_STREAM


def _one_device(devices: Iterable[int], what: str) -> int:
    found = set(devices)
    if len(found) > 1:
        names = ", ".join("host memory" if d == HOST else f"GPU {d}" for d in sorted(found))
        raise ValueError(f"{what} are in {names}: one call's memory is all in one place")
    return found.pop() if found else HOST


@dataclass(frozen=True)
class BlockBuffers:
    """One address per block, checked, with what must stay alive while the library uses them."""

    addresses: npt.NDArray[np.uintp]
    owner: object
    device: int = HOST
    stream: int = _NO_STREAM  # of an owner that says so

    @classmethod
    def of(
        cls, buffers: BuffersLike, block_bytes: int, count: int, *, writable: bool
    ) -> BlockBuffers:
        """Checks `count` buffers of `block_bytes` each. Raises TypeError or ValueError."""
        if (
            _is_tensor(buffers)
            or isinstance(buffers, np.ndarray)
            or hasattr(buffers, "__cuda_array_interface__")
        ):
            return cls._rows(buffers, block_bytes, count, writable=writable)
        if isinstance(buffers, (bytes, bytearray, memoryview)) or not isinstance(buffers, Sequence):
            raise TypeError(
                f"buffers is {type(buffers).__name__}: pass a list with one buffer per block, "
                "or one array whose first axis is the blocks"
            )
        if len(buffers) != count:
            raise ValueError(f"{len(buffers)} buffers for {count} blocks: one per block is needed")
        spans = []
        for index, buffer in enumerate(buffers):
            span = _span(buffer, writable=writable)
            if span.nbytes != block_bytes:
                raise ValueError(
                    f"buffer {index} has {span.nbytes} bytes: a block here has {block_bytes}"
                )
            spans.append(span)
        addresses = np.fromiter((span.address for span in spans), np.uintp, len(spans))
        device = _one_device((span.device for span in spans), "buffers")
        stream = next((span.stream for span in spans if span.stream), _NO_STREAM)
        return cls(addresses, spans, device, stream)

    @classmethod
    def _rows(cls, array: Any, block_bytes: int, count: int, *, writable: bool) -> BlockBuffers:
        span = _span(array, writable=writable)
        shape = tuple(array.shape)
        if len(shape) < 2 or shape[0] != count or span.nbytes != count * block_bytes:
            raise ValueError(
                f"array of shape {shape}, {span.nbytes} bytes, for {count} blocks of "
                f"{block_bytes} bytes: the first axis must be the blocks"
            )
        addresses = span.address + np.arange(count, dtype=np.uintp) * np.uintp(block_bytes)
        return cls(addresses.astype(np.uintp), span, span.device, span.stream)


class Loan:
    """A `reprise_device_memory` and everything that it points to, for the time of one operation."""

    def __init__(self, struct: _abi.DeviceMemory, keep: tuple[object, ...]) -> None:
        self.struct = struct
        self._keep = keep

    @classmethod
    def of_buffers(cls, buffers: BlockBuffers) -> Loan:
        """Lends one buffer per block."""
        struct = _on(buffers.device, buffers.stream)
        struct.buffers = buffers.addresses.ctypes.data_as(ctypes.POINTER(ctypes.c_void_p))
        return cls(struct, (buffers,))

    @classmethod
    def of_pages(cls, plan: PagedPlan, pages: PagesLike, count: int) -> Loan:
        """Lends `count` blocks of paged memory. Raises ValueError for a wrong number of pages."""
        indexes = plan.check_pages(pages, count)
        struct = _on(plan.device)
        struct.plan = plan.handle
        struct.pages = indexes.ctypes.data_as(ctypes.POINTER(ctypes.c_int64))
        return cls(struct, (plan, indexes))


def _on(device: int, stream: int = _NO_STREAM) -> _abi.DeviceMemory:
    struct = _abi.DeviceMemory()
    struct.device = device
    if device != HOST:
        struct.stream = stream or current_stream(device)
    return struct


class PagedPlan:
    """An engine's paged K/V memory, described once: a base address and byte strides per (layer, K
    or V).

    `planes` has `spec.planes` entries in the order [layer][K, V] (MLA: [layer]), each `(address,
    page_stride, head_stride, token_stride)` in bytes; `page_tokens` divides `spec.block_tokens`.
    Any paged layout is such strides: separate or packed K and V, NHD or HND, one tensor per layer
    or one for all. Pass the tensors as `owners` to keep them alive as long as the plan; `plane()`
    derives an entry from a tensor. Planes that `plane()` took from a CUDA tensor are on its device;
    name `device` (its index) for addresses of your own. Usable from one thread at a time; may be
    used for any number of operations at once.
    """

    def __init__(
        self,
        client: Client,
        spec: CacheSpec,
        planes: Iterable[tuple[int, int, int, int]],
        page_tokens: int,
        *,
        owners: object = None,
        device: int | None = None,
    ) -> None:
        planes = list(planes)
        found = _one_device((getattr(plane, "device", HOST) for plane in planes), "planes")
        self.device = found if device is None else device
        if found not in (HOST, self.device):
            raise ValueError(f"device = {device}: the planes are on GPU {found}")
        if self.device != HOST:
            require_gpu(self.device)
        rows = [_abi.Plane(*(int(value) for value in plane)) for plane in planes]
        if len(rows) != spec.planes:
            raise ValueError(
                f"{len(rows)} planes for a spec of {spec.layers} layers ({spec.attention}): "
                f"{spec.planes} are needed"
            )
        if page_tokens <= 0 or spec.block_tokens % page_tokens:
            raise ValueError(
                f"page_tokens = {page_tokens}: must divide block_tokens = {spec.block_tokens}"
            )
        self.spec = spec
        self.page_tokens = page_tokens
        self._client = client
        self._owners = owners
        with client._call():
            self._handle = client._open_plan(spec, rows, page_tokens, self.device)
            client._adopt(self)

    @property
    def handle(self) -> int:
        """The ABI's handle. Raises ValueError after `close`."""
        if not self._handle:
            raise ValueError("this PagedPlan is closed")
        return self._handle

    @property
    def pages_per_block(self) -> int:
        """Engine pages in one block."""
        return self.spec.block_tokens // self.page_tokens

    def check_pages(self, pages: PagesLike, count: int) -> npt.NDArray[np.int64]:
        """The page indexes of `count` blocks, checked. Raises ValueError for any other number."""
        indexes = np.asarray(pages)
        if indexes.size and indexes.dtype.kind not in "iu":
            raise ValueError(f"pages are {indexes.dtype}: integers are taken")
        if indexes.size != count * self.pages_per_block:
            raise ValueError(
                f"{indexes.size} pages for {count} blocks of {self.pages_per_block} pages each"
            )
        if indexes.size and int(indexes.min()) < 0:
            raise ValueError(f"page {int(indexes.min())}: must not be negative")
        return np.ascontiguousarray(indexes, np.int64).reshape(-1)

    def close(self) -> None:
        """Frees the plan. Operations that use it must be done."""
        handle, self._handle = self._handle, 0
        if handle and self._client._usable():
            _abi.library().reprise_plan_free(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            self.close()


def plane(tensor: Any, *, page: int, token: int, head: int | None = None) -> Plane:
    """The plane of a numpy array or torch tensor (host memory or CUDA) whose axes are pages,
    tokens, heads, elements.

    `page`, `token` and `head` are axis numbers (`head` None: one head or a latent); one axis more,
    the elements of a row, must be contiguous. Index packed tensors first: `plane(kv[0], page=0,
    token=1, head=2)`.
    """
    device = HOST
    if _is_tensor(tensor):
        device = _device_of_tensor(tensor)
        address, scale = tensor.data_ptr(), tensor.element_size()
        strides = [stride * scale for stride in tensor.stride()]
        element_bytes = scale
    elif isinstance(tensor, np.ndarray):
        address, strides, element_bytes = tensor.ctypes.data, list(tensor.strides), tensor.itemsize
    else:
        raise TypeError(f"{type(tensor).__name__} is neither a numpy array nor a torch tensor")
    axes = len(strides)
    named = [axis % axes for axis in (page, token, head) if axis is not None]
    rest = [axis for axis in range(axes) if axis not in named]
    if len(set(named)) != len(named) or len(rest) != 1:
        raise ValueError(
            f"axes page={page}, token={token}, head={head} of a tensor with {axes}: "
            "each must be another one, and exactly one, the elements of a row, must remain"
        )
    if tensor.shape[rest[0]] > 1 and strides[rest[0]] != element_bytes:
        raise ValueError(f"axis {rest[0]}, the elements of a row, is not contiguous")
    made = Plane(address, strides[page], 0 if head is None else strides[head], strides[token])
    return made if device == HOST else DevicePlane.on(made, device)
