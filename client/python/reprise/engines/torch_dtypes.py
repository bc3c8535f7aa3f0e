"""Element types of K/V tensors, by the names that torch gives them."""

from __future__ import annotations

from typing import Any

NAMES = {
    "torch.float32": "f32",
    "torch.float16": "f16",
    "torch.bfloat16": "bf16",
    "torch.float8_e4m3fn": "f8_e4m3",
    "torch.float8_e5m2": "f8_e5m2",
    "torch.uint8": "i8",
    "torch.int8": "i8",
}


def dtype_of(torch_dtype: Any) -> str:
    """The cache spec's name of a torch dtype; "i8" for one that is bytes to us."""
    return NAMES.get(str(torch_dtype), "i8")
