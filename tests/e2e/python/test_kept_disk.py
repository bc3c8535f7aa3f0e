"""A disk that is kept over restarts: what the next process finds of what the last one had."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import reprise
from conftest import make_spec, random_blocks
from demo.cluster import Cluster
from kept_shard import (
    PATIENCE_SECONDS, PROMPT_BLOCKS, KeptShard, Prompt, Prompts, Writer, by_tier, described, fetch,
    kill, new_key, stop)
from status_port import serving
from test_tls import ACME, FLEET, OTHER, Authority, flags

ROUNDS = 8

Start = Callable[..., Cluster]


@pytest.fixture
def shard(binaries: Path, tmp_path: Path) -> KeptShard:
    return KeptShard(binaries, tmp_path)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["sigterm", "sigint"])
def test_all_that_a_shard_had_when_it_was_stopped_is_there_after_a_restart(
    shard: KeptShard, prompt: Prompt, how: signal.Signals
) -> None:
    prompts = Prompts(prompt)
    blocks = 8 * PROMPT_BLOCKS
    with reprise.Client(shards=[shard.address]) as client:
        with shard.running() as server:
            assert shard.kept()["restored_blocks"] == 0
            prompts.store(client)
            tiers = by_tier(prompts.fetch(client))
            assert tiers["dram"] >= PROMPT_BLOCKS, "what memory alone has"
            server.process.send_signal(how)
            assert server.process.wait(PATIENCE_SECONDS) == 0
        with shard.running() as server:
            assert shard.kept() == {"restored_blocks": blocks, "waiting_blocks": 0,
                                    "to_scrub_blocks": 0, "clean": True,
                                    "why_empty": "", "why_not_kept": ""}
            text = subprocess.run(
                [shard.binaries / "reprise", "describe", "--shard", shard.address], check=True,
                capture_output=True, text=True).stdout  # fmt: skip
            assert f"shard-0 keeps its disk: {blocks} blocks of its last process\n" in text
            scrape = server.scrape()
            assert scrape.get("reprise_restored_blocks_total") == blocks
            assert scrape.get("reprise_disk_kept") == 1
            with reprise.Client(shards=[shard.address]) as fresh:
                assert by_tier(prompts.fetch(fresh)) == {"nvme": blocks}
            prompts.await_served(client)
            assert by_tier(prompts.fetch(client)) == {"nvme": blocks}
            # It is a cache like any other: there is room for what is new.
            more = Prompts(prompt)
            more.store(client)
            assert by_tier(more.fetch(client))["dram"] > 0


def test_a_cluster_that_is_stopped_by_ctrl_c_has_everything_when_it_is_up_again(
    binaries: Path, own_cluster: Start, tmp_path: Path, prompt: Prompt
) -> None:
    prompts, sessions = Prompts(prompt), [str(uuid.uuid4()) for _ in range(8)]
    (tmp_path / "disk").mkdir()
    up = {"shards": 3, "replication": 1, "dram": "8MiB", "arguments": [
        "--nvme", "40MiB", "--nvme-dir", str(tmp_path / "disk"), "--nvme-keep", "--nvme-key",
        new_key(tmp_path / "key")]}  # fmt: skip
    first = own_cluster(**up)
    with reprise.Client(router=first.router) as client:
        for keys, blocks, session in zip(prompts.keys, prompts.blocks, sessions, strict=True):
            result = client.store(prompts.spec, keys, blocks, session=session)
            assert (result.stored, result.error) == (PROMPT_BLOCKS, None)
        assert by_tier(prompts.fetch(client))["dram"] > 0, "what memory alone has"
    os.kill(os.getsid(first.router_pid), signal.SIGINT)  # it leads its session, as in a terminal
    first.stop()
    second = own_cluster(**up)
    shards = described(binaries, "--router", second.router)
    restored = [shard["kept_disk"]["restored_blocks"] for shard in shards]
    assert sum(restored) == 8 * PROMPT_BLOCKS and sum(count > 0 for count in restored) > 1
    with reprise.Client(router=second.router) as client:
        # Without the session nobody but the router knows where they are.
        assert by_tier(prompts.fetch(client)) == {"nvme": 8 * PROMPT_BLOCKS}
        for keys, blocks, session in zip(prompts.keys, prompts.blocks, sessions, strict=True):
            found = fetch(client, prompts.spec, keys, blocks, session)
            assert (found.blocks, found.shards) == (PROMPT_BLOCKS, 1)


def test_a_crash_costs_what_memory_had_and_ends_come_back_with_their_beginnings(
    shard: KeptShard, prompt: Prompt
) -> None:
    prompts = Prompts(prompt)
    with shard.running() as server, reprise.Client(shards=[shard.address]) as client:
        prompts.store(client)
        shard.await_journal()
        before = prompts.fetch(client)
        kill(server)
    on_disk = by_tier(before)["nvme"]
    whole = sum(one.tiers == {"nvme": PROMPT_BLOCKS} for one in before)
    ends = on_disk - whole * PROMPT_BLOCKS
    assert whole > 0 and ends > 0, "prompts that lie on the disk, and ends of some"
    with shard.running() as server, reprise.Client(shards=[shard.address]) as client:
        shard.await_scrubbed()
        kept = shard.kept()
        assert (kept["restored_blocks"], kept["waiting_blocks"]) == (on_disk, ends)
        after = prompts.fetch(client)
        assert [one.blocks for one in after] == [
            PROMPT_BLOCKS if one.tiers == {"nvme": PROMPT_BLOCKS} else 0 for one in before]
        adopted = server.scrape().get("reprise_adopted_blocks_total")
        for keys, blocks, had in zip(prompts.keys, prompts.blocks, before, strict=True):
            lost = had.tiers.get("dram", 0)
            if lost == 0 or lost == PROMPT_BLOCKS:
                continue
            # All but the last of what is lost changes nothing; the last one brings the end back.
            for last in (lost - 1, lost):
                assert client.store(prompts.spec, keys[:last], blocks[:last]).error is None
                found = fetch(client, prompts.spec, keys, blocks).blocks
                assert found == (last if last < lost else PROMPT_BLOCKS)
        scrape = server.scrape()
        assert scrape.get("reprise_adopted_blocks_total") - adopted == ends
        assert scrape.get("reprise_unadopted_blocks_total") == 0
        assert scrape.get("reprise_scrubbed_blocks_total") == on_disk
        assert scrape.get("reprise_disk_waiting_blocks") == 0
        assert scrape.get("reprise_quarantined_blocks_total") == 0


def test_killed_at_any_time_a_shard_starts_again_and_finds_right_bytes_or_none(
    binaries: Path, tmp_path: Path
) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    rng = random.Random(seed)
    shard, writer, found = KeptShard(binaries, tmp_path, nvme="128MiB"), Writer(), 0
    for _ in range(ROUNDS):
        if rng.random() < 0.5:  # while it starts
            with (tmp_path / "starting.log").open("ab") as log:
                starting = subprocess.Popen([*shard.command, *shard.under_key], stdout=log,
                                            stderr=log)  # fmt: skip
            time.sleep(rng.uniform(0, 0.1))
            starting.kill()
            starting.wait()
        with shard.running() as server:
            assert shard.kept()["why_empty"] == ""
            if rng.random() < 0.5:
                shard.await_scrubbed()
            found += writer.check(shard.address)
            with writer.storing(shard.address, pause=rng.choice((0, 0.01))):
                time.sleep(rng.uniform(0.05, 1.5))
                if rng.random() < 0.3:  # while it saves what is in memory
                    server.process.send_signal(signal.SIGTERM)
                    time.sleep(rng.uniform(0, 0.05))
                kill(server)
    with shard.running() as server:
        found += writer.check(shard.address)
        shard.await_scrubbed()
        assert shard.kept()["why_not_kept"] == ""
    print(f"{found} blocks found of {writer.prompts} prompts")
    assert found > 0


def varint(number: int) -> bytes:
    """As protobuf writes it."""
    if number < 0x80:
        return bytes([number])
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7)


@pytest.mark.parametrize("encrypted", [True, False], ids=["aes-256", "none"])
def test_nothing_of_a_prompt_lies_on_the_disk_in_the_clear_unless_told_to(
    shard: KeptShard, encrypted: bool
) -> None:
    spec = make_spec(layers=4, head_dim=64)
    tokens = np.random.default_rng().integers(0, 128_000, 8 * spec.block_tokens, np.uint32)
    keys, blocks = reprise.block_keys(tokens), random_blocks(spec, 8, seed=int(tokens[0]))
    session = f"session-{uuid.uuid4()}"
    cipher = shard.under_key if encrypted else ["--nvme-cipher", "none"]
    with shard.running(*cipher) as server, reprise.Client(shards=[shard.address]) as client:
        assert client.store(spec, keys, blocks, tokens=tokens, session=session).stored == 8
        stop(server)
    files = {path.name: path for path in shard.disk.iterdir()}
    assert set(files) == {"reprise-shard-0.blocks", "reprise-shard-0.journal"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    lies_there = {name: path.read_bytes() for name, path in files.items()}
    block_bytes = [block[at : at + 64].tobytes() for block in blocks for at in (0, 32_768)]
    told = [session.encode(), b"default", spec.model.encode(), keys[3].tobytes(),
            b"".join(varint(int(token)) for token in tokens[: spec.block_tokens])]  # fmt: skip
    seen = [secret in lies_there["reprise-shard-0.blocks"] for secret in block_bytes]
    seen += [secret in lies_there["reprise-shard-0.journal"] for secret in told]
    assert seen == [not encrypted] * len(seen)
    if encrypted:
        for secret in (*block_bytes, *told, Path(shard.under_key[1]).read_bytes()):
            assert not any(secret in file for file in lies_there.values())
    with shard.running(*cipher), reprise.Client(shards=[shard.address]) as client:
        assert fetch(client, spec, keys, blocks, session).blocks == 8


REFUSED = [
    (["--nvme", "10MiB", "--nvme-keep"], "--nvme-keep needs --nvme-key"),
    (["--nvme", "10MiB", "--nvme-keep", "--nvme-key", "KEY", "--nvme-cipher", "none"],
     "--nvme-key is for --nvme-keep with --nvme-cipher aes-256"),
    (["--nvme", "10MiB", "--nvme-keep", "--nvme-key", "SHORT"], "has 31 bytes"),
    (["--nvme", "10MiB", "--nvme-keep", "--nvme-key", "MISSING"], "cannot be read from"),
    (["--nvme", "10MiB", "--nvme-keep", "--nvme-key", "."], "cannot be read from"),
    (["--nvme", "10MiB", "--nvme-key", "KEY"], "--nvme-key is for --nvme-keep"),
    (["--nvme-keep", "--nvme-key", "KEY"], "--nvme-keep has no disk to keep"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_a_disk_that_cannot_be_kept_is_said_at_start(
    binaries: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    new_key(tmp_path / "KEY")
    (tmp_path / "SHORT").write_bytes(os.urandom(31))
    (tmp_path / "disk").mkdir()
    ended = subprocess.run(
        [binaries / "reprise-shard", *arguments, "--nvme-dir", "disk"], cwd=tmp_path,
        capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert ended.returncode != 0
    assert says in ended.stderr
    assert not list((tmp_path / "disk").iterdir())


def test_reprise_up_says_why_its_shards_keep_no_disk(binaries: Path, tmp_path: Path) -> None:
    command = [str(binaries / "reprise"), "up", "--folder", str(tmp_path / "logs"), "--nvme-dir",
               str(tmp_path), "--nvme-keep"]  # fmt: skip
    size = ["--nvme", "10MiB"]
    for more, says in (([], "--nvme-keep requires --nvme"), (size, "--nvme-keep needs --nvme-key")):
        ended = subprocess.run([*command, *more], capture_output=True, text=True,
                               timeout=PATIENCE_SECONDS)  # fmt: skip
        assert ended.returncode != 0
        assert says in ended.stderr


def test_two_processes_do_not_have_one_disk(shard: KeptShard, prompt: Prompt) -> None:
    spec, keys = make_spec(), reprise.block_keys(prompt(160))
    blocks = random_blocks(spec, 10)
    second = [shard.command[0], *shard.arguments, *shard.under_key]
    with shard.running() as server, reprise.Client(shards=[shard.address]) as client:
        assert client.store(spec, keys, blocks).stored == 10
        ended = subprocess.run(second, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
        assert ended.returncode != 0
        assert f"another process has {shard.disk / 'reprise-shard-0.blocks'}" in ended.stderr
        assert fetch(client, spec, keys, blocks).blocks == 10
        # Another id is another disk in the same folder.
        with serving(Path(second[0]), *second[1:], "--id", "shard-1", log=shard.disk / "log"):
            pass
        stop(server)
    with shard.running(), reprise.Client(shards=[shard.address]) as client:
        assert fetch(client, spec, keys, blocks).blocks == 10


def test_another_key_is_refused_and_costs_nothing(
    shard: KeptShard, tmp_path: Path, prompt: Prompt
) -> None:
    spec, keys = make_spec(), reprise.block_keys(prompt(160))
    blocks = random_blocks(spec, 10)
    another = ["--nvme-key", new_key(tmp_path / "another")]
    with shard.running() as server, reprise.Client(shards=[shard.address]) as client:
        assert client.store(spec, keys, blocks).stored == 10
        stop(server)
    for cipher, says in ((another, "was written under another key"),
                         (["--nvme-cipher", "none"], "is enciphered, and there is no key")):
        ended = subprocess.run([*shard.command, *cipher], capture_output=True, text=True,
                               timeout=PATIENCE_SECONDS)  # fmt: skip
        assert ended.returncode != 0
        assert f"the journal {shard.journal} {says}" in ended.stderr
    with shard.running() as server, reprise.Client(shards=[shard.address]) as client:
        assert fetch(client, spec, keys, blocks).blocks == 10
        stop(server)
    # Who means it removes the journal.
    shard.journal.unlink()
    with shard.running(*another), reprise.Client(shards=[shard.address]) as client:
        assert (shard.kept()["restored_blocks"], shard.kept()["why_empty"]) == (0, "")
        assert client.acquire(spec, keys).blocks == 0


def test_a_journal_that_nobody_can_read_is_an_empty_disk_that_says_why(
    shard: KeptShard, prompt: Prompt
) -> None:
    spec, keys = make_spec(), reprise.block_keys(prompt(160))
    blocks = random_blocks(spec, 10)
    shard.journal.write_bytes(b"of another program\n" * 100)
    with shard.running() as server, reprise.Client(shards=[shard.address]) as client:
        kept = shard.kept()
        assert (kept["restored_blocks"], kept["why_not_kept"]) == (0, "")
        assert f"the journal {shard.journal} is no journal" in kept["why_empty"]
        assert client.store(spec, keys, blocks).stored == 10
        stop(server)
    with shard.running(), reprise.Client(shards=[shard.address]) as client:
        assert (shard.kept()["restored_blocks"], shard.kept()["why_empty"]) == (10, "")
        assert fetch(client, spec, keys, blocks).blocks == 10


def test_a_disk_that_is_not_kept_is_not_described(binaries: Path, tmp_path: Path) -> None:
    with serving(binaries / "reprise-shard", "--nvme", "10MiB", "--nvme-dir", str(tmp_path),
                 log=tmp_path / "log") as server:
        (shard,) = described(binaries, "--shard", server.address)
        assert "kept_disk" not in shard
        assert server.scrape().get("reprise_disk_kept") == 0


def test_each_tenants_blocks_come_back_as_its_own(
    own_cluster: Start, tmp_path: Path, prompt: Prompt
) -> None:
    authority = Authority(tmp_path)
    fleet, tenants = authority.issue(FLEET), [authority.issue(ACME), authority.issue(OTHER)]
    (tmp_path / "disk").mkdir()
    up = {"shards": 1, "replication": 1, "dram": "8MiB", "arguments": [
        *flags(fleet), "--nvme", "40MiB", "--nvme-dir", str(tmp_path / "disk"), "--nvme-keep",
        "--nvme-key", new_key(tmp_path / "key")]}  # fmt: skip
    # One prompt and one spec, and each tenant's own bytes; the third is the first one's alone.
    spec, shared, own = make_spec(), reprise.block_keys(prompt(160)), reprise.block_keys(prompt(80))
    blocks = [random_blocks(spec, 10, seed=n) for n in range(3)]
    cluster = own_cluster(**up)
    for number, tls in enumerate(tenants):
        with reprise.Client(router=cluster.router, tls=tls) as client:
            assert client.store(spec, shared, blocks[number]).stored == 10
            if number == 0:
                assert client.store(spec, own, blocks[2][:5]).stored == 5
    cluster.stop()
    cluster = own_cluster(**up)
    for number, tls in enumerate(tenants):
        with reprise.Client(router=cluster.router, tls=tls) as client:
            assert fetch(client, spec, shared, blocks[number]).blocks == 10
            assert fetch(client, spec, own, blocks[2][:5]).blocks == (5 if number == 0 else 0)
