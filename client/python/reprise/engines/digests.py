"""What K/V depends on besides the tokens, as an engine's launch arguments name it: the checkpoint,
its weights, the position encoding, a LoRA adapter.

A local folder has no revision that a name could carry, and two folders of one name may hold other
weights: their digest reads the configuration whole and samples every weights file evenly, which
finds any retraining and costs milliseconds, not the minutes of reading a large model again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".npz")
SAMPLES = 64
SAMPLE_BYTES = 4096
WHOLE_BYTES_MAX = 1 << 20  # smaller files are read whole


def _add(digest: Any, *parts: bytes) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)


def _add_file(digest: Any, path: pathlib.Path) -> None:
    size = path.stat().st_size
    _add(digest, path.name.encode(), str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE_BYTES_MAX:
            _add(digest, file.read())
            return
        for i in range(SAMPLES):
            file.seek((size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            _add(digest, file.read(SAMPLE_BYTES))


def folder_digest(
    folder: str | os.PathLike[str], extra_suffixes: Iterable[str] = (".json",)
) -> str:
    """Digest of a model or adapter folder (or of one file): its configuration and a sample of
    its weights.
    """
    root = pathlib.Path(folder)
    digest = hashlib.sha256(b"reprise model folder 1")
    if root.is_file():
        _add_file(digest, root)
        return digest.hexdigest()[:32]
    suffixes = (*WEIGHT_SUFFIXES, *extra_suffixes)
    for path in sorted(root.iterdir()):
        # Names that people edit without touching the weights (generation_config.json) are not K/V's
        # affair.
        if (
            path.is_file()
            and path.suffix in suffixes
            and not path.name.startswith(("generation_", "tokenizer"))
        ):
            _add_file(digest, path)
    return digest.hexdigest()[:32]


def value_digest(value: Any) -> str:
    """Digest of plain data (dicts, lists, numbers, text), independent of the order of dict
    members.
    """
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def checkpoint_identity(path: str, model: str = "", revision: str = "") -> tuple[str, str]:
    """(model, revision) of a checkpoint that an engine loads from `path`, a folder or a hub's name;
    `model` and `revision` are what the user calls it instead. Folders that hold the same weights
    are the same model wherever they lie.
    """
    if not os.path.exists(path):
        return model or path, revision
    name = model or os.path.basename(os.path.normpath(path))
    return name, revision or "weights " + folder_digest(path)


ROPE_PARAMETERS = (
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "rope_local_base_freq",
    "original_max_position_embeddings",
    "rotary_dim",
    "rotary_pct",
    "rope_interleave",
)


def rope_digest(hf_config: Any) -> str:
    """Digest of the position encoding's parameters, under all the names that models give them."""
    values = {name: getattr(hf_config, name, None) for name in ROPE_PARAMETERS}
    return value_digest({name: value for name, value in values.items() if value is not None})
