"""What makes a Transformers model this one and no other: its configuration, every weight, its
position encoding and its adapters, as digests for the cache spec.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from transformers import PreTrainedModel

from reprise.keys import checksum

# Members of a config that do not change a key or a value.
_VOLATILE_CONFIG = frozenset(
    {
        "architectures", "bos_token_id", "chunk_size_feed_forward", "dtype", "eos_token_id",
        "id2label", "label2id", "output_attentions", "output_hidden_states", "pad_token_id",
        "problem_type", "return_dict", "sep_token_id", "torch_dtype", "transformers_version",
        "use_cache",
    }
)  # fmt: skip


def active_adapters(model: Any) -> tuple[str, ...]:
    """Names of the LoRA (PEFT) adapters that the model computes with; none for most models."""
    if not getattr(model, "_hf_peft_config_loaded", False) and not hasattr(model, "peft_config"):
        return ()
    active = model.active_adapters
    names = active() if callable(active) else active
    return tuple([names] if isinstance(names, str) else names)


def model_digest(model: PreTrainedModel) -> str:
    """64 hex digits over the configuration and every weight of a model, each byte of them.

    Raises ValueError where a weight is not loaded (offloaded to a meta device): pass `revision`
    then.
    """
    config = {
        name: value
        for name, value in model.config.to_dict().items()
        if not name.startswith("_") and name not in _VOLATILE_CONFIG
    }
    digest = hashlib.sha256(digest_of(config).encode())
    known: dict[tuple[Any, ...], str] = {}
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.device.type == "meta":
            raise ValueError(f"weight {name} is on the meta device: pass revision= to PrefixCache")
        place = (
            tensor.device,
            tensor.data_ptr(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
        )
        if place not in known:
            host = tensor.detach().cpu().contiguous()
            size = host.numel() * host.element_size()
            known[place] = checksum(host, size).hex() if size else ""
        row = [name, str(tensor.dtype), list(tensor.shape), known[place]]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """64 hex digits of anything that JSON can say."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _rope_parameters(config: Any) -> Any:
    text = config.get_text_config(decoder=True)
    return getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}


def rope_types(config: Any) -> set[str]:
    """Names of the position encodings that the configuration asks for."""
    parameters = _rope_parameters(config)
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    rows = [parameters, *nested]
    return {str(row.get("rope_type", row.get("type", "default"))) for row in rows}


def rope_digest(model: PreTrainedModel) -> str:
    """Digest of the position encoding's parameters."""
    text: Any = model.config.get_text_config(decoder=True)
    longest = getattr(text, "max_position_embeddings", None)
    return digest_of([_rope_parameters(model.config), longest])
