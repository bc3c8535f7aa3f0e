"""What reading blocks costs a GPU that computes: matrix products alone, and while blocks stream in.

    python3 gpu_overlap.py --bundle FOLDER --out FOLDER

A bf16 product of 8192 x 8192 x 8192 on random data runs over and over; beside it a thread reads a
run of 512 blocks (Llama-3-8B's, 1 GiB) from a shard into the GPU, over and over. The control is the
product alone, in turns with it.

Passes when every block arrived; the slow-down is measured and not judged.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from typing import Any

from bundle_python import Bundle, run_step, table

SIZE = 8192
PRODUCTS = 40  # of one measurement: about 60 ms
ROUNDS = 7
BLOCKS = 512


def overlap(bundle: Bundle) -> int:
    """Exit status of the step."""
    from demo.cluster import Cluster

    rows = []
    tiers = (("hbm", {"hbm": "2GiB", "dram": "64MiB"}), ("dram", {"dram": "2GiB"}))
    for tier, memory in tiers:
        log = bundle.out / f"overlap-{tier}-cluster.txt"
        with Cluster(bundle.folder, shards=1, replication=1, log=log, **memory) as cluster:
            rows.append({"tier": tier, **measure(cluster.router)})
    table(
        ("blocks from", "lane", "read", "product alone", "meanwhile", "slower by", "wanted"),
        [
            (
                row["tier"], row["lane"], f"{row['gb_per_s']:.1f} GB/s",
                f"{row['alone_tflops']:.0f} TFLOP/s", f"{row['meanwhile_tflops']:.0f} TFLOP/s",
                f"{row['slower']:.1%}", "<= 10 %" if row["tier"] == "hbm" else "<= 5 %",
            )
            for row in rows
        ],
    )  # fmt: skip
    (bundle.out / "overlap.json").write_text(json.dumps(rows, indent=1))
    return 1 if any(row["failures"] for row in rows) else 0


class _Reader(threading.Thread):
    """Reads the run into the same memory until told to stop."""

    def __init__(self, client: Any, spec: Any, keys: Any, into: Any) -> None:
        super().__init__()
        self.blocks = 0
        self.failures: list[str] = []
        self.lanes: dict[str, int] = {}
        self._run_of = lambda: client.acquire(spec, keys)
        self._into = into
        self._enough = threading.Event()

    def run(self) -> None:
        while not self._enough.is_set():
            with self._run_of() as run:
                fetched = run.fetch(self._into)
            self.blocks += fetched.blocks
            self.lanes = dict(fetched.lanes)
            if fetched.blocks != BLOCKS:
                self.failures.append(fetched.error or f"{fetched.blocks} of {BLOCKS} blocks")
                return

    def end(self) -> None:
        self._enough.set()
        self.join()


def measure(router: str) -> dict[str, Any]:
    """One row."""
    import numpy as np
    import torch

    import reprise

    spec = reprise.CacheSpec("overlap", dtype="bf16", layers=32, kv_heads=8, head_dim=128)
    keys = reprise.block_keys(np.arange(BLOCKS * spec.block_tokens), spec.block_tokens)
    elements = spec.block_bytes // 2
    kv = torch.randn((BLOCKS, elements), dtype=torch.bfloat16, device="cuda")
    into = torch.empty_like(kv)
    left, right = (torch.randn((SIZE, SIZE), dtype=torch.bfloat16, device="cuda") for _ in "ab")
    alone, meanwhile, seconds, blocks = [], [], 0.0, 0
    with reprise.Client(router=router, name="overlap", timeout=30.0) as client:
        stored = client.store(spec, keys, kv)
        failures = [] if stored.stored == BLOCKS else [f"stored {stored}"]
        for _ in range(ROUNDS):
            alone.append(_products(left, right))
            reader = _Reader(client, spec, keys, into)
            reader.start()
            started = time.perf_counter()
            meanwhile.append(_products(left, right))
            reader.end()
            seconds += time.perf_counter() - started
            blocks += reader.blocks
            failures += reader.failures
        failures += [] if torch.equal(kv, into) else ["the bytes that were read are other ones"]
    flops = 2 * SIZE**3 * PRODUCTS / 1e12
    # The first round warms up.
    fast, slow = statistics.median(alone[1:]), statistics.median(meanwhile[1:])
    for failure in failures:
        print(f"FAILED: {failure}")
    return {
        "lane": ", ".join(reader.lanes),
        "gb_per_s": blocks * spec.block_bytes / seconds / 1e9,
        "alone_tflops": flops / fast,
        "meanwhile_tflops": flops / slow,
        "slower": slow / fast - 1,
        "failures": failures,
    }


def _products(left: Any, right: Any) -> float:
    """Seconds of PRODUCTS products, by the device's own clock."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(PRODUCTS):
        torch.mm(left, right)
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


if __name__ == "__main__":
    run_step(overlap)
