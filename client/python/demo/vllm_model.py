"""A small Llama made on the spot: fixed-seed weights and a BPE tokenizer trained on text that this
machine has.

It answers nonsense, but always the same nonsense, and its attention matters: wrong K/V gives other
tokens.
"""

from __future__ import annotations

import json
import os
import pathlib

TEXT_FOLDERS = ("/usr/share/common-licenses", "/usr/share/doc/base-files")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def local_text() -> list[str]:
    """Long English texts that a Debian machine has, in a fixed order."""
    texts = []
    for folder in TEXT_FOLDERS:
        for path in sorted(pathlib.Path(folder).glob("*")) if os.path.isdir(folder) else []:
            if path.is_file() and path.stat().st_size < 1 << 20:
                texts.append(path.read_text(encoding="utf-8", errors="ignore"))
    if not texts:
        texts.append(
            " ".join(f"sentence {i} of a text that stands in for a licence." for i in range(5000))
        )
    return texts


def make_model(
    folder: str | os.PathLike[str],
    *,
    seed: int = 0,
    layers: int = 4,
    width: int = 256,
    heads: int = 4,
    kv_heads: int = 2,
    window: int | None = None,
    positions: int = 8192,
) -> pathlib.Path:
    """Writes a model folder that vLLM and Transformers load; returns it. The same arguments give
    the same weights.

    With a `window` it is a Gemma 3 whose layers take turns: sliding window, full attention.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging as progress

    progress.disable_progress_bar()
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        local_text(),
        trainers.BpeTrainer(
            vocab_size=2048,
            special_tokens=SPECIAL_TOKENS,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|end|>",
                "clean_up_tokenization_spaces": False,
                "chat_template": CHAT_TEMPLATE,
            }
        )
    )

    common = dict(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        initializer_range=0.08,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    if window is None:
        model = LlamaForCausalLM(LlamaConfig(**common))
    else:
        kinds = [("sliding_attention", "full_attention")[i % 2] for i in range(layers)]
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(
                **common, head_dim=width // heads, sliding_window=window, layer_types=kinds
            )
        )
    model.save_pretrained(folder)
    return folder
