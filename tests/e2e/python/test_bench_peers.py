"""`./dev bench peers` measures Reprise on both lanes beside the controls, without any peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).resolve().parents[2] / "bench" / "peers" / "run.py"
LANES = {"reprise-view", "reprise-tcp", "reprise-stream"}
SYSTEMS = LANES | {"memcpy", "socket"}
REPETITIONS = 2
WORKERS = 1 + 4  # one, and four at once
BLOCKS = 4 + 256  # of a prompt of large blocks, and of one of small ones


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Peers that somebody has brought here are no part of the test.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE_PEER_")}
    return subprocess.run(
        [sys.executable, RUN, "--quick", "--repetitions", str(REPETITIONS), "--json", *arguments],
        env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def facts(binaries: Path) -> dict[str, Any]:
    done = bench("--only", ",".join(sorted(SYSTEMS) + ["redis"]))
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_every_cell_has_every_system_and_ratios_beside_both_lanes(facts: dict[str, Any]) -> None:
    assert len(facts["prompts"]) == 8  # store and fetch, two block sizes, one worker and four
    for cell in facts["prompts"].values():
        assert set(cell["systems"]) == SYSTEMS
        for told in cell["systems"].values():
            assert told["gb_per_s"]["low"] > 0 and told["p99_ms"] >= told["p50_ms"] > 0
            assert told["repetitions"] == REPETITIONS
        assert set(cell["systems"]["socket"]["beside"]) == LANES
        assert cell["noisy"] == (cell["control_spread"] > 0.4)
    assert set(facts["lookups"]) == {
        "64 keys, 32 stored", "512 keys, 256 stored", "64 keys, 64 stored"}
    for cell in facts["lookups"].values():
        assert set(cell["systems"]) == SYSTEMS - {"memcpy"}
        assert all(told["us"]["low"] > 0 for told in cell["systems"].values())


def test_every_block_that_was_fetched_was_compared(facts: dict[str, Any]) -> None:
    full = sum(
        told["checked_blocks"] for case in facts["full"].values()
        for told in case["systems"].values())
    assert full > 0
    assert facts["checked_blocks"] - full == len(SYSTEMS) * REPETITIONS * WORKERS * BLOCKS


def test_what_lies_in_a_full_memory_is_prefixes(facts: dict[str, Any]) -> None:
    assert len(facts["full"]) == 2
    for case in facts["full"].values():
        told = case["systems"]["reprise-view"]
        assert 0.5 * case["memory_mib"] < told["stored_mib"] <= case["memory_mib"]
        assert told["reachable_mib"] == told["stored_mib"]


def test_a_peer_that_cannot_be_had_is_skipped_with_its_reason(facts: dict[str, Any]) -> None:
    assert facts["skipped"] == {"redis": "its package was not brought here"}
    assert facts["failed"] == {}


def test_a_system_that_does_not_start_is_told_and_fails_the_run(
    binaries: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REPRISE_PEER_REDIS", str(tmp_path))  # there is no server in it
    done = subprocess.run(
        [sys.executable, RUN, "--quick", "--repetitions", "1", "--json", "--only", "redis"],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "redis-server did not start" in json.loads(done.stdout)["failed"]["redis"]


def test_a_name_that_is_none_is_refused() -> None:
    done = bench("--only", "redis,nobody")
    assert done.returncode == 2 and "'nobody' is none of" in done.stderr
