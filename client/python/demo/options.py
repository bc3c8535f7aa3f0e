"""The command line of the demo."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """What to run, and with what."""

    engine: str  # "transformers" or "vllm"
    model: str | None  # folder or hub name; None: fixed-seed weights made on the spot
    json: bool
    size: str  # of the made model and document: a name in demo.model.SHAPES
    device: str  # of the model: "cpu" or "cuda"
    turns: int
    shards: int
    dram: str  # host memory of each shard
    hbm: str | None  # device memory of each shard; None: shards without a GPU
    answer_tokens: int  # of each answer
    binaries: Path  # folder with reprise, reprise-shard and reprise-router


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Reads the command line; exits with a sentence when it cannot be run."""
    parser = argparse.ArgumentParser(
        prog="demo", description="A conversation survives the death of its worker and of its shard."
    )
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument(
        "--model", help="folder or hub name of a real decoder (default: made on the spot)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object and nothing else"
    )
    parser.add_argument(
        "--size", choices=("full", "small", "smollm2-1.7b"), default="full", help="of what is made"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the model")
    parser.add_argument("--turns", type=int, default=4, help="of the conversation, 2 to 4")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--dram", default="256MiB", help="host memory of each shard")
    parser.add_argument("--hbm", help="device memory of each shard (default: none)")
    parser.add_argument("--answer-tokens", type=int, default=12, help="tokens of each answer")
    parser.add_argument(
        "--binaries", type=Path, help="folder with the executables (default: $REPRISE_BIN)"
    )
    given = parser.parse_args(arguments)
    if given.shards < 2:
        parser.error(f"--shards {given.shards}: one shard is killed, so at least 2 are needed")
    if not 2 <= given.turns <= 4:
        parser.error(f"--turns {given.turns}: the last one is worker B's, so 2 to 4")
    if given.answer_tokens < 1:
        parser.error(f"--answer-tokens {given.answer_tokens}: at least 1 is needed")
    binaries = given.binaries or _find_binaries()
    if binaries is None or not (binaries / "reprise").exists():
        parser.error("no executables: set REPRISE_BIN or --binaries to the folder with `reprise`")
    return Options(
        engine=given.engine,
        model=given.model,
        json=given.json,
        size=given.size,
        device=given.device,
        turns=given.turns,
        shards=given.shards,
        dram=given.dram,
        hbm=given.hbm,
        answer_tokens=given.answer_tokens,
        binaries=binaries,
    )


def _find_binaries() -> Path | None:
    chosen = os.environ.get("REPRISE_BIN")
    if chosen:
        return Path(chosen)
    found = shutil.which("reprise")
    return Path(found).parent if found else None
