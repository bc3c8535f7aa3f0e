"""Copies are made even of what was stored before a shard knew that there are others."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import reprise
from conftest import make_spec, random_blocks

Prompt = Callable[[int], np.ndarray]

PATIENCE_SECONDS = 60.0


def test_a_chain_gets_its_replica_when_its_shard_meets_the_first_peer(
    binaries: Path, tmp_path: Path, prompt: Prompt
) -> None:
    members, shards = tmp_path / "members.yaml", []
    try:
        for name in ("shard-a", "shard-b"):
            command = [str(binaries / "reprise-shard"), "--id", name, "--listen", "127.0.0.1:0"]
            command += ["--dram", "16MiB", "--members", str(members), "-o", "json"]
            log = (tmp_path / f"{name}.log").open("wb")
            shards.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log))
        facts = [json.loads(shard.stdout.readline()) for shard in shards]
        spec, keys = make_spec(), reprise.block_keys(prompt(160))
        with reprise.Client(shards=[facts[0]["address"]]) as client:
            assert client.store(spec, keys, random_blocks(spec, 10), session="s").stored == 10

        rows = [f'  - {{id: {f["shard_id"]}, address: "{f["address"]}"}}' for f in facts]
        (tmp_path / "new").write_text("shards:\n" + "\n".join(rows) + "\n")
        os.rename(tmp_path / "new", members)

        end = time.monotonic() + PATIENCE_SECONDS
        with reprise.Client(shards=[facts[1]["address"]]) as peer:
            while peer.explain(spec, keys)["run_blocks"] < 10:
                assert time.monotonic() < end, "no copy was made"
                time.sleep(0.02)
    finally:
        for shard in shards:
            shard.kill()
            shard.wait()
