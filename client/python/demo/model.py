"""The decoder: a Llama with fixed-seed weights made on the spot, or one with real weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

SEED = 20260101

# Grouped-query attention; the full one prefills 1,000 tokens in about two seconds on two cores.
SHAPES: dict[str, dict[str, Any]] = {
    "full": dict(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=10,
        num_attention_heads=12, num_key_value_heads=4,
    ),
    "small": dict(
        hidden_size=128, intermediate_size=256, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2,
    ),
    # The published shape of SmolLM2-1.7B, for a GPU.
    "smollm2-1.7b": dict(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=24,
        num_attention_heads=32, num_key_value_heads=32, vocab_size=49152, rope_theta=130000.0,
    ),
}  # fmt: skip

# Wide enough that what is generated depends on the whole prompt: narrow weights repeat one token
# for ever.
INITIALIZER_RANGE = 0.08

#: Longest prompt with its answer, in tokens.
POSITIONS = 32_768


def dtype_on(device: str) -> torch.dtype:
    """What models compute in: fp32 on a CPU, bf16 on a GPU, as fleets do."""
    return torch.float32 if device == "cpu" else torch.bfloat16


@dataclass(frozen=True)
class Decoder:
    """A model on a device, and the tokenizer that goes with it."""

    model: Any
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]

    def describe(self) -> str:
        """One line for people."""
        config = self.model.config.get_text_config(decoder=True)
        parameters = sum(p.numel() for p in self.model.parameters())
        heads = f"{config.num_attention_heads} heads over {config.num_key_value_heads} K/V heads"
        return (
            f"{type(self.model).__name__}, {parameters / 1e6:.0f} M parameters, "
            f"{config.num_hidden_layers} layers, {heads}, "
            f"{str(self.model.dtype).removeprefix('torch.')} on {self.model.device}"
        )


def load(model: str | None, size: str, tokenizer: Path, device: str = "cpu") -> Decoder:
    """Real weights where `model` names some, else the made ones with the trained tokenizer."""
    if model is not None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype_on(device))
        loaded.to(device).eval()
        words: Any = AutoTokenizer.from_pretrained(model)
        return Decoder(
            loaded, lambda text: list(words.encode(text, add_special_tokens=False)), words.decode
        )
    from tokenizers import Tokenizer

    if device != "cpu":
        # cuDNN's attention plans anew for every length of the cache, which is every token.
        torch.backends.cuda.enable_cudnn_sdp(False)
    trained = Tokenizer.from_file(str(tokenizer))
    made = make(size, device, trained.get_vocab_size())
    return Decoder(made, lambda text: trained.encode(text).ids, trained.decode)


def make(size: str, device: str = "cpu", vocab_size: int = 2048) -> Any:
    """A Llama of that shape with fixed-seed weights, made where it is used."""
    shape = {"vocab_size": vocab_size, **SHAPES[size]}
    config = LlamaConfig(
        max_position_embeddings=POSITIONS, initializer_range=INITIALIZER_RANGE, **shape
    )
    torch.manual_seed(SEED)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype_on(device))
    try:
        with torch.device(device):
            made: Any = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(default)
    return made.eval()
