"""The status port of real servers: what it counts is what happened, and it harms nobody."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from status_port import TIMEOUT, Scrape, Server, serving
from test_stock_grpc import Attached, keys_of, store

Prompt = Callable[[int], np.ndarray]

README = Path(__file__).resolve().parents[3] / "service/telemetry/README.md"
CONNECTIONS_MAX = 64
SHARD = "reprise.v1.ShardService"


def described(part: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric in the tables `Of both` and `Of a <part>`."""
    found: dict[str, tuple[str, set[str]]] = {}
    sections = re.split(r"^### ", README.read_text(), flags=re.MULTILINE)
    for section in sections:
        if not section.startswith(("Of both\n", f"Of a {part}\n")):
            continue
        for row in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\| ", section.split("\n## ")[0],
                              flags=re.MULTILINE):
            found[row[0]] = (row[1], set(re.findall(r"`(\w+)`", row[2])))
    assert found
    return found


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def shard(binaries: Path, tmp_path: Path) -> Iterator[Server]:
    """A shard that knows no other."""
    with serving(binaries / "reprise-shard", "--dram", "64MiB", log=tmp_path / "shard") as server:
        yield server


@pytest.fixture
def router(binaries: Path, tmp_path: Path, shard: Server) -> Iterator[Server]:
    """A router of that shard."""
    with serving(binaries / "reprise-router", "--shard", f"shard-0={shard.address}",
                 log=tmp_path / "router") as server:
        eventually(lambda: server.scrape().get("reprise_shards", state="alive") == 1)
        yield server


@pytest.mark.parametrize("part", ["shard", "router"])
def test_the_reference_describes_what_is_served_and_nothing_else(
    request: pytest.FixtureRequest, router: Server, part: str
) -> None:
    scrape = request.getfixturevalue(part).scrape()
    served = {name: (kind, scrape.labels(name)) for name, kind in scrape.types.items()}
    assert served == described(part)


def test_a_fresh_shard_has_every_counter_at_zero(shard: Server) -> None:
    scrape = shard.scrape()
    for (name, labels), value in scrape.values.items():
        if scrape.types[scrape.family(name)] == "counter" and name.startswith("reprise_"):
            assert value == 0, (name, labels)
    for method in ("Attach", "Lookup", "Acquire", "Reserve", "Commit", "Read", "Write", "Release"):
        assert scrape.calls(f"{SHARD}/{method}") == 0
        assert ("reprise_rpc_server_duration_seconds_sum",
                frozenset({("method", f"{SHARD}/{method}"), ("code", "OK")})) in scrape.values


def test_buckets_rise_and_end_at_the_count(shard: Server) -> None:
    with reprise.Client(shards=[shard.address]) as client:
        client.store(make_spec(), reprise.block_keys(np.arange(64), 16), random_blocks(
            make_spec(), 4))
    scrape = shard.scrape()
    rows: dict[Any, list[tuple[float, float]]] = {}
    for (name, labels), value in scrape.values.items():
        if name.endswith("_bucket"):
            bound = float(dict(labels)["le"])
            rows.setdefault(frozenset(x for x in labels if x[0] != "le"), []).append((bound, value))
    assert rows
    for labels, buckets in rows.items():
        counts = [count for _, count in sorted(buckets)]
        assert counts == sorted(counts)
        assert sorted(buckets)[-1] == (
            float("inf"), scrape.values["reprise_rpc_server_duration_seconds_count", labels])


def moved(before: Scrape, after: Scrape) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What the counters of lanes gained."""
    return {key: after.values[key] - before.values[key] for key in after.values
            if key[0].startswith("reprise_lane_") and key[0].endswith("_total")
            and after.values[key] != before.values[key]}


@pytest.mark.parametrize("lane", ["view", "tcp", "stream"])
def test_a_store_and_a_fetch_are_counted_to_the_block(
    shard: Server, prompt: Prompt, lane: str
) -> None:
    spec, keys = make_spec(), reprise.block_keys(prompt(160))
    blocks = random_blocks(spec, 10)
    before = shard.scrape()
    if lane == "view" and not before.get("reprise_lane_offered", lane="view"):
        pytest.skip("this shard offers no view lane")
    with reprise.Client(shards=[shard.address], lanes=None if lane == "view" else [lane]
                        ) as client:
        assert client.store(spec, keys, blocks).stored == 10
        back = np.zeros_like(blocks)
        with client.acquire(spec, np.concatenate([keys, reprise.block_keys(prompt(48))])) as run:
            assert run.fetch(back).lanes == {lane: 10}
        expected = {}
        for direction in ("read", "write"):
            labels = frozenset({("lane", lane), ("direction", direction)})
            expected["reprise_lane_blocks_total", labels] = 10
            expected["reprise_lane_bytes_total", labels] = 10 * spec.block_bytes
        # The view's end of a read is not answered, so it may be counted a moment later.
        eventually(lambda: moved(before, shard.scrape()) == expected)
        after = shard.scrape()
        assert after.get("reprise_attachments") == 1
        assert after.get("reprise_blocks") == after.get("reprise_tier_blocks", tier="dram") == 10

    gained = lambda name: after.get(name) - before.get(name)  # noqa: E731
    assert gained("reprise_stored_blocks_total") == 10
    assert gained("reprise_stored_bytes_total") == 10 * spec.block_bytes
    assert gained("reprise_opened_blocks_total") == 10
    assert gained("reprise_acquires_total") == 1
    assert gained("reprise_queried_tokens_total") == 13 * 16
    assert gained("reprise_hit_tokens_total") == 10 * 16
    assert gained("reprise_miss_tokens_total") == 3 * 16
    streams = 1 if lane == "stream" else 0
    calls = {"OpenSpec": 1, "Reserve": 1, "Commit": 1, "Acquire": 1, "Read": streams,
             "Write": streams, "Lookup": 0, "Remove": 0, "Explain": 0}
    for method, count in calls.items():
        assert after.calls(f"{SHARD}/{method}") - before.calls(f"{SHARD}/{method}") == count, method


def test_a_read_that_is_given_up_counts_no_block_that_did_not_go_out(
    shard: Server, generated: Any
) -> None:
    attached = Attached(generated, shard.address)
    try:
        opened = attached.open(block_tokens=64, head_dim=1024)
        keys = keys_of("given up", 20)
        # More than a connection takes in unread.
        assert len(keys) * opened.block_bytes == 30 << 20
        assert store(attached, opened, keys, [bytes(opened.block_bytes)] * 20).committed == 20
        pb = attached.pb
        acquired = attached.stub.Acquire(pb.AcquireRequest(
            attachment_id=attached.id, spec_handle=opened.spec_handle, keys=b"".join(keys)),
            timeout=TIMEOUT)
        assert acquired.run_blocks == 20
        read = attached.stub.Read(pb.ReadRequest(
            attachment_id=attached.id, lease_id=acquired.lease_id), timeout=TIMEOUT)
        next(read)
        read.cancel()
        eventually(lambda: shard.scrape().calls(f"{SHARD}/Read", "CANCELLED") == 1)
        after = shard.scrape()
        assert after.get("reprise_opened_blocks_total") == 20
        assert after.get("reprise_lane_blocks_total", lane="stream", direction="read") < 20
        assert after.get("reprise_lane_blocks_total", lane="stream", direction="write") == 20
    finally:
        attached.close()


def test_a_refused_call_is_counted_by_its_code_and_a_strange_one_adds_no_label(
    shard: Server,
) -> None:
    methods = {dict(labels)["method"] for (name, labels) in shard.scrape().values
               if name.endswith("_seconds_count")}
    with grpc.insecure_channel(shard.address) as channel:
        def call(method: str) -> grpc.StatusCode:
            with pytest.raises(grpc.RpcError) as refused:
                channel.unary_unary(method)(b"", timeout=TIMEOUT)
            return refused.value.code()

        assert call(f"/{SHARD}/Lookup") in (
            grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
        assert call("/evil.Service/Method") == grpc.StatusCode.UNIMPLEMENTED
    after = shard.scrape()
    counts = {labels: value for (name, labels), value in after.values.items()
              if name == "reprise_rpc_server_duration_seconds_count" and value}
    (failed,) = [labels for labels in counts if ("method", f"{SHARD}/Lookup") in labels]
    assert counts[failed] == 1 and ("code", "OK") not in failed
    assert {dict(labels)["method"] for (name, labels) in after.values
            if name.endswith("_seconds_count")} == methods


def test_a_router_counts_its_answers_and_its_shards(
    shard: Server, router: Server, prompt: Prompt
) -> None:
    spec, keys = make_spec(), reprise.block_keys(prompt(64))
    before = router.scrape()
    with reprise.Client(router=router.address) as client:
        client.store(spec, keys, random_blocks(spec, 4), session="chat")
        eventually(lambda: router.scrape().get("reprise_shard_index_blocks", shard="shard-0") == 4)
        with client.acquire(spec, keys, session="chat") as run:
            assert run.blocks == 4
    after = router.scrape()
    assert after.get("reprise_index_blocks") == 4
    assert after.get("reprise_topology_epoch") > 0
    assert after.get("reprise_shard_silence_seconds", shard="shard-0") < TIMEOUT
    answered = sum(after.get("reprise_route_sessions_total", outcome=outcome)
                   - before.get("reprise_route_sessions_total", outcome=outcome)
                   for outcome in ("at_home", "elsewhere", "nothing"))
    assert answered == after.calls("reprise.v1.RouterService/RouteSession") > 0
    assert shard.scrape().get("reprise_watchers") == 1

    shard.process.kill()
    shard.process.wait()
    eventually(lambda: router.scrape().get("reprise_shards", state="dead") == 1)
    assert router.scrape().get("reprise_shards", state="alive") == 0


def test_draining_turns_readiness_off_and_liveness_stays(
    binaries: Path, tmp_path: Path
) -> None:
    members = tmp_path / "members.yaml"
    members.write_text("shards:\n  - {id: shard-0, address: \"127.0.0.1:1\"}\n")
    with serving(binaries / "reprise-shard", "--dram", "16MiB", "--members", str(members),
                 log=tmp_path / "log") as shard:
        assert shard.get("/readyz")[::2] == (200, "ok\n")
        assert shard.scrape().get("reprise_draining") == 0
        with grpc.insecure_channel(shard.address) as channel:
            channel.unary_unary("/reprise.v1.AdminService/Drain")(b"", timeout=TIMEOUT)
        assert shard.get("/readyz")[::2] == (503, "draining\n")
        assert shard.get("/livez")[::2] == (200, "ok\n")
        assert shard.scrape().get("reprise_draining") == 1
        assert "draining" in shard.get("/")[2]
        shard.process.send_signal(signal.SIGTERM)
        assert shard.process.wait(TIMEOUT) == 0


def test_the_page_for_people_says_what_this_is(shard: Server, router: Server) -> None:
    status, content_type, page = shard.get("/")
    assert (status, content_type) == (200, "text/html; charset=utf-8")
    for text in ("shard-0", shard.address, "dram", "64.0 MiB", "stream", 'href="/metrics"'):
        assert text in page
    page = router.get("/")[2]
    for text in ("router", "shard-0", shard.address, "alive"):
        assert text in page
    assert shard.get("/nothing")[0] == 404
    assert shard.get("/metrics", "POST")[0] == 405
    assert shard.get("/metrics", "HEAD")[::2] == (200, "")


def threads(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^Threads:\s+(\d+)$", status, re.MULTILINE)[1])  # type: ignore[index]


def test_hostile_http_clients_harm_neither_probes_nor_calls(shard: Server, prompt: Prompt) -> None:
    spec, keys = make_spec(), reprise.block_keys(prompt(64))
    blocks = random_blocks(spec, 4)
    host, port = shard.status.split(":")
    hostile: list[socket.socket] = []
    with reprise.Client(shards=[shard.address]) as client:
        assert client.store(spec, keys, blocks).stored == 4
        before, threads_before = shard.scrape(), threads(shard.process.pid)
        try:
            for number in range(6 * CONNECTIONS_MAX):
                one = socket.create_connection((host, int(port)), TIMEOUT)
                hostile.append(one)
                # Silent, without an end, no HTTP at all, and one that does not read its answer.
                one.sendall((b"", b"GET /livez HTTP/1.1\r\nX: ", b"\x16\x03\x01" * 100,
                             b"GET /metrics HTTP/1.1\r\n\r\n")[number % 4])
                if number % 32 == 0:
                    assert shard.get("/livez")[0] == 200
                    back = np.zeros_like(blocks)
                    with client.acquire(spec, keys) as run:
                        assert run.fetch(back).blocks == 4
                    assert np.array_equal(back, blocks)
            after = shard.scrape()
            # gRPC and the view lane may have begun a few; none is for one of these clients.
            assert threads(shard.process.pid) - threads_before < CONNECTIONS_MAX // 4
            gained = after.get("process_open_fds") - before.get("process_open_fds")
            assert gained <= CONNECTIONS_MAX
        finally:
            for one in hostile:
                one.close()
    assert shard.get("/readyz")[0] == 200


def test_other_machines_are_let_in_only_when_asked_to(binaries: Path, tmp_path: Path) -> None:
    for program in ("reprise-shard", "reprise-router"):
        command = [str(binaries / program), "--status-listen", "0.0.0.0:0"]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        assert refused.returncode == 1 and "--status-public" in refused.stderr
    with serving(binaries / "reprise-router", "--status-public", log=tmp_path / "log",
                 status="0.0.0.0:0") as router:
        router.status = router.status.replace("0.0.0.0", "127.0.0.1")
        assert router.get("/readyz")[0] == 200


def test_up_tells_where_the_status_ports_are(binaries: Path, tmp_path: Path) -> None:
    command = [str(binaries / "reprise"), "up", "--shards", "1", "--dram", "16MiB", "--status",
               "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
        try:
            assert up.stdout is not None
            facts = json.loads(up.stdout.readline())
            for address in (facts["router_status"], facts["shards"][0]["status_address"]):
                assert Server(up, "", address).get("/readyz")[0] == 200
        finally:
            up.send_signal(signal.SIGINT)
            assert up.wait(TIMEOUT) == 0
