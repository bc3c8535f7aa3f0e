"""What Reprise brings and costs in vLLM: `./dev bench vllm [--quick] [--json]`.

Time to the first token of a 1,500-token prefix, beside what a user would have instead: computed
anew, vLLM's own prefix cache, vLLM's ExampleConnector (files). Throughput of servers with and
without the connector when nothing is shared, and the time that the connector adds to a scheduler
step meanwhile. All of it over loopback and a network namespace that is made for it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import sys
import tempfile
from typing import Any

FOLDER = pathlib.Path(__file__).parent
sys.path += [
    str(FOLDER / "timed"),
    str(FOLDER.parent / "support"),
    str(FOLDER.parents[2] / "client" / "python"),
]

import cases  # noqa: E402
from demo.vllm_model import make_model  # noqa: E402
from measure import Budget, Progress, take_turns  # noqa: E402
from servers import Servers  # noqa: E402
from table import table  # noqa: E402

FULL = {"minutes": 10.0, "samples": 60, "rounds": 12, "requests": 24}
QUICK = {"minutes": 5.0, "samples": 8, "rounds": 2, "requests": 12}
START_SHARE, FIRST_TOKEN_SHARE = 0.45, 0.5  # of the time; of what the start has left


def measure(folder: pathlib.Path, given: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    budget = Budget(given.minutes * 60)
    load_before = os.getloadavg()[0]
    progress.say("making a model of 6 layers, 512 wide, with random weights")
    model = make_model(folder / "model", layers=6, width=512, heads=8, kv_heads=4)
    with Servers(folder, model, progress) as servers:
        servers.start(
            pathlib.Path(os.environ["REPRISE_BIN"]), budget.part(given.minutes * 60 * START_SHARE)
        )
        first_token = cases.first_token_cases(servers)
        part = budget.part(budget.left() * FIRST_TOKEN_SHARE)
        take_turns(first_token, given.samples, part, progress)
        servers.stop("far", "files")
        cost = cases.cost(servers, given.rounds, given.requests, budget, progress)
    return {
        "prefix_tokens": cases.PREFIX_TOKENS,
        "cpus": os.cpu_count(),
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "ttft_ms": {case.name: case.facts() for case in first_token},
        "nothing_shared": cost.facts(),
    }


def failures(facts: dict[str, Any]) -> list[str]:
    told = [*facts["ttft_ms"].items(), ("throughput", facts["nothing_shared"])]
    return [f"{name}: {one['failed']}" for name, one in told if "failed" in one]


def main() -> int:
    """0 when every case was measured or is skipped with its reason."""
    parser = argparse.ArgumentParser(prog="./dev bench vllm", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run of about 5 minutes")
    parser.add_argument("--minutes", type=float, help="measure less rather than longer")
    parser.add_argument("--samples", type=int, help="prompts per row")
    parser.add_argument("--rounds", type=int, help="pairs of throughput rounds")
    parser.add_argument("--requests", type=int, help="requests in a throughput round")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    for name, value in (QUICK if given.quick else FULL).items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))  # nothing is left behind
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        facts = measure(pathlib.Path(name), given, Progress())
    print(json.dumps(facts) if given.json else table(facts))
    return 1 if failures(facts) else 0


if __name__ == "__main__":
    sys.exit(main())
