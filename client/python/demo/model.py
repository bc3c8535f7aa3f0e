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
}  # fmt: skip

# Wide enough that what is generated depends on the whole prompt: narrow weights repeat one token
# for ever.
INITIALIZER_RANGE = 0.08


@dataclass(frozen=True)
class Decoder:
    """A model in fp32 on the CPU, and the tokenizer that goes with it."""

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
            f"{config.num_hidden_layers} layers, {heads}, fp32"
        )


def load(model: str | None, size: str, tokenizer: Path) -> Decoder:
    """Real weights where `model` names some, else the made ones with the trained tokenizer."""
    if model is not None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        loaded.eval()
        words: Any = AutoTokenizer.from_pretrained(model)
        return Decoder(
            loaded, lambda text: list(words.encode(text, add_special_tokens=False)), words.decode
        )
    from tokenizers import Tokenizer

    trained = Tokenizer.from_file(str(tokenizer))
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=trained.get_vocab_size(),
        max_position_embeddings=8192,
        initializer_range=INITIALIZER_RANGE,
        **SHAPES[size],
    )
    made: Any = LlamaForCausalLM(config)
    made.eval()
    return Decoder(made, lambda text: trained.encode(text).ids, trained.decode)
