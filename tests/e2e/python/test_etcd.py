"""A cluster whose members register themselves in etcd, which may go away unnoticed."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import make_spec
from fleet import PATIENCE_SECONDS, free_ports, running
from load import Load

THREE = {f"shard-{i}": "alive" for i in range(3)}
AWAY_SECONDS = 4.0


class Etcd:
    """One etcd server, which a test stops, kills and starts again."""

    def __init__(self, executable: str, folder: Path) -> None:
        """Starts it."""
        client, peer = free_ports(2)
        self.address = f"127.0.0.1:{client}"
        us = f"http://127.0.0.1:{peer}"
        self._command = [executable, "--name", "one", "--data-dir", str(folder / "etcd")]
        self._command += ["--logger", "zap", "--log-outputs", str(folder / "etcd.log")]
        self._command += ["--listen-client-urls", f"http://{self.address}"]
        self._command += ["--advertise-client-urls", f"http://{self.address}"]
        self._command += ["--listen-peer-urls", us, "--initial-advertise-peer-urls", us]
        self._command += ["--initial-cluster", f"one={us}"]
        self.start()

    def start(self) -> None:
        """With the data that it had."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def end(self) -> None:
        """At once."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    executable = os.environ.get("REPRISE_ETCD")
    if executable is None:
        pytest.skip("$REPRISE_ETCD names no etcd; `./dev test` brings one along")
    server = Etcd(executable, tmp_path)
    yield server
    server.end()


def soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def trouble_seconds(status: str) -> float:
    text = urllib.request.urlopen(f"http://{status}/metrics", timeout=10).read().decode()
    (line,) = [t for t in text.splitlines() if t.startswith("reprise_membership_trouble_seconds ")]
    return float(line.split()[1])


def test_shards_come_and_go_without_a_list(binaries: Path, tmp_path: Path, etcd: Etcd) -> None:
    with running(binaries, tmp_path, ["--etcd", etcd.address]) as fleet:
        assert etcd.address in fleet.describe()["router"]["membership"]["source"]
        assert fleet.add_shard() == "shard-3"
        fleet.await_states({**THREE, "shard-3": "alive"})
        # Who is stopped says good-bye, and nobody has to be told.
        assert fleet.end_shard(3) == 0
        fleet.await_states(THREE)
        # Who is killed does not: it is dead and known to be missing.
        fleet.end_shard(2, signal.SIGKILL)
        fleet.await_states({**THREE, "shard-2": "dead"})


def test_etcd_may_go_away_and_nothing_fails(binaries: Path, tmp_path: Path, etcd: Etcd) -> None:
    spec = make_spec()
    with running(binaries, tmp_path, ["--etcd", etcd.address]) as fleet:
        load = Load(fleet.router, spec)
        try:
            load.await_no_shard_left_out()
            etcd.process.send_signal(signal.SIGSTOP)
            time.sleep(AWAY_SECONDS)
            etcd.end()
            assert soon(lambda: trouble_seconds(fleet.status) > AWAY_SECONDS / 2)
            described = fleet.describe()
            assert "does not answer" in described["router"]["membership"]["trouble"]
            assert fleet.states() == THREE
            etcd.start()
            assert soon(lambda: trouble_seconds(fleet.status) == 0)
            assert soon(
                lambda: all(s["membership"]["trouble"] == "" for s in fleet.describe()["shards"])
            )
        finally:
            load.stop()
        assert load.failures == []
        assert load.found == load.asked, "not a block was lost"
        assert fleet.states() == THREE
        # The members of before are members still, and new ones are seen again.
        fleet.add_shard()
        fleet.await_states({**THREE, "shard-3": "alive"})


def ready(status: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{status}/readyz", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_router_that_never_knew_a_member_is_not_ready(binaries: Path) -> None:
    command = [binaries / "reprise-router", "--status-listen", "127.0.0.1:0", "-o", "json"]
    for flags, code in ((["--etcd", f"127.0.0.1:{free_ports(1)[0]}"], 503), ([], 200)):
        process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            status = json.loads(process.stdout.readline())["status_address"]
            assert soon(lambda code=code, status=status: ready(status)[0] == code)
            assert code == 200 or "no members are known yet" in ready(status)[1]
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--insecure", "--listen", "0.0.0.0:0"], "give --advertise HOST:PORT"),
        (["--advertise", "here"], "--advertise, as --etcd tells them to others"),
        (["--id", "shard 0"], "--id and --advertise"),
    ],
)
def test_what_others_could_not_use_is_refused(
    binaries: Path, flags: list[str], complaint: str
) -> None:
    command = [binaries / "reprise-shard", "--etcd", "127.0.0.1:1", *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert complaint in ended.stderr


@pytest.mark.parametrize("name", ["reprise-shard", "reprise-router"])
def test_two_sources_of_members_are_refused(binaries: Path, name: str) -> None:
    for flags in (
        ["--members", "m.yaml", "--etcd", "h:1"],
        ["--members-dns", "d", "--etcd", "h:1"],
        ["--members-dns", "d", "--members", "m.yaml"],
        ["--etcd-prefix", "/p/"],
        ["--members="],
        ["--members-dns="],
        ["--etcd="],
    ):
        command = [binaries / name, *flags]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert ended.returncode == 2, flags
        assert flags[2 if len(flags) > 2 else 0].rstrip("=") in ended.stderr
