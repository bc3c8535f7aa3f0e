"""How much memory is worth having: from a trace beforehand, and from a cluster that runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster

Prompt = Callable[[int], np.ndarray]
Start = Callable[..., Cluster]

USAGE, NOT_FOUND, UNREACHABLE = 2, 3, 4
TOKEN_BYTES = 1024
BLOCK_TOKENS = 512
SHAPE = ["--bytes-per-token", str(TOKEN_BYTES)]


def size(binaries: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [binaries / "reprise", "size", *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two conversations in turns, ten turns each: every prompt is the one before and a block."""
    file = tmp_path / "trace.jsonl"
    with file.open("w") as out:
        for turn in range(1, 11):
            for first in (1000, 2000):
                ids = [0, *range(first, first + turn)]
                out.write(json.dumps({"timestamp": turn * 5000, "hash_ids": ids}) + "\n")
    return file


def blocks_memory(blocks: int) -> str:
    return str(blocks * BLOCK_TOKENS * TOKEN_BYTES)


def test_a_trace_says_what_each_size_would_serve(binaries: Path, trace: Path) -> None:
    sizes = [blocks_memory(count) for count in (4, 21)]
    answer = size(binaries, "--trace", str(trace), *SHAPE, "--replication", "1", "-o", "json",
                  "--memory", sizes[0], "--memory", sizes[1], "--price-per-million-tokens", "2")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["requests"], told["blocks"], told["distinct_blocks"]) == (20, 130, 21)
    assert told["block_bytes"] == BLOCK_TOKENS * TOKEN_BYTES
    # All but what is new: the shared block once, and a block each turn.
    served = (130 - 21) / 130
    assert told["unbounded"]["served"] == pytest.approx(served)
    small, all_of_it = told["sizes"]
    assert 0 < small["served"] < served and small["served"] >= small["lru_served"]
    assert all_of_it["served"] == all_of_it["lru_served"] == pytest.approx(served)
    assert all_of_it["saved_per_million_tokens"] == pytest.approx(2 * served)
    assert told["enough_memory_bytes"] == int(sizes[1])


def test_replicas_take_their_share_of_the_memory(binaries: Path, trace: Path) -> None:
    def served(copies: int, blocks: int) -> list[float]:
        answer = size(binaries, "--trace", str(trace), *SHAPE, "--memory", blocks_memory(blocks),
                      "--replication", str(copies), "-o", "json")
        return [row["hit_tokens"] for row in json.loads(answer.stdout)["sizes"]]

    assert served(1, 6) == served(2, 12) == served(3, 18) != served(2, 6)


def test_a_trace_in_words_begins_with_what_it_is_and_ends_with_what_is_enough(
    binaries: Path, trace: Path
) -> None:
    answer = size(binaries, "--trace", str(trace), "--layers", "2", "--kv-heads", "2",
                  "--head-dim", "64", "--dtype", "bf16")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert "trace.jsonl: 20 requests, 66560 prompt tokens" in lines[0]
    assert "83.8 %" in lines[0]
    assert len([line for line in lines if line.count("%") == 2 and "iB" in line]) == 8
    assert "one pooled cache" in answer.stdout and "2 copies" in answer.stdout
    assert "is the smallest of these sizes" in lines[-1] and "MiB" in lines[-1]


def test_a_codec_makes_blocks_smaller(binaries: Path, trace: Path) -> None:
    def block_bytes(*arguments: str) -> int:
        answer = size(binaries, "--trace", str(trace), "--layers", "2", "-o", "json", *arguments)
        assert answer.returncode == 0, answer.stderr
        bytes_: int = json.loads(answer.stdout)["block_bytes"]
        return bytes_

    gqa = ["--kv-heads", "2", "--head-dim", "64"]
    assert block_bytes(*gqa) == 2 * 2 * 2 * 64 * 2 * BLOCK_TOKENS
    assert 0.5 <= block_bytes(*gqa, "--codec", "int8") / block_bytes(*gqa) < 0.55
    assert block_bytes("--mla-latent", "576") == 2 * 576 * 2 * BLOCK_TOKENS


def test_prompts_that_somebody_logged_are_cut_into_blocks(binaries: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(
        json.dumps({"token_ids": [*range(40), turn, *range(10)]}) + "\n" for turn in range(3)))
    answer = size(binaries, "--trace", str(file), *SHAPE, "--block-tokens", "16", "-o", "json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["prompt_tokens"], told["blocks"], told["distinct_blocks"]) == (153, 9, 5)
    assert told["unbounded"]["hit_tokens"] == 2 * 32


@pytest.mark.parametrize(("arguments", "code", "named"), [
    (["--trace", "BAD", *SHAPE], USAGE, "BAD:2: hash_ids[1] is -4"),
    (["--trace", "/nowhere/trace", *SHAPE], NOT_FOUND, "/nowhere/trace"),
    (["--trace", "TRACE"], USAGE, "--bytes-per-token"),
    (["--trace", "TRACE", "--layers", "3"], USAGE, "--head-dim"),
    (["--trace", "TRACE", *SHAPE, "--codec", "int8"], USAGE, "--codec"),
    (["--trace", "TRACE", "--layers", "3", "--mla-latent", "64", "--kv-heads", "2"], USAGE,
     "--mla-latent"),
    (["--trace", "TRACE", "--layers", "3", "--kv-heads", "1", "--head-dim", "64", "--dtype", "f4"],
     USAGE, "f4"),
    (["--trace", "TRACE", "--layers", "3", "--kv-heads", "1", "--head-dim", "64", "--codec", "zip"],
     USAGE, "zip"),
    (["--trace", "TRACE", *SHAPE, "--memory", "much"], USAGE, "--memory"),
    (["--trace", "TRACE", *SHAPE, "--replication", "0"], USAGE, "--replication"),
    (["--trace", "TRACE", *SHAPE, "--price-per-million-tokens", "1",
      "--cached-price-per-million-tokens", "2"], USAGE, "saves nothing"),
    (["--trace", "TRACE", *SHAPE, "--everything"], USAGE, "--everything"),
    ([], USAGE, "REPRISE_ROUTER"),
    (["--memory", "1GiB"], USAGE, "--memory"),
    (["--shard", "127.0.0.1:1", "--timeout", "1"], UNREACHABLE, "127.0.0.1:1"),
])
def test_what_is_wrong_is_named(
    binaries: Path, trace: Path, tmp_path: Path, arguments: list[str], code: int, named: str
) -> None:
    bad = tmp_path / "BAD"
    bad.write_text('{"hash_ids": [1]}\n{"hash_ids": [1, -4]}\n')
    files = {"BAD": str(bad), "TRACE": str(trace)}
    answer = size(binaries, *(files.get(argument, argument) for argument in arguments))
    assert answer.returncode == code, answer.stderr
    assert named in answer.stderr and not answer.stdout
    assert len(answer.stderr.splitlines()) <= 3, "a sentence, not a page"


def sizing_of(binaries: Path, cluster: Cluster) -> dict[str, Any]:
    answer = size(binaries, "--router", cluster.router, "-o", "json")
    assert answer.returncode == 0, answer.stderr
    told: dict[str, Any] = json.loads(answer.stdout)
    return told


def test_a_cluster_says_what_more_memory_would_serve(
    own_cluster: Start, binaries: Path, prompt: Prompt
) -> None:
    cluster = own_cluster(shards=2, replication=1, dram="64MiB")
    told = sizing_of(binaries, cluster)
    assert (told["asked_tokens"], told["meaningful"]) == (0, False)
    assert "Nothing was asked for yet" in told["advice"]

    spec = make_spec()
    tokens = prompt(64 * spec.block_tokens)
    keys = reprise.block_keys(tokens, spec.block_tokens)
    with reprise.Client(router=cluster.router) as client:
        client.store(spec, keys, random_blocks(spec, len(keys)), tokens=tokens, session="size")
        for _ in range(2):
            with client.acquire(spec, keys, session="size") as run:
                assert run.blocks == len(keys)
    told = sizing_of(binaries, cluster)
    assert told["asked_tokens"] >= 2 * len(tokens)
    assert told["measured_hit_tokens"] >= 2 * len(tokens)
    assert told["capacity_bytes"] == 2 * (64 << 20) and told["shards"] == 2
    (now,) = [point for point in told["points"] if point["of_capacity"] == pytest.approx(1)]
    assert 0 < now["hit_tokens"] <= told["asked_tokens"]
    assert now["memory_bytes"] == told["capacity_bytes"]
    hits = [point["hit_tokens"] for point in told["points"]]
    assert hits == sorted(hits) and told["points"][-1]["of_capacity"] == pytest.approx(16)
    assert not told["meaningful"] and "does not mean anything" in told["advice"]

    text = size(binaries, "--router", cluster.router).stdout
    assert "LRU WOULD SERVE" in text and "x 1 " in text and "Served so far" in text


def test_a_cluster_that_was_asked_for_much_gets_advice(
    own_cluster: Start, binaries: Path, prompt: Prompt
) -> None:
    cluster = own_cluster(shards=1, replication=1, dram="64MiB")
    spec = make_spec()
    tokens = prompt(256 * spec.block_tokens)
    keys = reprise.block_keys(tokens, spec.block_tokens)
    with reprise.Client(router=cluster.router) as client:
        client.store(spec, keys, random_blocks(spec, len(keys)), tokens=tokens, session="size")
        for _ in range(8):
            client.acquire(spec, keys, session="size").release()
    told = sizing_of(binaries, cluster)
    assert told["meaningful"]
    assert "of the memory" in told["advice"] and "of the prompt tokens" in told["advice"]


def test_a_shard_that_does_not_answer_is_named(binaries: Path, cluster: Cluster) -> None:
    described = json.loads(subprocess.run(
        [binaries / "reprise", "describe", "--router", cluster.router, "-o", "json"],
        check=True, capture_output=True, text=True).stdout)
    alive = described["shards"][0]["address"]
    answer = size(binaries, "--shard", alive, "--shard", "127.0.0.1:1", "--timeout", "2",
                  "-o", "json")
    assert answer.returncode == 0
    assert "127.0.0.1:1" in answer.stderr
    told = json.loads(answer.stdout)
    assert told["shards"] == 1 and told["silent"] == ["127.0.0.1:1"]
