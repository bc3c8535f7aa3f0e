"""What the README shows is what runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
BINARIES = Path(os.environ.get("REPRISE_BIN", "")).resolve()


def code(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    found = [b for b in blocks if containing in b]
    assert len(found) == 1, f"{len(found)} {language} blocks contain {containing!r}"
    return found[0]


@pytest.fixture(scope="module")
def router() -> Iterator[str]:
    process = subprocess.Popen(
        [BINARIES / "reprise", "up", "--shards", "3", "--dram", "64MiB", "-o", "json"],
        stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["router"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def test_python_quickstart_stores_and_fetches(router: str) -> None:
    program = code("python", "reprise.Client").replace("127.0.0.1:7000", router)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "stored=4" in result.stdout and result.stdout.rstrip().endswith("True"), result.stdout


def test_cpp_quickstart_is_the_example_and_runs(router: str) -> None:
    source = (ROOT / "client/cpp/example/store_and_fetch.cc").read_text()
    body = source.split("  // README begin\n")[1].split("  // README end")[0]
    assert code("cpp", "Client::Create") == textwrap.dedent(body)
    result = subprocess.run([BINARIES / "reprise-example", router], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "fetched and verified 4 of 4" in result.stdout


def test_commands_of_dev_exist() -> None:
    known = subprocess.run(
        [ROOT / "dev", "help"], check=True, capture_output=True, text=True).stdout
    for command in set(re.findall(r"\./dev ([a-z-]+)", README)):
        assert re.search(rf"^  {command}\b", known, flags=re.MULTILINE), command


def test_every_path_that_it_names_exists() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


def test_every_promise_names_a_test_that_exists() -> None:
    table = README.split("## What it promises")[1].split("\n## ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")][1:]
    assert rows
    for row in rows:
        names = re.findall(r"`(tests/[^`]+)`", row)
        assert names, f"no test in {row!r}"
        for name in names:
            path, _, case = name.partition("::")
            text = (ROOT / path).read_text()
            here = rf"TEST(_F|_P)?\(\w+, {case}\)|TYPED_TEST_P?\(\w+, {case}\)|def {case}\("
            assert case and re.search(here, text), f"{path} has no test {case}"
