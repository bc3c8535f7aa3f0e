"""A cluster that asks everybody who they are, with certificates as openssl makes them."""

import json
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster
from status_port import serving

FLEET, OPERATOR = "spiffe://test/reprise", "spiffe://test/ops"
ACME, OTHER = "spiffe://test/acme", "spiffe://test/other"
STRANGER = "spiffe://elsewhere/worker"
REFUSED, USAGE = 5, 2
PATIENCE_SECONDS = 30.0

Prompt = Callable[[int], np.ndarray]


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ca = folder / "ca.pem"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", str(folder / "ca.key"), "-out", str(self.ca), "-subj", "/CN=test",
                "-days", "1")  # fmt: skip

    def issue(self, spiffe_id: str) -> reprise.Tls:
        base = str(self._folder / spiffe_id.rsplit("/", 1)[1])
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", f"{base}.key", "-out", f"{base}.csr", "-subj", "/CN=x")  # fmt: skip
        Path(f"{base}.ext").write_text(f"subjectAltName=URI:{spiffe_id}\n")
        openssl("x509", "-req", "-in", f"{base}.csr", "-CA", str(self.ca), "-CAkey",
                str(self._folder / "ca.key"), "-days", "1", "-extfile", f"{base}.ext", "-out",
                f"{base}.pem")  # fmt: skip
        return reprise.Tls(str(self.ca), f"{base}.pem", f"{base}.key", [FLEET])


def flags(tls: reprise.Tls) -> list[str]:
    return ["--tls-ca", tls.ca, "--tls-cert", tls.certificate, "--tls-key", tls.key]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure(own_cluster: Callable[..., Cluster], authority: Authority) -> Cluster:
    return own_cluster(shards=3, dram="32MiB", arguments=flags(authority.issue(FLEET)))


def stored(client: reprise.Client, spec: reprise.CacheSpec, keys: np.ndarray) -> int:
    with client.acquire(spec, keys, session="s") as run:
        return run.blocks


def holders_of(client: reprise.Client, spec: reprise.CacheSpec, keys: np.ndarray) -> list[str]:
    shards = client.explain(spec, keys)["shards"]
    return [shard["shard_id"] for shard in shards if shard.get("run_blocks") == len(keys)]


def test_a_tenants_conversation_survives_its_shard_and_is_nobody_elses(
    secure: Cluster, authority: Authority, prompt: Prompt
) -> None:
    spec, keys = make_spec(), reprise.block_keys(prompt(160))
    blocks = random_blocks(spec, 10)
    with (
        reprise.Client(router=secure.router, tls=authority.issue(ACME)) as acme,
        reprise.Client(router=secure.router, tls=authority.issue(OTHER)) as other,
        reprise.Client(router=secure.router, timeout=1.0) as nobody,
    ):
        assert acme.store(spec, keys, blocks, session="s").stored == 10
        assert stored(acme, spec, keys) == 10
        assert stored(other, spec, keys) == 0
        assert nobody.acquire(spec, keys).blocks == 0, "plaintext is a miss, not an exception"

        end = time.monotonic() + PATIENCE_SECONDS
        while len(holders := holders_of(acme, spec, keys)) < 2:
            assert time.monotonic() < end, "no copy was made"
        secure.kill_shard(holders[0])
        back = np.empty_like(blocks)
        with acme.acquire(spec, keys, session="s") as run:
            assert run.blocks == 10
            assert run.fetch(back).blocks == 10
        assert np.array_equal(back, blocks)
        assert stored(other, spec, keys) == 0


def test_a_tenants_quota_is_by_its_certificate_and_nobody_elses_blocks_go_for_it(
    own_cluster: Callable[..., Cluster], authority: Authority, prompt: Prompt
) -> None:
    spec = make_spec(layers=4, head_dim=64)  # blocks of 64 KiB
    quota = ["--tenant-quota", f"{ACME}=2MiB"]
    cluster = own_cluster(
        shards=1, replication=1, dram="32MiB", arguments=[*flags(authority.issue(FLEET)), *quota])
    with (
        reprise.Client(router=cluster.router, tls=authority.issue(ACME)) as acme,
        reprise.Client(router=cluster.router, tls=authority.issue(OTHER)) as other,
    ):
        chains = [reprise.block_keys(prompt(20 * 16)) for _ in range(4)]
        others = reprise.block_keys(prompt(40 * 16))
        assert other.store(spec, others, random_blocks(spec, 40), session="s").stored == 40
        for keys in chains:  # 80 blocks of which a quota of 32 keeps the last
            assert acme.store(spec, keys, random_blocks(spec, 20), session="s").stored == 20
        assert [stored(acme, spec, keys) for keys in chains] == [0, 0, 12, 20]
        assert stored(other, spec, others) == 40, "the coldest of all, and another tenant's"


def test_who_is_not_served_is_told_so_and_computes(
    secure: Cluster, authority: Authority, prompt: Prompt
) -> None:
    spec, keys = make_spec(), reprise.block_keys(prompt(160))
    with reprise.Client(router=secure.router, tls=authority.issue(STRANGER)) as stranger:
        with stranger.acquire(spec, keys) as run:
            assert run.blocks == 0
            assert run.error and f"{STRANGER} is not among those" in run.error
        result = stranger.store(spec, keys, random_blocks(spec, 10))
        assert (result.stored, result.refused) == (0, 10)
        assert result.error and "--tls-allow-id" in result.error


def test_the_command_line_is_who_its_certificate_says(
    binaries: Path, secure: Cluster, authority: Authority
) -> None:
    def run(tls: reprise.Tls, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [binaries / "reprise", *arguments, "--router", secure.router, *flags(tls)]
        return subprocess.run([*command, "--tls-server-id", FLEET], capture_output=True, text=True)

    tenant, fleet = authority.issue(ACME), authority.issue(FLEET)
    described = run(tenant, "describe", "-o", "json")
    assert described.returncode == 0, described.stderr
    assert len(json.loads(described.stdout)["shards"]) == 3
    assert run(tenant, "doctor").returncode == 0
    refused = run(tenant, "drain", "shard-0")
    assert refused.returncode == REFUSED and ACME in refused.stderr, refused.stderr
    assert run(tenant, "get", "blocks").returncode == REFUSED
    assert run(fleet, "get", "blocks").returncode == 0
    drained = run(fleet, "drain", "shard-0")
    assert drained.returncode == 0, drained.stderr


def test_operators_see_what_everybody_stores_and_tenants_what_they_do(
    binaries: Path, secure: Cluster, authority: Authority, prompt: Prompt
) -> None:
    def specs(tls: reprise.Tls) -> list[dict[str, object]]:
        command = [binaries / "reprise", "get", "specs", "--router", secure.router, *flags(tls)]
        answer = subprocess.run([*command, "--tls-server-id", FLEET, "-o", "json"], check=True,
                                capture_output=True, text=True)  # fmt: skip
        return list(json.loads(answer.stdout)["specs"])

    tenants = {name: authority.issue(name) for name in (ACME, OTHER)}
    spec, keys = make_spec(), reprise.block_keys(prompt(32))
    for tls in tenants.values():
        with reprise.Client(router=secure.router, tls=tls) as client:
            assert client.store(spec, keys, random_blocks(spec, 2)).stored == 2
    assert {row["tenant"] for row in specs(authority.issue(FLEET))} == {ACME, OTHER}
    assert {row["tenant"] for row in specs(tenants[ACME])} == {ACME}


def test_the_end_of_the_certificate_is_told(
    binaries: Path, authority: Authority, tmp_path: Path
) -> None:
    name = "reprise_tls_certificate_expiry_timestamp_seconds"
    tls = authority.issue(FLEET)
    ends = subprocess.run(["openssl", "x509", "-in", tls.certificate, "-noout", "-enddate"],
                          check=True, capture_output=True, text=True).stdout  # fmt: skip
    expected = ssl.cert_time_to_seconds(ends.strip().removeprefix("notAfter="))
    for program in ("reprise-shard", "reprise-router"):
        log = tmp_path / f"{program}.log"
        with serving(binaries / program, *flags(tls), log=log) as server:
            assert server.scrape().get(name) == expected
            Path(tls.certificate).rename(f"{tls.certificate}.gone")
            assert server.scrape().get(name) == 0
            Path(f"{tls.certificate}.gone").rename(tls.certificate)
        with serving(binaries / program, log=log) as plain:
            assert plain.scrape().get(name) == 0


@pytest.mark.parametrize("program", ["reprise-shard", "reprise-router"])
def test_wrong_files_and_ids_are_named_before_anything_serves(
    binaries: Path, authority: Authority, tmp_path: Path, program: str
) -> None:
    tls = authority.issue(ACME)

    def complaint(*arguments: str) -> str:
        ended = subprocess.run([binaries / program, *arguments], capture_output=True, text=True,
                               timeout=PATIENCE_SECONDS)  # fmt: skip
        assert ended.returncode == 1, ended.stderr
        return ended.stderr

    assert "certificate is missing" in complaint("--tls-ca", tls.ca, "--tls-key", tls.key)
    missing = str(tmp_path / "none.pem")
    assert f"{missing} cannot be read" in complaint(*flags(reprise.Tls(missing, tls.certificate,
                                                                       tls.key)))  # fmt: skip
    assert "is not the key of" in complaint(
        *flags(reprise.Tls(tls.ca, tls.certificate, authority.issue(OTHER).key))
    )
    assert "--tls-fleet-id: \"shard\" is no SPIFFE id" in complaint(*flags(tls), "--tls-fleet-id",
                                                                    "shard")  # fmt: skip
    assert "without TLS nobody proves" in complaint("--tls-operator-id", OPERATOR)


def test_a_client_with_wrong_files_is_told_at_once(authority: Authority, tmp_path: Path) -> None:
    tls = authority.issue(ACME)
    with pytest.raises(reprise.RepriseError, match="none.pem cannot be read"):
        reprise.Client(router="127.0.0.1:9", tls=reprise.Tls(tls.ca, str(tmp_path / "none.pem"),
                                                             tls.key))  # fmt: skip
    with pytest.raises(ValueError, match="tls_key is missing"):
        reprise.Tls.from_settings({"tls_ca": tls.ca, "tls_cert": tls.certificate})
    assert reprise.Tls.from_settings({"tls_server_id": ()}) is None
    made = reprise.Tls.from_settings({"tls_ca": "a", "tls_cert": "b", "tls_key": "c",
                                      "tls_server_id": FLEET})  # fmt: skip
    assert made == reprise.Tls("a", "b", "c", (FLEET,))
