"""Every shard is restarted in turn under load: no call fails, and what was stored stays."""

from pathlib import Path

import numpy as np
import reprise
from conftest import make_spec, random_blocks
from fleet import running
from load import BLOCKS, CONVERSATIONS, Load

IDLE = 24
HIT_LOSS_MAX = 0.05


def store_idle(router: str, spec: reprise.CacheSpec) -> list[np.ndarray]:
    """Conversations that nobody touches while the shards restart."""
    chains = [reprise.block_keys(np.arange(160) + 500_000 + 1000 * c) for c in range(IDLE)]
    with reprise.Client(router=router, name="idle") as client:
        for number, keys in enumerate(chains):
            blocks = random_blocks(spec, BLOCKS, seed=1000 + number)
            assert client.store(spec, keys, blocks, session=f"idle-{number}").stored == BLOCKS
    return chains


def found_idle(router: str, spec: reprise.CacheSpec, chains: list[np.ndarray]) -> int:
    """Their blocks that are still there, and right."""
    found = 0
    with reprise.Client(router=router, name="idle again") as client:
        for number, keys in enumerate(chains):
            back = np.zeros((len(keys), spec.block_bytes), np.uint8)
            with client.acquire(spec, keys, session=f"idle-{number}") as run:
                got = run.fetch(back[: run.blocks]).blocks if run.blocks else 0
            assert np.array_equal(back[:got], random_blocks(spec, BLOCKS, seed=1000 + number)[:got])
            found += got
    return found


def test_a_rolling_restart_fails_no_call_and_keeps_the_hits(binaries: Path, tmp_path: Path) -> None:
    spec = make_spec()
    with running(binaries, tmp_path) as fleet:
        idle = store_idle(fleet.router, spec)
        load = Load(fleet.router, spec)
        try:
            load.await_no_shard_left_out()
            for index in range(3):
                fleet.restart(index)
                fleet.await_all_alive()
                load.await_no_shard_left_out()
        finally:
            load.stop()
        assert found_idle(fleet.router, spec, idle) >= (1 - HIT_LOSS_MAX) * IDLE * BLOCKS
        assert load.failures == []
        assert load.asked > 3 * CONVERSATIONS * BLOCKS, "there was load all the time"
        assert load.found >= (1 - HIT_LOSS_MAX) * load.asked, f"{load.found} of {load.asked}"
