"""What Reprise brings and costs in vLLM: `./dev bench vllm [--samples N] [--json]`.

Time to the first token of a 1,500-token prefix, beside what a user would have instead: computed
anew, vLLM's own prefix cache, vLLM's ExampleConnector (files). Throughput of servers with and
without the connector when nothing is shared. The time that the connector takes in a scheduler step.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

sys.path.append(str(pathlib.Path(__file__).parents[3] / "client" / "python"))

from demo.cluster import Cluster  # noqa: E402
from demo.vllm_fleet import Server, reprise_connector  # noqa: E402
from demo.vllm_model import make_model  # noqa: E402

PREFIX_TOKENS = 1500
ANSWER_TOKENS = 2
VOCABULARY = range(300, 2000)
NETWORK = ("10.213.77.1", "10.213.77.2")
NAMESPACE = f"reprise-bench-{os.getpid()}"


def prompt(seed: str, tokens: int = PREFIX_TOKENS) -> list[int]:
    return random.Random(seed).choices(VOCABULARY, k=tokens)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# ---- Time to the first token


def again(server: Server, name: str, samples: int, forget: Callable[[], None]) -> list[float]:
    """TTFT of prompts that were computed before, after `forget`."""
    times = []
    for i in range(samples):
        ids = prompt(f"{name} {i}")
        server.complete(ids, ANSWER_TOKENS, session=f"{name} {i}")
        forget()
        answer = server.complete(ids, ANSWER_TOKENS, session=f"{name} {i}")
        if answer.cached_tokens < PREFIX_TOKENS - 64:
            raise RuntimeError(f"{name}: only {answer.cached_tokens} tokens were cached")
        times.append(answer.ttft_ms)
    return times


def from_reprise(server: Server) -> Callable[[], None]:
    def forget() -> None:
        server.settle()
        server.forget_prefixes()

    return forget


# ---- Throughput when nothing is shared


def throughput(server: Server, round_number: int, requests: int, at_once: int) -> float:
    """Output tokens a second of prompts that no one saw before."""
    asked = [prompt(f"{server.name} {round_number} {i}", 200) for i in range(requests)]
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda ids: server.complete(ids, 32), asked))
    return sum(len(answer.tokens) for answer in answers) / (time.monotonic() - begun)


# ---- Time in the scheduler


def scheduler_times(client: Any, steps: int) -> list[float]:
    """Microseconds that the connector's scheduler side takes in a step: 16 requests decode, and in
    each step a new prompt of 1,500 tokens is asked for and nothing is stored."""
    import types

    import reprise
    from reprise.engines.vllm.groups import Group
    from reprise.engines.vllm.messages import RankParts, SaveOutcome, WorkerReport
    from reprise.engines.vllm.scheduler_side import SchedulerSide
    from reprise.engines.vllm.settings import Settings
    from reprise.engines.vllm.spec_from_engine import Part
    from vllm import SamplingParams
    from vllm.utils.hashing import get_hash_fn_by_name
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.request import Request

    sha256 = get_hash_fn_by_name("sha256")
    kv_cache_utils.init_none_hash(sha256)
    hasher = kv_cache_utils.get_request_block_hasher(32, sha256)
    spec = reprise.CacheSpec(
        "bench", dtype="f32", layers=6, kv_heads=4, head_dim=64, block_tokens=32
    )
    pool = BlockPool(4096, True, 32)
    times = []
    settings = Settings(router=("unused",), explain_interval_ms=0)
    side = SchedulerSide(settings, client, tokens_per_hash=32, produces=True, consumes=True)
    side.pins.bind(pool)
    side.learn_ranks({(0, 0): RankParts((Part(Group(0, ("l",), 32, 0), ("l",), spec, 32, 1),))})

    def request(name: str, tokens: int) -> Request:
        made = Request(
            name, prompt(name, tokens), SamplingParams(max_tokens=8), None, block_hasher=hasher
        )
        side.track(made)
        return made

    running = [request(f"running {i}", 300) for i in range(16)]
    tables = {r.request_id: ([b.block_id for b in pool.get_new_blocks(40)],) for r in running}
    for one in running:
        one.num_computed_tokens = 299
    asking: list[Request] = []
    for number in range(steps):
        new = request(f"new {number}", PREFIX_TOKENS)
        for one in running:  # one token each, so that blocks fill as they do in life
            one.num_computed_tokens += 1
            one.append_output_token_ids(number % 1000)
            if one.num_tokens > 1200:
                one.num_computed_tokens, one._output_token_ids[:] = 299, []
        asking.append(new)
        output = types.SimpleNamespace(
            num_scheduled_tokens=dict.fromkeys(tables, 1),
            kv_connector_block_state=types.SimpleNamespace(get_block_ids=tables.get),
        )
        begun = time.perf_counter()
        answers = [side.matched_tokens(one, 0)[0] for one in asking]
        metadata = side.plan_step(output)
        times.append((time.perf_counter() - begun) * 1e6)
        side.worker_reported(
            WorkerReport({s.save_id: SaveOutcome(1, True) for s in metadata.saves})
        )
        for one, answer in zip(list(asking), answers):
            if answer is not None:
                asking.remove(one)
                side.finished(one, ([],))
        time.sleep(0.002)  # the model's step
    side.close()
    return times


# ---- A network between


@contextlib.contextmanager
def shard_across_a_network(folder: pathlib.Path) -> Iterator[str]:
    """A shard in a network namespace of its own, reached over a pair of virtual interfaces. Raises
    RuntimeError where this is not allowed."""
    link = f"rb{os.getpid() % 100000}"
    here, there = NETWORK
    commands = [
        ["ip", "netns", "add", NAMESPACE],
        [
            "ip",
            "link",
            "add",
            f"{link}a",
            "type",
            "veth",
            "peer",
            "name",
            f"{link}b",
            "netns",
            NAMESPACE,
        ],
        ["ip", "addr", "add", f"{here}/24", "dev", f"{link}a"],
        ["ip", "link", "set", f"{link}a", "up"],
        ["ip", "-n", NAMESPACE, "addr", "add", f"{there}/24", "dev", f"{link}b"],
        ["ip", "-n", NAMESPACE, "link", "set", f"{link}b", "up"],
    ]
    shard = None
    try:
        for command in commands:
            try:
                done = subprocess.run(command, capture_output=True, text=True)
            except FileNotFoundError as error:
                raise RuntimeError(str(error)) from None
            if done.returncode:
                raise RuntimeError(f"`{' '.join(command)}`: {done.stderr.strip()}")
        with (folder / "far-shard.log").open("wb") as log:
            shard = subprocess.Popen(
                [
                    "ip",
                    "netns",
                    "exec",
                    NAMESPACE,
                    os.path.join(os.environ["REPRISE_BIN"], "reprise-shard"),
                    "--id",
                    "far",
                    "--listen",
                    f"{there}:0",
                    "--insecure",
                    "--no-view",
                    "--dram",
                    "1GiB",
                    "-o",
                    "json",
                ],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert shard.stdout is not None
        line = shard.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the shard did not start: {(folder / 'far-shard.log').read_text()[-300:]}"
            )
        yield json.loads(line)["address"]
    finally:
        if shard is not None:
            shard.terminate()
            shard.wait()
        subprocess.run(["ip", "netns", "del", NAMESPACE], capture_output=True)
        subprocess.run(["ip", "link", "del", f"{link}a"], capture_output=True)


# ---- All of it


class Bench:
    def __init__(self, folder: pathlib.Path, samples: int, rounds: int) -> None:
        self.folder = folder
        self.samples = samples
        self.rounds = rounds
        self.model = make_model(folder / "model", layers=6, width=512, heads=8, kv_heads=4)
        self.ttft: dict[str, list[float]] = {}
        self.skipped: dict[str, str] = {}
        self.tokens_per_s: dict[str, list[float]] = {
            "without the connector": [],
            "with the connector": [],
        }
        self.scheduler_us: list[float] = []

    @contextlib.contextmanager
    def server(self, name: str, connector: dict[str, Any] | None) -> Iterator[Server]:
        server = Server(self.folder, self.model, name, connector=connector)
        try:
            yield server.ready()
        finally:
            server.close()

    def run(self, cluster: Cluster) -> None:
        near = reprise_connector(cluster.router, lookup_budget_ms=2000)
        with self.server("plain", None) as plain, self.server("reprise", near) as reprise_server:
            self.ttft["computed anew"] = [
                plain.complete(prompt(f"cold {i}"), ANSWER_TOKENS).ttft_ms
                for i in range(self.samples)
            ]
            self.ttft["vLLM's own prefix cache"] = again(plain, "own", self.samples, lambda: None)
            self.ttft["Reprise, same host"] = again(
                reprise_server, "near", self.samples, from_reprise(reprise_server)
            )
            for number in range(self.rounds):  # in turns: a busy minute hits both
                for name, server in (
                    ("without the connector", plain),
                    ("with the connector", reprise_server),
                ):
                    self.tokens_per_s[name].append(throughput(server, number, 24, 4))
        try:
            with shard_across_a_network(self.folder) as address:
                far = reprise_connector("", lookup_budget_ms=2000)
                far["kv_connector_extra_config"].pop("router")
                far["kv_connector_extra_config"]["shards"] = [address]
                with self.server("far", far) as server:
                    self.ttft["Reprise, across a network namespace"] = again(
                        server, "far", self.samples, from_reprise(server)
                    )
        except RuntimeError as why:
            self.skipped["Reprise, across a network namespace"] = str(why)
        files = {
            "kv_connector": "ExampleConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": {"shared_storage_path": str(self.folder / "files")},
        }
        with self.server("example", files) as server:
            self.ttft["vLLM's ExampleConnector, files"] = again(
                server, "files", self.samples, server.forget_prefixes
            )
        import reprise

        with reprise.Client(cluster.router) as client:
            self.scheduler_us = scheduler_times(client, 1000)[100:]

    def facts(self) -> dict[str, Any]:
        without, with_it = (statistics.median(values) for values in self.tokens_per_s.values())
        return {
            "prefix_tokens": PREFIX_TOKENS,
            "samples": self.samples,
            "load_average": os.getloadavg()[0],
            "cpus": os.cpu_count(),
            "ttft_ms": {
                name: {
                    "p50": percentile(v, 0.5),
                    "p99": percentile(v, 0.99),
                    "min": min(v),
                    "max": max(v),
                }
                for name, v in self.ttft.items()
            },
            "skipped": self.skipped,
            "tokens_per_s": {
                name: {"median": statistics.median(v), "min": min(v), "max": max(v)}
                for name, v in self.tokens_per_s.items()
            },
            "connector_cost_percent": (without - with_it) / without * 100,
            "scheduler_us_per_step": {
                "p50": percentile(self.scheduler_us, 0.5),
                "p99": percentile(self.scheduler_us, 0.99),
            },
        }


def table(facts: dict[str, Any]) -> str:
    lines = [
        f"TTFT of a {facts['prefix_tokens']:,}-token prefix, {facts['samples']} samples, "
        f"{facts['cpus']} CPUs, load average {facts['load_average']:.1f}",
        "",
        "| prefix | p50 | p99 |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {v['p50']:.0f} ms | {v['p99']:.0f} ms |"
        for name, v in facts["ttft_ms"].items()
    ]
    lines += [f"| {name} | SKIPPED | {why} |" for name, why in facts["skipped"].items()]
    lines += ["", "| nothing shared | output tokens/s, median (min to max) |", "|---|---|"]
    lines += [
        f"| {name} | {v['median']:.0f} ({v['min']:.0f} to {v['max']:.0f}) |"
        for name, v in facts["tokens_per_s"].items()
    ]
    scheduler = facts["scheduler_us_per_step"]
    lines += [
        f"| the connector's cost | {facts['connector_cost_percent']:.1f} % |",
        "",
        f"Scheduler time per step with 16 requests decoding and a new 1,500-token prompt "
        f"each step: "
        f"p50 {scheduler['p50']:.0f} µs, p99 {scheduler['p99']:.0f} µs.",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20, help="prompts per row")
    parser.add_argument("--rounds", type=int, default=5, help="throughput rounds")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reprise-bench-") as name:
        folder = pathlib.Path(name)
        bench = Bench(folder, given.samples, given.rounds)
        binaries = pathlib.Path(os.environ["REPRISE_BIN"])
        with Cluster(
            binaries, shards=2, dram="1GiB", replication=1, log=folder / "reprise.log"
        ) as cluster:
            bench.run(cluster)
        facts = bench.facts()
    print(json.dumps(facts) if given.json else table(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
