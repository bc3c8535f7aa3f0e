"""K/V that lies on a device. Where the library reaches the device, plans move it there, in the
order that `DeviceOrder` keeps; on any other, `Stager` gathers it into host blocks of the canonical
layout and scatters it back.

Tensors in host memory need neither. What is moved is moved on a stream of its own behind the step
that wrote the blocks, so that it costs the model no time.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
from typing import Any

from reprise.memory import gpu_count

from .spec_from_engine import Part, Planes

ROW_ALIGNMENT = 16


def plan_device(owners: Any) -> int | None:
    """The GPU whose memory holds all of `owners`, where the library can use it; else None."""
    devices = {tensor.device for tensor in owners}
    if {device.type for device in devices} != {"cuda"} or len(devices) != 1:
        return None
    index = int(next(iter(devices)).index or 0)
    return index if index < gpu_count() else None


class DeviceOrder:
    """Puts transfers behind what the engine has submitted. Thread-safe."""

    def __init__(self, device: int) -> None:
        import torch

        self._torch = torch
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def behind_engine(self) -> None:
        """Transfers that begin from now on wait for what the calling thread's stream was given.
        Never waits itself.
        """
        self._stream.wait_stream(self._torch.cuda.current_stream(self._device))

    def stream(self) -> Any:
        """A context in which calls of the client wait for that, and for nothing newer."""
        return self._torch.cuda.stream(self._stream)


class Stager:
    """Moves blocks of one part between paged tensors and one host array. One thread at a time."""

    def __init__(self, part: Part, planes: Planes) -> None:
        import torch

        self._torch = torch
        self.part = part
        self._tensors = planes.owners
        spec = part.spec
        self._views = [view for tensor in planes.owners for view in self._plane_views(tensor)]
        first = self._views[0]
        row = first.shape[-1] * first.element_size()
        if row % ROW_ALIGNMENT:
            raise ValueError(
                f"rows of {row} bytes are padded in blocks; on a device they must be multiples of "
                f"{ROW_ALIGNMENT} bytes"
            )
        self._block_shape = (
            len(self._views),
            first.shape[1],
            part.pages_per_block * first.shape[2],
            first.shape[3],
        )
        self._block_bytes = spec.block_bytes
        self._device = first.device
        self._stream = torch.cuda.Stream(self._device) if first.is_cuda else None

    def _plane_views(self, tensor: Any) -> list[Any]:
        """[page, head, token, row] views of a layer's planes."""
        spec = self.part.spec
        pages, heads, tokens, content = tensor.shape
        if spec.attention == "mla":
            return [
                tensor.view(self._torch.int8).reshape(
                    pages, 1, self.part.page_tokens, spec.head_dim
                )
            ]
        if "split" in spec.engine_layout:
            halves = tensor.view(pages, heads, 2, tokens, spec.head_dim)
            return [halves[:, :, 0], halves[:, :, 1]]
        return [tensor[..., : spec.head_dim], tensor[..., spec.head_dim :]]

    def buffers(self, blocks: int) -> Any:
        """A host array of that many blocks, pinned where a device copies it."""
        return self._torch.empty(
            (blocks, self._block_bytes),
            dtype=self._torch.uint8,
            pin_memory=self._stream is not None,
        )

    def after(self) -> Any:
        """A mark behind everything that the engine has submitted; None in host memory."""
        if self._stream is None:
            return None
        event = self._torch.cuda.Event()
        event.record(self._torch.cuda.current_stream(self._device))
        return event

    def gather(self, pages: Any, out: Any, after: Any) -> None:
        """Fills `out` (see buffers) from `pages` and waits until it is there."""
        blocks = self._shaped(out)
        index = self._torch.as_tensor(pages, dtype=self._torch.long, device=self._device)
        with self._on_stream(after):
            for number, view in enumerate(self._views):
                got = view.index_select(0, index)  # [block * page, head, token, row]
                got = (
                    got.unflatten(0, (-1, self.part.pages_per_block)).transpose(1, 2).flatten(2, 3)
                )
                blocks[:, number].copy_(got, non_blocking=True)
        self._finish()

    def scatter(self, pages: Any, blocks_in: Any) -> None:
        """Writes host blocks into `pages` and waits until the device has them."""
        blocks = self._shaped(blocks_in)
        index = self._torch.as_tensor(pages, dtype=self._torch.long, device=self._device)
        with self._on_stream(None):
            for number, view in enumerate(self._views):
                data = blocks[:, number].to(self._device, non_blocking=True)
                data = (
                    data.unflatten(2, (self.part.pages_per_block, -1)).transpose(1, 2).flatten(0, 1)
                )
                view.index_copy_(0, index, data)
        self._finish()

    def _shaped(self, host: Any) -> Any:
        return host.view(self._views[0].dtype).view(host.shape[0], *self._block_shape)

    def _on_stream(self, after: Any) -> Any:
        if self._stream is None:
            return contextlib.nullcontext()
        if after is not None:
            self._stream.wait_event(after)
        return self._torch.cuda.stream(self._stream)

    def _finish(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()
