"""What Reprise brings in SGLang: `./dev bench sglang [--samples N] [--json]`.

Time to the first token of a 1,500-token prefix, on a server of SGLang's CPU path: computed anew,
from SGLang's own memory, from Reprise on the same host. The copies between SGLang's two pools are
plain torch here, as in its tests; on a GPU they are kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
from typing import Any

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[2]
sys.path += [
    str(FOLDER.parent / "support"),
    str(ROOT / "client" / "python"),
    str(ROOT / "tests" / "e2e" / "sglang"),
    str(ROOT / "tests" / "e2e" / "support"),
]

from demo.cluster import Cluster  # noqa: E402
from demo.vllm_model import make_model  # noqa: E402
from first_token import first_token_rows  # noqa: E402
from measure import Budget, Case, Progress, take_turns  # noqa: E402
from prompts import words  # noqa: E402
from server import PAGE_TOKENS, Server, full_pages, reprise_backend  # noqa: E402
from stored import Growth  # noqa: E402

PREFIX_TOKENS = 1500
PROMPTS = 4  # asked for again in turn, so that no case lives from a processor's cache
MINUTES = 6.0


def ask(server: Server, ids: list[int], cached: int) -> float:
    """Milliseconds to the first token. Raises RuntimeError where another count was cached."""
    begun = time.monotonic()
    answer = server.complete(ids, 1)
    took = (time.monotonic() - begun) * 1000
    if answer.cached_tokens != cached:
        raise RuntimeError(f"{answer.cached_tokens} tokens were cached, {cached} expected")
    return took


def cases(server: Server, cluster: Cluster) -> list[Case]:
    ready = full_pages(PREFIX_TOKENS - 1)

    def prompts(name: str) -> list[list[int]]:
        return [words(f"{name} {i}", PREFIX_TOKENS) for i in range(PROMPTS)]

    own, kept = prompts("own"), prompts("kept")

    def keep() -> None:
        stored = Growth(cluster)
        for ids in kept:
            ask(server, ids, 0)
        stored.reaches(PROMPTS * (PREFIX_TOKENS // PAGE_TOKENS), timeout_s=60)

    def from_own(number: int) -> float:
        ids = own[number % PROMPTS]
        server.complete(ids, 1)  # an earlier case made it forget
        return ask(server, ids, ready)

    def from_reprise(number: int) -> float:
        server.forget()
        return ask(server, kept[number % PROMPTS], ready)

    return [
        Case("computed anew", lambda i: ask(server, words(f"cold {i}", PREFIX_TOKENS), 0)),
        Case("SGLang's own memory", from_own),
        Case("Reprise, same host", from_reprise, keep),
    ]


def measure(folder: pathlib.Path, samples: int, progress: Progress) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    progress.say("making a model of 6 layers, 512 wide, with random weights")
    model = make_model(folder / "model", layers=6, width=512, heads=8, kv_heads=4)
    binaries = pathlib.Path(os.environ["REPRISE_BIN"])
    with Cluster(binaries, shards=1, dram="1GiB", replication=1) as cluster:
        backend = reprise_backend(
            cluster.router, lookup_timeout_ms=5_000, load_timeout_ms=10_000, explain_interval_ms=0
        )
        server = Server(folder, model, "bench", backend)
        try:
            progress.say("waiting for SGLang")
            server.ready()
            rows = cases(server, cluster)
            take_turns(rows, samples, Budget(MINUTES * 60), progress)
        finally:
            server.close()
    return {
        "prefix_tokens": PREFIX_TOKENS,
        "cpus": os.cpu_count(),
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "ttft_ms": {case.name: case.facts() for case in rows},
    }


def main() -> int:
    """0 when every case was measured."""
    parser = argparse.ArgumentParser(prog="./dev bench sglang", description=__doc__)
    parser.add_argument("--samples", type=int, default=20, help="prompts per row")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))  # nothing is left behind
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        facts = measure(pathlib.Path(name), given.samples, Progress())
    load = facts["load_average"]
    told = [
        f"SGLang on {facts['cpus']} CPUs, load average {load['before']:.1f} before and "
        f"{load['after']:.1f} after, all cases in turns.",
        "",
        *first_token_rows(facts),
    ]
    print(json.dumps(facts) if given.json else "\n".join(told))
    return 1 if any("failed" in one for one in facts["ttft_ms"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
