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
    size: str  # of the made model and document: "full" or "small"
    shards: int
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
    parser.add_argument("--size", choices=("full", "small"), default="full", help="of what is made")
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--answer-tokens", type=int, default=12, help="tokens of each answer")
    parser.add_argument(
        "--binaries", type=Path, help="folder with the executables (default: $REPRISE_BIN)"
    )
    given = parser.parse_args(arguments)
    if given.shards < 2:
        parser.error(f"--shards {given.shards}: one shard is killed, so at least 2 are needed")
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
        shards=given.shards,
        answer_tokens=given.answer_tokens,
        binaries=binaries,
    )


def _find_binaries() -> Path | None:
    chosen = os.environ.get("REPRISE_BIN")
    if chosen:
        return Path(chosen)
    found = shutil.which("reprise")
    return Path(found).parent if found else None
