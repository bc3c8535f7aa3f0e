"""The tcp lane: a port beside gRPC's that blocks take, encrypted where gRPC is, and that nobody
needs."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster
from status_port import Server, serving
from test_failures import await_replicas
from test_tls import ACME, FLEET, Authority, flags

TIMEOUT = 60.0
TCP_LISTEN = "0A"  # the state in /proc/net/tcp
PORT = "tcp_port"

Prompt = Callable[[int], np.ndarray]
Start = Callable[..., Cluster]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextmanager
def shard(
    binaries: Path, tmp_path: Path, *arguments: str, listen: str = "127.0.0.1:0"
) -> Iterator[Server]:
    with serving(binaries / "reprise-shard", "--dram", "32MiB", *arguments, listen=listen,
                 log=tmp_path / "shard.log") as server:
        yield server


def lanes_of(client: reprise.Client, prompt: Prompt, settle: float = TIMEOUT) -> dict[str, int]:
    """Which lanes bring back what was stored, after a while at most; the bytes are checked."""
    spec = make_spec(layers=4, head_dim=64)  # blocks of 64 KiB
    keys, blocks = reprise.block_keys(prompt(160)), random_blocks(spec, 10)
    assert client.store(spec, keys, blocks).stored == 10
    # A port is dialled in the background: until it was reached blocks go over gRPC.
    end = time.monotonic() + settle
    while True:
        back = np.zeros_like(blocks)
        with client.acquire(spec, keys) as run:
            fetched = run.fetch(back)
        assert (fetched.blocks, fetched.error) == (10, None)
        assert np.array_equal(back, blocks)
        if "stream" not in fetched.lanes or time.monotonic() > end:
            return fetched.lanes


def ports_of(pid: int) -> set[int]:
    """TCP ports that a process listens on."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(fd))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == TCP_LISTEN and f"socket:[{fields[9]}]" in inodes:
                found.add(int(fields[1].rsplit(":", 1)[1], 16))
    return found


def port_of(address: str) -> int:
    return int(address.rsplit(":", 1)[1])


def test_a_shard_listens_where_it_says_and_nowhere_else(binaries: Path, tmp_path: Path) -> None:
    with shard(binaries, tmp_path) as server:
        assert ports_of(server.process.pid) == {
            port_of(server.address), port_of(server.status), server.facts[PORT]}
    with shard(binaries, tmp_path, "--no-tcp") as server:
        assert PORT not in server.facts
        assert ports_of(server.process.pid) == {port_of(server.address), port_of(server.status)}


def test_without_the_port_blocks_go_over_grpc(
    binaries: Path, tmp_path: Path, prompt: Prompt
) -> None:
    with (
        shard(binaries, tmp_path, "--no-tcp", "--no-view") as server,
        reprise.Client(shards=[server.address]) as client,
    ):
        assert lanes_of(client, prompt, settle=1.5) == {"stream": 10}


def test_between_machines_blocks_take_the_port(
    binaries: Path, tmp_path: Path, prompt: Prompt
) -> None:
    """Without shared memory, which is what another machine is without."""
    with (
        shard(binaries, tmp_path, "--no-view") as server,
        reprise.Client(shards=[server.address]) as client,
    ):
        assert lanes_of(client, prompt) == {"tcp": 10}
        after = server.scrape()
        assert after.get("reprise_lane_blocks_total", lane="tcp", direction="read") == 10
        assert after.get("reprise_lane_offered", lane="tcp") == 1
        assert after.get("reprise_tcp_connections") >= 1


@pytest.mark.parametrize("listen", ["localhost:0", "0.0.0.0:0", "[::1]:0", "[::]:0"])
def test_the_port_is_on_every_address_that_grpc_is_on(
    binaries: Path, tmp_path: Path, prompt: Prompt, listen: str
) -> None:
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(listen[:-2], listen[:-2])
    with (
        shard(binaries, tmp_path, "--no-view", "--insecure", listen=listen) as server,
        reprise.Client(shards=[f"{host}:{port_of(server.address)}"]) as client,
    ):
        assert lanes_of(client, prompt) == {"tcp": 10}


@contextmanager
def forwarded(to: str) -> Iterator[str]:
    """A port that leads to `to`, as a port forwarding or a gateway does: to that one alone."""
    host, port = to.rsplit(":", 1)
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = [listener]

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                here, _ = listener.accept()
            except OSError:
                return
            there = socket.create_connection((host, int(port)))
            ends.extend((here, there))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


def test_a_port_that_is_out_of_reach_costs_nothing_but_the_lane(
    binaries: Path, tmp_path: Path, prompt: Prompt
) -> None:
    with (
        shard(binaries, tmp_path, "--no-view", listen="127.0.0.2:0") as server,
        forwarded(server.address) as address,
        reprise.Client(shards=[address]) as client,
    ):
        assert lanes_of(client, prompt, settle=1.5) == {"stream": 10}


def seen_by_doctor(binaries: Path, address: str) -> dict[str, str]:
    answer = subprocess.run(
        [binaries / "reprise", "doctor", "--shard", address, "-o", "json"],
        capture_output=True, text=True, timeout=TIMEOUT)
    (found,) = [one for one in json.loads(answer.stdout)["findings"] if one["name"] == "tcp lane"]
    return dict(found)


def test_doctor_says_whether_the_port_is_in_reach(binaries: Path, tmp_path: Path) -> None:
    with shard(binaries, tmp_path) as server:
        found = seen_by_doctor(binaries, server.address)
        assert (found["verdict"], found["found"]) == ("ok", "reached at 1 of 1")
    with shard(binaries, tmp_path, "--no-tcp") as server:
        found = seen_by_doctor(binaries, server.address)
        assert found["verdict"] == "absent" and "offers none" in found["found"]
    with shard(binaries, tmp_path, listen="127.0.0.2:0") as server, forwarded(
        server.address
    ) as address:
        found = seen_by_doctor(binaries, address)
        assert found["verdict"] == "absent" and "refused" in found["found"]
        assert "--tcp-port" in found["next"]


def test_a_port_that_was_named_is_that_or_no_start(binaries: Path, tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        start = [str(binaries / "reprise-shard"), "--dram", "32MiB", "--tcp-port", port]
        refused = subprocess.run(start, capture_output=True, text=True, timeout=TIMEOUT)
    assert refused.returncode == 1
    assert port in refused.stderr and "--tcp-port" in refused.stderr
    with shard(binaries, tmp_path, "--tcp-port", port) as server:
        assert server.facts[PORT] == int(port)


def test_encrypted_where_grpc_is(
    binaries: Path, tmp_path: Path, authority: Authority, prompt: Prompt
) -> None:
    with (
        shard(binaries, tmp_path, "--no-view", *flags(authority.issue(FLEET))) as server,
        reprise.Client(shards=[server.address], tls=authority.issue(ACME)) as client,
    ):
        assert lanes_of(client, prompt) == {"tcp": 10}
        # Whoever has no key hears nothing, whatever it says.
        hello = struct.pack("<IIIIQ", 0x31545052, 0, 0, 8, 1)
        with socket.create_connection(("127.0.0.1", server.facts[PORT]), TIMEOUT) as stranger:
            stranger.sendall(hello)
            answer = b""
            try:
                while part := stranger.recv(4096):
                    answer += part
            except ConnectionResetError:
                pass
        assert b"RPT1" not in answer


def test_replicas_take_the_port_too(
    binaries: Path, own_cluster: Start, prompt: Prompt
) -> None:
    cluster, spec = own_cluster(shards=2), make_spec()

    def written() -> int:
        described = subprocess.run(
            [binaries / "reprise", "describe", "--router", cluster.router, "-o", "json"],
            check=True, capture_output=True, text=True, timeout=TIMEOUT)
        return sum(shard["counters"]["lane_tcp_blocks_written_total"]
                   for shard in json.loads(described.stdout)["shards"])

    # The client writes by the stream lane, so that only copies may take the port: the first ones
    # may go before it was reached.
    with reprise.Client(router=cluster.router, lanes=["stream"]) as client:
        end = time.monotonic() + TIMEOUT
        while written() == 0:
            assert time.monotonic() < end
            keys, blocks = reprise.block_keys(prompt(160)), random_blocks(spec, 10)
            assert client.store(spec, keys, blocks).stored == 10
            await_replicas(client, spec, keys)
