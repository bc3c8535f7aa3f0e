"""`reprise` as a person meets it: progress on a terminal, and what wrong arguments get to hear."""

import json
import os
import pty
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo.cluster import Cluster

USAGE, NOT_FOUND, UNREACHABLE = 2, 3, 4
SILENT_SECONDS = "3"


def run(binaries: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binaries / "reprise", *arguments], capture_output=True, text=True)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("command", [["describe"], ["get", "blocks"], ["doctor"],
                                     ["explain", "--keys", "00" * 32]])
def test_what_takes_long_shows_progress_on_a_terminal_and_nowhere_else(
    binaries: Path, silent: str, command: list[str]
) -> None:
    arguments = [*command, "--router", silent, "--timeout", SILENT_SECONDS, "-o", "json"]
    assert "\x1b[K" not in run(binaries, *arguments).stderr
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [binaries / "reprise", *arguments], stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # how a terminal whose other end closed is read
            pass
        assert process.stdout is not None
        assert b"\x1b[K" not in process.stdout.read()
    os.close(ours)
    line, _, rest = shown.decode().partition(" s)")
    assert line.startswith("\r\x1b[K") and line[-1].isdigit(), shown
    assert "\r\x1b[K" in rest, "the line is wiped at the end"


def test_the_limits_of_router_and_shards_are_shown(binaries: Path, cluster: Cluster) -> None:
    answer = run(binaries, "describe", "--router", cluster.router, "-o", "json")
    described = json.loads(answer.stdout)
    limits = described["router"]["limits"] | described["shards"][0]["limits"]
    assert limits["session_ttl_ms"] > 0 and limits["prompt_blocks_max"] > 0
    text = run(binaries, "describe", "--router", cluster.router, "--limits").stdout
    for name, value in limits.items():
        assert any(name in line and str(value) in line for line in text.splitlines()), name


@pytest.mark.parametrize(("tokens", "code", "named"), [
    ("[1, 4294967296]", USAGE, "4294967296"),
    ("[1, -2]", USAGE, "-2"),
    ('["a"]', USAGE, '"a"'),
    ("/nowhere/tokens.json", NOT_FOUND, "/nowhere/tokens.json"),
    ("FOLDER", NOT_FOUND, "cannot be read"),
    ("LATIN1", USAGE, r"\xe9"),
    ("LONG", USAGE, "65537 blocks"),
    ("HUGE", USAGE, "bytes"),
    ("[1, 2, 3]", USAGE, "16"),
])
def test_explain_refuses_tokens_that_are_none(
    binaries: Path, cluster: Cluster, tmp_path: Path, tokens: str, code: int, named: str
) -> None:
    (tmp_path / "LATIN1").write_bytes(b"1 2 caf\xe9")
    (tmp_path / "LONG").write_text("7 " * (16 * 65_537))
    (tmp_path / "HUGE").write_bytes(b"7 " * (20 << 20))
    (tmp_path / "FOLDER").mkdir()
    given = str(tmp_path / tokens) if tokens.isupper() else tokens
    spec = json.dumps({"model": "m", "attention": "gqa", "dtype": "f16", "layers": 1, "kv_heads": 1,
                       "head_dim": 64, "block_tokens": 16})
    answer = run(binaries, "explain", "--router", cluster.router, "--spec", spec, "--tokens", given)
    assert answer.returncode == code, answer.stderr
    assert named in answer.stderr and not answer.stdout


@pytest.mark.parametrize(("arguments", "code", "named"), [
    (["doctor", "--dram", "much"], USAGE, "--dram"),
    (["up", "--dram", "much"], USAGE, "--dram"),
    (["up", "--shards", "0"], USAGE, "--shards"),
    (["describe"], USAGE, "REPRISE_ROUTER"),
    (["get", "everything"], USAGE, "everything"),
    (["descrbe"], USAGE, 'did you mean "describe"'),
    (["up", "--router-port", "70000"], USAGE, "--router-port"),
    (["describe", "--shard", "127.0.0.1:1", "--timeout", "1"], UNREACHABLE, "127.0.0.1:1"),
    (["explain", "--router", "127.0.0.1:1", "--timeout", "1", "--tokens", "[1]"],
     UNREACHABLE, "127.0.0.1:1"),
])
def test_a_wrong_command_line_is_told_by_name_and_exit_code(
    binaries: Path, arguments: list[str], code: int, named: str
) -> None:
    answer = run(binaries, *arguments)
    assert answer.returncode == code, answer.stderr
    assert named in answer.stderr
    assert len(answer.stderr.splitlines()) <= 3, "a sentence, not a page"


@pytest.mark.parametrize(("command", "code", "named"), [
    (["reprise-shard", "--dram", "much"], USAGE, "--dram"),
    (["reprise-shard", "--dram", "1KiB"], 1, "kExtentBytesMin"),
    (["reprise-router", "--grace", "-1"], USAGE, "--grace"),
    (["reprise-router", "--version"], 0, ""),
])
def test_the_servers_tell_a_wrong_command_line_from_one_that_failed(
    binaries: Path, command: list[str], code: int, named: str
) -> None:
    answer = subprocess.run([binaries / command[0], *command[1:]], capture_output=True, text=True,
                            timeout=30)
    assert answer.returncode == code, answer.stderr
    assert named in answer.stderr
