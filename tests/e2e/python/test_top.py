"""`reprise top` of real clusters: what it says happened is what was done."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster, kill_and_wait
from status_port import TIMEOUT, Server, serving
from test_tls import FLEET, Authority, flags

Prompt = Callable[[int], np.ndarray]
Start = Callable[..., Cluster]

USAGE, UNREACHABLE = 2, 4
BLOCKS, MISSING = 24, 8
COPIES_SECONDS = 20
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"
DESCRIBE = "reprise.v1.ShardService/Describe"


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "TERM": "xterm", **variables}


def run(binaries: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([binaries / "reprise", "top", *arguments], capture_output=True,
                          text=True, timeout=TIMEOUT, env=environment(**variables))


@contextmanager
def running(binaries: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([binaries / "reprise", "top", *arguments], stdout=subprocess.PIPE,
                               text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of -o json."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], TIMEOUT)
    assert ready, "nothing came"
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def shard(binaries: Path, tmp_path: Path) -> Iterator[Server]:
    with serving(binaries / "reprise-shard", "--dram", "64MiB", log=tmp_path / "shard") as server:
        yield server


def described(binaries: Path, router: str) -> dict[str, dict[str, Any]]:
    answer = subprocess.run([binaries / "reprise", "describe", "--router", router, "-o", "json"],
                            check=True, capture_output=True, text=True)
    return {shard["id"]: shard for shard in json.loads(answer.stdout)["shards"]}


def counted_by(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """What top is to count, from the counters of a shard themselves."""
    def gained(*names: str) -> int:
        return sum(after["counters"][name] - before["counters"][name] for name in names)

    def lanes(direction: str) -> dict[str, int]:
        return {lane: gained(f"lane_{lane}_bytes_{direction}_total")
                for lane in ("view", "nccl", "tcp", "stream")}

    came, went = lanes("written"), lanes("read")
    return {
        "asked_blocks": gained("hit_blocks_total", "miss_blocks_total"),
        "hit_blocks": gained("hit_blocks_total"),
        "asked_tokens": gained("hit_tokens_total", "miss_tokens_total"),
        "hit_tokens": gained("hit_tokens_total"),
        "stored_blocks": gained("stored_blocks_total"),
        "in_bytes": sum(came.values()),
        **{f"in_{lane}_bytes": bytes_ for lane, bytes_ in came.items()},
        "out_bytes": sum(went.values()),
        **{f"out_{lane}_bytes": bytes_ for lane, bytes_ in went.items()},
        "evicted_blocks": gained(*(f"evicted_{cause}_blocks_total"
                                   for cause in ("watermark", "own_space", "reclaim", "quota"))),
        "demoted_blocks": gained("demoted_blocks_total"),
        "refusals": gained(*(name for name in before["counters"] if name.startswith("refused_"))),
        "errors": gained("quarantined_blocks_total", "lost_blocks_total", "corrupt_blocks_total",
                         "pulls_failed_total", "peer_failures_total", "nccl_link_failures_total"),
    }


def work(client: reprise.Client, prompt: Prompt) -> int:
    """Stores BLOCKS, asks for them and for MISSING more, and reads them. Returns their bytes."""
    spec, tokens = make_spec(), prompt((BLOCKS + MISSING) * 16)
    keys, blocks = reprise.block_keys(tokens), random_blocks(spec, BLOCKS)
    assert client.store(spec, keys[:BLOCKS], blocks).stored == BLOCKS
    back = np.zeros_like(blocks)
    with client.acquire(spec, keys) as run:
        assert run.blocks == BLOCKS
        run.fetch(back)
    assert np.array_equal(back, blocks)
    return int(blocks.nbytes)


def test_once_says_exactly_what_was_done_between_its_two_looks(
    binaries: Path, shard: Server, prompt: Prompt
) -> None:
    seen = shard.scrape().calls(DESCRIBE)
    with running(binaries, "--shard", shard.address, "--once", "--interval", "4", "-o",
                 "json") as top:
        eventually(lambda: shard.scrape().calls(DESCRIBE) > seen)
        with reprise.Client(shards=[shard.address], lanes=["stream"]) as client:
            bytes_ = work(client, prompt)
            line = told(top)
        assert top.wait(TIMEOUT) == 0
    (one,) = line["shards"]
    expected = {name: 0 for name in one["counted"]} | {
        "asked_blocks": BLOCKS + MISSING, "hit_blocks": BLOCKS,
        "asked_tokens": 16 * (BLOCKS + MISSING), "hit_tokens": 16 * BLOCKS,
        "stored_blocks": BLOCKS, "in_bytes": bytes_, "in_stream_bytes": bytes_,
        "out_bytes": bytes_, "out_stream_bytes": bytes_}
    assert one["counted"] == line["total"]["counted"] == expected
    assert one["hit_share"] == BLOCKS / (BLOCKS + MISSING)
    assert 3.5 < one["interval_s"] < 30
    for name, count in expected.items():
        assert one["per_second"][name] == pytest.approx(count / one["interval_s"]), name
    assert (one["state"], one["blocks"], one["attachments"]) == ("alive", BLOCKS, 1)
    assert (line["router"], line["shards_by_state"]) == (None, {"alive": 1})
    (tier,) = one["tiers"]
    assert tier["used_bytes"] >= bytes_ and tier["capacity_bytes"] == 64 << 20


def test_every_block_is_in_one_interval_and_in_no_other(
    own_cluster: Start, binaries: Path, prompt: Prompt
) -> None:
    cluster = own_cluster(shards=3, dram="64MiB")
    before = described(binaries, cluster.router)
    totals: dict[str, dict[str, int]] = {}

    def add(line: dict[str, Any]) -> dict[str, Any]:
        assert line["total"]["rated_shards"] == 3
        for one in line["shards"]:
            assert one["state"] == "alive" and one["note"] is None
            of = totals.setdefault(one["id"], dict.fromkeys(one["counted"], 0))
            for name, count in one["counted"].items():
                of[name] += count
        return line

    with running(binaries, "--router", cluster.router, "--interval", "0.2", "-o", "json") as top:
        add(told(top))
        with reprise.Client(router=cluster.router) as client:
            for _ in range(5):
                work(client, prompt)
                add(told(top))
        # Each block has a copy, which is made when there is time.
        end = time.monotonic() + COPIES_SECONDS
        while True:
            line = add(told(top))
            after = described(binaries, cluster.router)
            expected = {name: counted_by(before[name], after[name]) for name in before}
            stored = sum(of["stored_blocks"] for of in expected.values())
            if totals == expected and stored == 10 * BLOCKS:
                break
            assert time.monotonic() < end, (totals, expected)
    assert sum(of["hit_blocks"] for of in totals.values()) >= 5 * BLOCKS
    assert line["total"]["blocks"] == 10 * BLOCKS
    assert line["router"]["epoch"] > 0


def test_a_shard_or_a_router_that_dies_is_told_and_the_others_go_on(
    own_cluster: Start, binaries: Path
) -> None:
    cluster = own_cluster(shards=2, dram="64MiB")
    with running(binaries, "--router", cluster.router, "--interval", "0.2", "-o", "json") as top:
        assert told(top)["shards_by_state"] == {"alive": 2}
        cluster.kill_shard("shard-1")
        line = told(top)
        while line["shards_by_state"] != {"alive": 1, "dead": 1}:
            assert set(line["shards_by_state"]) <= {"alive", "dead", "silent"}
            line = told(top)
        alive, dead = line["shards"]
        assert alive["state"] == "alive" and alive["counted"] is not None
        assert dead["id"] == "shard-1" and "refused" in dead["note"]
        assert dead["counted"] is None and dead["blocks"] is None
        epoch = line["router"]["epoch"]

        kill_and_wait(cluster.router_pid)
        while not (line := told(top))["router"]["error"]:
            pass
        later = told(top)
        assert later["router"]["address"] == cluster.router
        assert later["router"]["age_s"] > line["router"]["age_s"] > 0
        assert later["router"]["epoch"] >= epoch
        assert later["shards_by_state"] == {"alive": 1, "silent": 1}
        assert later["shards"][0]["counted"] is not None


def test_a_shard_that_restarted_is_told_and_has_rates_again(
    binaries: Path, tmp_path: Path, prompt: Prompt
) -> None:
    def start(address: str) -> tuple[subprocess.Popen[str], str]:
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [binaries / "reprise-shard", "--listen", address, "--dram", "16MiB", "-o", "json"],
                stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())["address"]

    process, address = start("127.0.0.1:0")
    try:
        with reprise.Client(shards=[address]) as client:
            work(client, prompt)
        with running(binaries, "--shard", address, "--interval", "0.2", "-o", "json") as top:
            assert told(top)["shards"][0]["blocks"] == BLOCKS
            process.kill()
            process.wait()
            while (line := told(top))["shards_by_state"] != {"silent": 1}:
                pass
            assert line["shards"][0]["id"] == "shard-0", "known from when it answered"
            process, _ = start(address)
            while (line := told(top))["shards_by_state"] != {"alive": 1}:
                pass
            (one,) = line["shards"]
            assert (one["note"], one["counted"], one["blocks"]) == ("restarted", None, 0)
            (one,) = told(top)["shards"]
            assert one["note"] is None and set(one["counted"].values()) == {0}
    finally:
        process.kill()
        process.wait()


def test_a_cluster_that_asks_who_one_is_gets_a_certificate(
    own_cluster: Start, binaries: Path, tmp_path: Path
) -> None:
    tls = Authority(tmp_path).issue(FLEET)
    cluster = own_cluster(shards=2, dram="16MiB", arguments=flags(tls))
    arguments = ["--router", cluster.router, "--once", "--interval", "0.2", "-o", "json"]
    answer = run(binaries, *arguments, *flags(tls), "--tls-server-id", FLEET)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["total"]["rated_shards"] == 2
    without = run(binaries, *arguments, "--timeout", "2")
    assert without.returncode == UNREACHABLE and cluster.router in without.stderr


def test_a_shard_that_hangs_holds_up_nobody(own_cluster: Start, binaries: Path) -> None:
    cluster = own_cluster(shards=2, dram="16MiB")
    os.kill(cluster.shard("shard-0").pid, signal.SIGSTOP)
    try:
        addresses = [word for one in cluster.shards for word in ("--shard", one.address)]
        with running(binaries, *addresses, "--interval", "0.2", "-o", "json") as top:
            told(top)
            began = time.monotonic()
            for _ in range(2):
                hangs, works = sorted(told(top)["shards"], key=lambda one: one["state"] == "alive")
                assert hangs["state"] == "silent" and hangs["note"] == "no answer within 1s"
                assert works["id"] == "shard-1" and works["counted"] is not None
            assert time.monotonic() - began < 4, "a look waits no longer than a second"
    finally:
        os.kill(cluster.shard("shard-0").pid, signal.SIGCONT)


def test_a_table_fits_into_eighty_columns_and_has_what_matters(
    binaries: Path, cluster: Cluster
) -> None:
    answer = run(binaries, "--router", cluster.router, "--once", "--interval", "0.2", COLUMNS="80")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and "\x1b" not in answer.stdout
    head = next(line for line in lines if line.startswith("SHARD"))
    assert head.split() == ["SHARD", "STATE", "DRAM", "ASKED/S", "HIT", "IN/S", "OUT/S", "EVICT/S",
                            "REFUSE/S", "ERR/S"]
    assert [line.split()[0] for line in lines[lines.index(head) + 1:]] == [
        "shard-0", "shard-1", "shard-2", "total"]
    assert f"router {cluster.router}" in lines[0] and "3 shards: 3 alive" in answer.stdout


def test_without_a_terminal_tables_follow_each_other(binaries: Path, cluster: Cluster) -> None:
    answer = run(binaries, "--router", cluster.router, "--count", "2", "--interval", "0.2")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("\ntotal ") == 2 and "\x1b" not in answer.stdout
    assert "first look" not in answer.stdout, "each table is of an interval"


class Terminal:
    """`reprise top` on a terminal of its own."""

    def __init__(self, binaries: Path, columns: int, *arguments: str, **variables: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(columns)
        self.process = subprocess.Popen(
            [binaries / "reprise", "top", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, env=environment(**variables),
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)
        self.shown = ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def until(self, holds: Callable[[str], bool]) -> None:
        """Reads on until what was shown since the last call does."""
        self.shown = ""
        while not holds(self.shown):
            ready, _, _ = select.select([self._ours], [], [], TIMEOUT)
            assert ready, self.shown
            try:
                self.shown += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:  # how a terminal whose other end closed is read
                assert holds(self.shown), self.shown
                return

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def terminal(binaries: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(columns: int, *arguments: str, **variables: str) -> Terminal:
        opened.append(Terminal(binaries, columns, *arguments, **variables))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def widths(shown: str) -> set[int]:
    """Of the lines of a drawing."""
    plain = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown.partition("\x1b[H")[2])
    return {len(line) for line in plain.replace("\r", "").split("\n")}


def table_shown(shown: str) -> bool:
    return "total" in shown.partition("\x1b[J")[2]  # which erases what is below the last line


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM"])
def test_a_terminal_is_drawn_in_place_follows_its_width_and_is_given_back(
    cluster: Cluster, terminal: Callable[..., Terminal], end: str
) -> None:
    # No second look: what is drawn again is drawn for the window.
    top = terminal(90, "--router", cluster.router, "--interval", "600")
    top.until(table_shown)
    assert top.shown.index(ENTER) < top.shown.index("\x1b[H") < top.shown.index("SHARD")
    assert "first look" in top.shown and "░" in top.shown
    assert "\x1b[32malive\x1b[0m" in top.shown
    assert 60 < max(widths(top.shown)) <= 90
    top.resize(50)
    top.until(table_shown)
    assert ENTER not in top.shown
    assert 30 < max(widths(top.shown)) <= 50
    if end == "Ctrl-C":
        top.type(b"\x03")
    else:
        top.process.send_signal(signal.SIGTERM)
    top.until(lambda shown: LEAVE in shown and "total" in shown.partition(LEAVE)[2])
    assert SHOW_CURSOR in top.shown.partition(LEAVE)[0], "and what was seen last stays"
    assert top.process.wait(TIMEOUT) == 0


def test_a_suspended_top_gives_the_terminal_back_and_comes_again(
    cluster: Cluster, terminal: Callable[..., Terminal]
) -> None:
    top = terminal(80, "--router", cluster.router, "--interval", "600")
    top.until(table_shown)
    top.process.send_signal(signal.SIGTSTP)
    top.until(lambda shown: LEAVE in shown)
    stat = Path(f"/proc/{top.process.pid}/stat")
    eventually(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T")
    top.process.send_signal(signal.SIGCONT)
    top.until(table_shown)
    assert ENTER in top.shown


def test_no_colour_is_no_colour(cluster: Cluster, terminal: Callable[..., Terminal]) -> None:
    top = terminal(80, "--router", cluster.router, "--count", "1", "--interval", "0.2",
                   NO_COLOR="1")
    top.until(lambda shown: LEAVE in shown and "total" in shown.partition(LEAVE)[2])
    assert not re.search(r"\x1b\[\d*m", top.shown)
    assert top.process.wait(TIMEOUT) == 0


@pytest.mark.parametrize(("arguments", "code", "named"), [
    ([], USAGE, "REPRISE_ROUTER"),
    (["--router", "127.0.0.1:1", "--timeout", "1"], UNREACHABLE, "127.0.0.1:1"),
    (["--shard", "127.0.0.1:1", "--timeout", "1"], UNREACHABLE, "127.0.0.1:1"),
    (["--router", "a:1", "--interval", "0"], USAGE, "--interval"),
    (["--router", "a:1", "--interval", "1e6"], USAGE, "--interval"),
    (["--router", "a:1", "--count", "0"], USAGE, "--count"),
    (["--router", "a:1", "--count", "2", "--once"], USAGE, "--once"),
    (["--router", "a:1", "--sort", "colour"], USAGE, "--sort"),
])
def test_what_is_wrong_is_named(
    binaries: Path, arguments: list[str], code: int, named: str
) -> None:
    answer = run(binaries, *arguments)
    assert answer.returncode == code, answer.stderr
    assert named in answer.stderr and not answer.stdout
    assert len(answer.stderr.splitlines()) <= 3, "a sentence, not a page"


def test_help_has_a_sentence_for_each_column(binaries: Path, cluster: Cluster) -> None:
    wide = run(binaries, "--router", cluster.router, "--once", "--interval", "0.2", COLUMNS="999")
    head = next(line for line in wide.stdout.splitlines() if line.startswith("SHARD"))
    text = run(binaries, "--help").stdout
    for name in set(re.split(r" {2,}", head)) - {"SHARD"}:
        lane = re.fullmatch(r"(\w+) (IN|OUT)/S", name)
        assert re.search(rf"\b{lane[1] if lane else name}\b", text), name
