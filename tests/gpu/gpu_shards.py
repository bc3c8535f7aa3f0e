"""Two cache shards and a worker as processes on one GPU: blocks are kept in its memory and copied
from shard to shard by NCCL, also when one of the two is stopped or killed in the middle.

    python3 gpu_shards.py --bundle FOLDER --out FOLDER

NCCL takes the shards for two machines (`NCCL_HOSTID`, sockets over loopback): two ranks on one GPU
are for tests alone. Ends with 77, saying why, where this cannot be run. Every line says what was
seen; what the shards said is in FOLDER/shard-*.log.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0  # for the first chain that goes by NCCL: nothing else is allowed for it
AGAIN_S = 45.0  # a peer that failed is left alone for up to half a minute
BLOCKS = 48  # of a chain: 96 MiB
NCCL = {
    "CUDA_VISIBLE_DEVICES": "0",
    "NCCL_NET": "Socket",
    "NCCL_IB_DISABLE": "1",
    "NCCL_SOCKET_IFNAME": "lo",
    "NCCL_MNNVL_ENABLE": "0",
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_MAX_CTAS": "2",
    "NCCL_RAS_ENABLE": "0",
    "NCCL_DEBUG": "WARN",
}

failures: list[str] = []


def check(holds: bool, claim: str, seen: object = "") -> None:
    told = f": {seen}" if seen != "" else ""
    print(f"{'ok' if holds else 'FAILED'}: {claim}{told}", flush=True)
    if not holds:
        failures.append(claim)


def skip(why: str) -> None:
    print(f"SKIPPED: {why}")
    sys.exit(77)


def find_nccl() -> str | None:
    """The libnccl.so.2 to use: `REPRISE_NCCL_LIBRARY`, else the one of the nvidia-nccl wheel."""
    if path := os.environ.get("REPRISE_NCCL_LIBRARY"):
        return path
    try:
        found = importlib.util.find_spec("nvidia.nccl")
    except ModuleNotFoundError:
        return None
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "lib" / "libnccl.so.2"
        if path.exists():
            return str(path)
    return None


def eventually(holds: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


class Shard:
    """A shard process that a test may stop, continue, kill and start again."""

    def __init__(self, name: str, bundle: Path, folder: Path, out: Path, nccl: str) -> None:
        self.name = name
        self.address = "127.0.0.1:0"
        self._bundle = bundle
        self._members = folder / "members.yaml"
        self._log = (out / f"{name}.log").open("ab")
        self._nccl = nccl
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        environment = {**NCCL, **os.environ, "NCCL_HOSTID": self.name}
        self.process = subprocess.Popen(
            [self._bundle / "reprise-shard", "--id", self.name, "--listen", self.address,
             "--hbm", "1GiB", "--gpu", "0", "--dram", "256MiB", "--replication", "2",
             "--members", self._members, "--no-view", "--nccl", "on",
             "--nccl-library", self._nccl, "-o", "json"],
            env=environment, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        check(line.startswith("{"), f"{self.name} serves", line.strip() or "see its log")
        if not line.startswith("{"):
            sys.exit(1)
        self.address = json.loads(line)["address"]

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def describe(self) -> dict[str, Any]:
        """What `reprise describe` says of it; {} when it does not answer."""
        told = subprocess.run(
            [self._bundle / "reprise", "describe", "--shard", self.address, "-o", "json"],
            capture_output=True, text=True, timeout=30,
        )
        shards = json.loads(told.stdout)["shards"] if told.stdout else []
        return dict(shards[0]) if shards else {}

    def counter(self, name: str) -> int:
        return int(self.describe().get("counters", {}).get(name, 0))


class Worker:
    """Stores chains at one shard and reads them back at any."""

    def __init__(self, site: Path) -> None:
        sys.path.insert(0, str(site))
        import numpy
        import reprise

        self._reprise: Any = reprise
        self._numpy: Any = numpy
        self.spec = reprise.CacheSpec("llama-3-8b", layers=32, kv_heads=8, head_dim=128)
        self._chains = 0

    def chain(self) -> tuple[Any, Any]:
        """Keys and content of a chain that nobody has."""
        self._chains += 1
        start = self._chains * 1_000_000
        tokens = list(range(start, start + BLOCKS * self.spec.block_tokens))
        random = self._numpy.random.default_rng(self._chains)
        content = random.integers(0, 256, (BLOCKS, self.spec.block_bytes), self._numpy.uint8)
        return self._reprise.block_keys(tokens, self.spec.block_tokens), content

    def client(self, shard: Shard, **options: Any) -> Any:
        return self._reprise.Client(shards=[shard.address], **options)

    def store(self, shard: Shard, chain: tuple[Any, Any]) -> int:
        with self.client(shard, timeout=20) as client:
            return int(client.store(self.spec, chain[0], chain[1]).stored)

    def go_on(self, shard: Shard, chain: tuple[Any, Any]) -> int:
        """Stores one block more of the chain at a shard that may lack the others; those stored."""
        keys, content = chain
        tokens = list(range(self.spec.block_tokens))
        more = self._reprise.block_keys(tokens, self.spec.block_tokens, parent=bytes(keys[-1]))
        longer = self._numpy.concatenate([keys, more])
        with self.client(shard, timeout=40) as client:
            return int(client.store(self.spec, longer, content[:1], first=len(keys)).stored)

    def right(self, shard: Shard, chain: tuple[Any, Any]) -> int:
        """How many blocks of the chain the shard has, all of them right; -1: a wrong byte."""
        keys, content = chain
        with self.client(shard, timeout=20) as client:
            with client.acquire(self.spec, keys) as run:
                if run.blocks == 0:
                    return 0
                back = self._numpy.empty_like(content[: run.blocks])
                blocks = int(run.fetch(back).blocks)
                same = self._numpy.array_equal(back[:blocks], content[:blocks])
                return blocks if same else -1


def replicate(worker: Worker, home: Shard, peer: Shard, what: str, by_nccl_s: float) -> None:
    """Stores chains at `home` until one came to `peer` by NCCL, whole and right, for so long.

    After a failure the stream lane goes on at once and NCCL when its link is rebuilt and it is the
    faster one; over loopback sockets and one GPU for two ranks it is not always.
    """
    end = time.monotonic() + by_nccl_s
    tries, by_nccl = 0, 0
    right = 0
    while not (by_nccl >= BLOCKS or right == BLOCKS and by_nccl_s < PATIENCE_S):
        if time.monotonic() > end:
            break
        before = peer.counter("lane_nccl_blocks_written_total")
        chain = worker.chain()
        worker.store(home, chain)
        tries += 1
        eventually(lambda: worker.right(peer, chain) == BLOCKS, 15)
        by_nccl = peer.counter("lane_nccl_blocks_written_total") - before
        right = worker.right(peer, chain)
        if right not in (BLOCKS, 0):
            check(right > 0, f"{what}: a copy is right as far as it goes", right)
    wanted = BLOCKS if by_nccl_s == PATIENCE_S else 0
    check(by_nccl >= wanted and right == BLOCKS, f"{what}: a chain is copied, right",
          f"{by_nccl} of {BLOCKS} blocks by NCCL at try {tries}, {right} right at {peer.name}")


def gpu_worker(worker: Worker, shard: Shard, nccl: str) -> None:
    """A worker whose K/V is in GPU memory stores to and fetches from a shard by NCCL.

    The link is made in the background: until it is up blocks go by the stream lane.
    """
    if importlib.util.find_spec("torch") is None:
        print("SKIPPED the worker on the GPU: this Python has no torch")
        return
    import torch

    os.environ.update({**NCCL, **os.environ, "NCCL_HOSTID": "worker"})
    written = shard.counter("lane_nccl_blocks_written_total")
    by_nccl, tries, seconds = 0, 0, 0.0
    with worker.client(
        shard, lanes=["nccl", "stream"], gpu=0, nccl_library=nccl, timeout=30.0
    ) as client:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            keys, content = worker.chain()
            source = torch.from_numpy(content).cuda()
            target = torch.zeros_like(source)
            stored = client.store(worker.spec, keys, source).stored
            with client.acquire(worker.spec, keys) as run:
                start = time.monotonic()
                fetched = run.fetch(target)
                seconds = time.monotonic() - start
            tries += 1
            if stored != BLOCKS or fetched.blocks != BLOCKS or not torch.equal(source, target):
                check(False, "a worker on the GPU: every block comes back", f"{stored}, {fetched}")
                return
            by_nccl = fetched.lanes.get("nccl", 0)
            written_by_nccl = shard.counter("lane_nccl_blocks_written_total") - written
            if by_nccl == BLOCKS and written_by_nccl >= BLOCKS:
                break
    check(by_nccl == BLOCKS, "a worker on the GPU fetches by NCCL, right",
          f"{by_nccl} of {BLOCKS} blocks at try {tries}, {content.nbytes / seconds / 1e9:.1f} GB/s")
    check(written_by_nccl >= BLOCKS, "a worker on the GPU stores by NCCL", written_by_nccl)


def pulled(worker: Worker, home: Shard, peer: Shard, chains: list[tuple[Any, Any]]) -> None:
    """`peer` brings chains from `home` whose next block it is to store."""
    by_nccl = 0
    for chain in chains:
        before = home.counter("lane_nccl_blocks_read_total")
        start = time.monotonic()
        stored = worker.go_on(peer, chain)
        seconds = time.monotonic() - start
        by_nccl = max(by_nccl, home.counter("lane_nccl_blocks_read_total") - before)
        right = worker.right(peer, chain)
        check(stored == 1 and right == BLOCKS, "a shard pulls the chain that it is to go on with",
              f"{right} blocks right, {seconds:.2f} s")
    check(peer.counter("pulled_blocks_total") >= BLOCKS * len(chains), "and counts them",
          f"{peer.counter('pulled_blocks_total')}, at best {by_nccl} of {BLOCKS} by NCCL")


def drained(bundle: Path, home: Shard) -> None:
    """`home` hands to its peer what that has room for, the half that it used last in any case."""
    start = time.monotonic()
    told = subprocess.run(
        [bundle / "reprise", "drain", home.name, "--shard", home.address, "-o", "json"],
        capture_output=True, text=True, timeout=120,
    )
    answer = json.loads(told.stdout) if told.stdout else {"stderr": told.stderr}
    safe = answer.get("chains_safe", 0) >= max(1, answer.get("chains", 0) // 2)
    check(safe, "a shard that is drained hands its chains over",
          f"{answer}, {time.monotonic() - start:.1f} s")


def disturbed(worker: Worker, home: Shard, peer: Shard, number: signal.Signals) -> None:
    """`peer` is hit while chains are copied to it: its home stays whole and quick."""
    chains = [worker.chain() for _ in range(3)]
    for chain in chains[:-1]:
        worker.store(home, chain)
    peer.send(number)
    start = time.monotonic()
    stored = worker.store(home, chains[-1])
    seconds = time.monotonic() - start
    check(stored == BLOCKS and seconds < 20, f"{number.name}: the home goes on storing",
          f"{stored} blocks in {seconds:.1f} s")
    for chain in chains:
        right = worker.right(home, chain)
        check(right == BLOCKS, f"{number.name}: the home's blocks are right", right)
    idle = eventually(lambda: home.counter("nccl_links_made") == 0)
    check(idle, f"{number.name}: the broken link was given up", home.counter("nccl_links_made"))


def run(bundle: Path, out: Path, nccl: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for wheel in bundle.glob("reprise-*.whl"):
            zipfile.ZipFile(wheel).extractall(folder / "site")
        worker = Worker(folder / "site")
        home, peer = (Shard(f"shard-{i}", bundle, folder, out, nccl) for i in range(2))
        try:
            for shard in (home, peer):
                shard.start()
            (folder / "members.new").write_text("shards:\n" + "".join(
                f'  - {{id: {s.name}, address: "{s.address}"}}\n' for s in (home, peer)))
            (folder / "members.new").rename(folder / "members.yaml")
            lanes = home.describe().get("lanes", [])
            check("nccl" in lanes, "a shard with a GPU tier offers NCCL", lanes)
            replicate(worker, home, peer, "two shards", PATIENCE_S)
            gpu_worker(worker, home, nccl)
            disturbed(worker, home, peer, signal.SIGSTOP)
            peer.send(signal.SIGCONT)
            replicate(worker, home, peer, "after SIGCONT", AGAIN_S)
            # Copied already, so that nothing but a pull brings them to the peer's next process.
            alone = [worker.chain() for _ in range(3)]
            for chain in alone:
                worker.store(home, chain)
                eventually(lambda: worker.right(peer, chain) == BLOCKS, 15)
            disturbed(worker, home, peer, signal.SIGKILL)
            peer.kill()
            peer.start()
            replicate(worker, home, peer, "after SIGKILL and a new process", AGAIN_S)
            pulled(worker, home, peer, alone)
            drained(bundle, home)
        finally:
            home.kill()
            peer.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    shard = options.bundle / "reprise-shard"
    if not shard.exists():
        skip(f"there is no reprise-shard in {options.bundle}")
    told = subprocess.run([shard, "--help"], capture_output=True, text=True)
    if "--hbm" not in told.stdout:
        skip("this reprise-shard has no --hbm")
    if subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode != 0:
        skip("there is no GPU here (nvidia-smi)")
    if importlib.util.find_spec("numpy") is None:
        skip("this Python has no numpy")
    nccl = find_nccl()
    if nccl is None:
        skip("there is no libnccl: install nvidia-nccl-cu13 or set REPRISE_NCCL_LIBRARY")
    options.out.mkdir(parents=True, exist_ok=True)
    run(options.bundle.resolve(), options.out.resolve(), str(nccl))
    print("PASSED" if not failures else f"{len(failures)} FAILED")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
