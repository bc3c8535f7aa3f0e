"""Hints against real shards, by the Python client and by `reprise hint`."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reprise
from conftest import random_blocks
from demo.cluster import Cluster

Prompt = Callable[[int], np.ndarray]

USAGE, NOT_FOUND, UNREACHABLE = 2, 3, 4
BLOCKS = 6


@pytest.fixture(scope="module")
def cluster(binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Without copies: while one is made, its blocks are in use and cannot be let go."""
    log = tmp_path_factory.mktemp("hints") / "log"
    with Cluster(binaries, shards=3, dram="64MiB", replication=1, log=log) as running:
        yield running


@pytest.fixture
def stored(client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt) -> np.ndarray:
    """Tokens of BLOCKS blocks that are stored."""
    tokens = prompt(BLOCKS * spec.block_tokens)
    keys = reprise.block_keys(tokens, spec.block_tokens)
    result = client.store(spec, keys, random_blocks(spec, BLOCKS), tokens=tokens)
    assert result.stored == BLOCKS, result.error
    return tokens


def test_a_claim_holds_what_is_stored_and_ends_with_its_release(
    client: reprise.Client, spec: reprise.CacheSpec, stored: np.ndarray
) -> None:
    keys = reprise.block_keys(stored, spec.block_tokens)
    retained = client.hint(spec, keys, reprise.Retain("mine", ttl=60, priority=70))
    assert (retained.outcome, retained.blocks) == ("applied", BLOCKS), retained
    assert retained.error is None and retained.shards >= 1 and retained.ttl == 60
    pinned = client.hint(spec, keys, reprise.Pin("mine", ttl=60))  # takes the name's place
    assert (pinned.outcome, pinned.blocks) == ("applied", BLOCKS), pinned
    kept = client.hint(spec, keys, reprise.Evict())
    assert (kept.outcome, kept.blocks) == ("clipped", 0) and "claim" in kept.why
    released = client.hint(spec, None, reprise.Release("mine"))
    assert (released.outcome, released.blocks) == ("applied", BLOCKS), released
    again = client.hint(spec, None, reprise.Release("mine"))
    assert again.outcome == "missing" and "mine" in again.why and again.error is None


def test_a_claim_takes_what_is_stored_later(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    tokens = prompt(BLOCKS * spec.block_tokens)
    keys = reprise.block_keys(tokens, spec.block_tokens)
    early = client.hint(spec, keys, reprise.Retain("early", ttl=60))
    assert (early.outcome, early.blocks) == ("deferred", 0) and early.why
    assert client.store(spec, keys, random_blocks(spec, BLOCKS)).stored == BLOCKS
    assert client.hint(spec, keys, reprise.Release("early")).blocks == BLOCKS


def test_what_is_evicted_is_gone_from_the_block_that_was_named(
    client: reprise.Client, spec: reprise.CacheSpec, stored: np.ndarray
) -> None:
    keys = reprise.block_keys(stored, spec.block_tokens)
    evicted = client.hint(spec, keys, reprise.Evict(first_block=4))
    assert evicted.outcome == "applied" and evicted.blocks == BLOCKS - 4, evicted
    with client.acquire(spec, keys) as run:
        assert run.blocks == 4
    nothing = client.hint(spec, keys, reprise.Evict(first_block=4))
    assert nothing.outcome == "missing" and nothing.why


def test_misuse_raises_and_hints_are_counted(
    client: reprise.Client, spec: reprise.CacheSpec, stored: np.ndarray
) -> None:
    keys = reprise.block_keys(stored, spec.block_tokens)
    with pytest.raises(reprise.RepriseError, match="first_block"):
        client.hint(spec, keys, reprise.Evict(first_block=BLOCKS))
    with pytest.raises(reprise.RepriseError, match="keys"):
        client.hint(spec, None, reprise.Pin("mine", ttl=1))
    before = client.stats()["hints"]
    operation = client.hint_async(spec, keys, reprise.Demote())
    answer = operation.result(timeout=10.0)
    assert answer.outcome == "missing" and answer.error is None, "there is one tier alone"
    assert client.stats()["hints"] == before + 1


def test_a_cache_that_is_down_is_an_answer_with_an_error(spec: reprise.CacheSpec) -> None:
    keys = reprise.block_keys(list(range(32)), spec.block_tokens)
    with reprise.Client(router="127.0.0.1:9", timeout=1.0) as lonely:
        answer = lonely.hint(spec, keys, reprise.Pin("mine", ttl=1))
    assert answer.shards == 0
    assert answer.error is not None and answer.error.code_name == "UNAVAILABLE"


# ---- The command line

Answer = subprocess.CompletedProcess


def hint(binaries: Path, cluster: Cluster, *arguments: str) -> "Answer[str]":
    return subprocess.run(
        [binaries / "reprise", "hint", *arguments, "--router", cluster.router],
        capture_output=True, text=True)


def meant(spec: reprise.CacheSpec, tokens: Any) -> list[str]:
    return ["--fingerprint", spec.fingerprint.hex(), "--tokens", json.dumps(tokens.tolist())]


def test_people_keep_a_prompt_and_let_it_go(
    binaries: Path, cluster: Cluster, spec: reprise.CacheSpec, stored: np.ndarray
) -> None:
    prompt = meant(spec, stored)
    retained = hint(binaries, cluster, "retain", *prompt, "--claim", "mine", "--ttl", "10m")
    assert retained.returncode == 0, retained.stderr
    assert retained.stdout.count("\n") == 1
    for said in ('"mine"', f"{BLOCKS} blocks ({BLOCKS * spec.block_tokens} tokens)", "10 min"):
        assert said in retained.stdout
    fingerprint = prompt[:2]
    released = hint(
        binaries, cluster, "release", *fingerprint, "--claim", "mine", "-o", "json")
    assert released.returncode == 0, released.stderr
    told = json.loads(released.stdout)
    assert (told["verb"], told["outcome"], told["blocks"]) == ("release", "applied", BLOCKS)
    again = hint(binaries, cluster, "release", *fingerprint, "--claim", "mine")
    assert again.returncode == NOT_FOUND and "mine" in again.stderr and not again.stdout


def test_a_first_token_is_rounded_up_to_a_block_and_the_answer_says_so(
    binaries: Path, cluster: Cluster, spec: reprise.CacheSpec, stored: np.ndarray
) -> None:
    prompt = meant(spec, stored)
    first = 3 * spec.block_tokens + 1
    evicted = hint(binaries, cluster, "evict", *prompt, "--first-token", str(first))
    assert evicted.returncode == 0, evicted.stderr
    assert "2 blocks (32 tokens) dropped" in evicted.stdout
    assert "from token 64 on" in evicted.stdout and "rounded up" in evicted.stdout
    beyond = hint(binaries, cluster, "evict", *prompt, "--first-token", str(stored.size))
    assert beyond.returncode == USAGE and "--first-token" in beyond.stderr


@pytest.mark.parametrize(("arguments", "named"), [
    (["keep"], "keep"),
    (["retain", "--ttl", "10m", "--tokens", "[1]"], "--claim"),
    (["pin", "--claim", "c", "--tokens", "[1]"], "--ttl"),
    (["pin", "--claim", "c", "--ttl", "10", "--tokens", "TOKENS"], "--ttl"),
    (["pin", "--claim", "c", "--ttl", "-10s", "--tokens", "TOKENS"], "ttl"),
    (["retain", "--claim", "c", "--ttl", "1m", "--priority", "101", "--tokens", "TOKENS"],
     "priority"),
    (["pin", "--claim", "c", "--ttl", "1m", "--priority", "5", "--tokens", "[1]"], "--priority"),
    (["evict", "--claim", "c", "--tokens", "[1]"], "--claim"),
    (["release", "--claim", "c", "--first-token", "3"], "--first-token"),
    (["evict"], "--tokens"),
    (["evict", "--tokens", "[1]", "--keys", "00" * 32], "twice"),
])
def test_a_hint_that_makes_no_sense_is_told_by_name(
    binaries: Path, cluster: Cluster, spec: reprise.CacheSpec, arguments: list[str], named: str
) -> None:
    tokens = json.dumps(list(range(spec.block_tokens)))
    given = [tokens if argument == "TOKENS" else argument for argument in arguments]
    answer = hint(binaries, cluster, *given, "--spec", spec.to_json())
    assert answer.returncode == USAGE, answer.stderr
    assert named in answer.stderr and not answer.stdout


def test_nobody_there_is_told_by_the_exit_code(binaries: Path, spec: reprise.CacheSpec) -> None:
    answer = subprocess.run(
        [binaries / "reprise", "hint", "release", "--claim", "c", "--spec", spec.to_json(),
         "--router", "127.0.0.1:9", "--timeout", "1"],
        capture_output=True, text=True)
    assert answer.returncode == UNREACHABLE and answer.stderr and not answer.stdout


@pytest.mark.parametrize("claimed", [True, False], ids=["retained", "left to its turn"])
def test_a_conversation_that_waits_outlives_a_crowd_when_it_is_retained(
    own_cluster: Callable[..., Cluster], spec: reprise.CacheSpec, prompt: Prompt, claimed: bool
) -> None:
    cluster = own_cluster(shards=1, replication=1, dram="8MiB")
    room = 8 * 2**20 // spec.stored_bytes
    waits = reprise.block_keys(prompt(room // 8 * spec.block_tokens), spec.block_tokens)
    with reprise.Client(router=cluster.router) as client:
        assert client.store(spec, waits, random_blocks(spec, len(waits))).stored == len(waits)
        if claimed:
            kept = client.hint(spec, waits, reprise.Retain("tool call", ttl=600))
            assert (kept.outcome, kept.blocks) == ("applied", len(waits)), kept
        for _ in range(12):  # three times the memory
            crowd = reprise.block_keys(prompt(room // 4 * spec.block_tokens), spec.block_tokens)
            assert client.store(spec, crowd, random_blocks(spec, len(crowd))).error is None
        with client.acquire(spec, waits) as run:
            assert run.blocks == (len(waits) if claimed else 0)
