"""Caller memory: buffers, one per block, and an engine's paged tensors, as addresses for the C ABI.

A buffer is a numpy array, a torch tensor in host memory, or anything with Python's buffer protocol
(bytearray, memoryview, mmap). Nothing is copied: the library reads and writes the buffer itself,
and what is returned here keeps the buffer's owner alive. torch is never imported: a tensor is known
by its methods.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from reprise import _abi

if TYPE_CHECKING:
    from reprise.client import Client
    from reprise.spec import CacheSpec

#: One buffer per block, or one contiguous array or tensor whose first axis is the blocks.
BuffersLike: TypeAlias = Any
#: Page indexes: `block_tokens // page_tokens` per block, in token order; any integer shape, read in
#: C order.
PagesLike: TypeAlias = Any


@dataclass(frozen=True)
class Span:
    """A contiguous range of host memory, alive while `owner` is."""

    address: int
    nbytes: int
    owner: object


class Plane(NamedTuple):
    """One (layer, K or V) of an engine's paged memory; strides in bytes between neighbours."""

    address: int  # of element [page 0][head 0][token 0][0]
    page_stride: int
    head_stride: int
    token_stride: int


def readable(buffer: Any) -> Span:
    """The span of a contiguous buffer in host memory. Raises TypeError or ValueError."""
    return _span(buffer, writable=False)


def writable(buffer: Any) -> Span:
    """The same for a buffer that may be written."""
    return _span(buffer, writable=True)


def _span(buffer: Any, *, writable: bool) -> Span:
    if _is_tensor(buffer):
        _require_host(buffer)
        if not buffer.is_contiguous():
            raise ValueError(
                f"tensor of shape {tuple(buffer.shape)} is not contiguous: "
                "pass one that is, or a PagedPlan"
            )
        return Span(buffer.data_ptr(), buffer.numel() * buffer.element_size(), buffer)
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
            f"{type(buffer).__name__} is no buffer: pass a numpy array, a torch tensor in "
            "host memory, or an object with the buffer protocol"
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


def _require_host(tensor: Any) -> None:
    device = getattr(tensor.device, "type", str(tensor.device))
    if device != "cpu":
        raise ValueError(
            f"tensor is on {tensor.device}: move it to host memory (tensor.cpu()) first"
        )


@dataclass(frozen=True)
class BlockBuffers:
    """One address per block, checked, with what must stay alive while the library uses them."""

    addresses: npt.NDArray[np.uintp]
    owner: object

    @classmethod
    def of(
        cls, buffers: BuffersLike, block_bytes: int, count: int, *, writable: bool
    ) -> BlockBuffers:
        """Checks `count` buffers of `block_bytes` each. Raises TypeError or ValueError."""
        if _is_tensor(buffers) or isinstance(buffers, np.ndarray):
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
        return cls(addresses, spans)

    @classmethod
    def _rows(cls, array: Any, block_bytes: int, count: int, *, writable: bool) -> BlockBuffers:
        span = _span(array, writable=writable)
        if len(array.shape) < 2 or array.shape[0] != count or span.nbytes != count * block_bytes:
            raise ValueError(
                f"array of shape {tuple(array.shape)}, {span.nbytes} bytes, for {count} blocks of "
                f"{block_bytes} bytes: the first axis must be the blocks"
            )
        addresses = span.address + np.arange(count, dtype=np.uintp) * np.uintp(block_bytes)
        return cls(addresses.astype(np.uintp), span)


class Loan:
    """A `reprise_memory` and everything that it points to, for the time of one operation."""

    def __init__(self, struct: _abi.Memory, keep: tuple[object, ...]) -> None:
        self.struct = struct
        self._keep = keep

    @classmethod
    def of_buffers(cls, buffers: BlockBuffers) -> Loan:
        """Lends one buffer per block."""
        struct = _abi.Memory()
        struct.buffers = buffers.addresses.ctypes.data_as(ctypes.POINTER(ctypes.c_void_p))
        return cls(struct, (buffers,))

    @classmethod
    def of_pages(cls, plan: PagedPlan, pages: PagesLike, count: int) -> Loan:
        """Lends `count` blocks of paged memory. Raises ValueError for a wrong number of pages."""
        indexes = plan.check_pages(pages, count)
        struct = _abi.Memory()
        struct.plan = plan.handle
        struct.pages = indexes.ctypes.data_as(ctypes.POINTER(ctypes.c_int64))
        return cls(struct, (plan, indexes))


class PagedPlan:
    """An engine's paged K/V memory, described once: a base address and byte strides per (layer, K
    or V).

    `planes` has `spec.planes` entries in the order [layer][K, V] (MLA: [layer]), each `(address,
    page_stride, head_stride, token_stride)` in bytes; `page_tokens` divides `spec.block_tokens`.
    Any paged layout is such strides: separate or packed K and V, NHD or HND, one tensor per layer
    or one for all. Pass the tensors as `owners` to keep them alive as long as the plan; `plane()`
    derives an entry from a tensor. Usable from one thread at a time; may be used for any number of
    operations at once.
    """

    def __init__(
        self,
        client: Client,
        spec: CacheSpec,
        planes: Iterable[tuple[int, int, int, int]],
        page_tokens: int,
        *,
        owners: object = None,
    ) -> None:
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
        self._handle = client._open_plan(spec, rows, page_tokens)
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
    """The plane of a numpy array or torch tensor in host memory whose axes are pages, tokens,
    heads, elements.

    `page`, `token` and `head` are axis numbers (`head` None: one head or a latent); one axis more,
    the elements of a row, must be contiguous. Index packed tensors first: `plane(kv[0], page=0,
    token=1, head=2)`.
    """
    if _is_tensor(tensor):
        _require_host(tensor)
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
    return Plane(address, strides[page], 0 if head is None else strides[head], strides[token])
