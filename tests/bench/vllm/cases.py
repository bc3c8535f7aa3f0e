"""What is measured: the first token of a long prefix from each place that may have it, and what the
connector costs when nothing is shared.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import random
import statistics
import time
from typing import Any

import network
from demo.vllm_fleet import Server, full_blocks
from measure import Budget, Case, Progress, first_line, summary
from servers import Servers
from steps import steps_between

PREFIX_TOKENS = 1500
ANSWER_TOKENS = 2
REQUEST_TIMEOUT_S = 60.0
PROMPTS = 4  # asked for again in turn, so that no case lives from a processor's cache
VOCABULARY = range(300, 2000)  # no special token, no single byte


def prompt(seed: str, tokens: int = PREFIX_TOKENS) -> list[int]:
    return random.Random(seed).choices(VOCABULARY, k=tokens)


WAKING = prompt("awake", 40)

# ---- The first token


def first_token_cases(servers: Servers) -> list[Case]:
    cases = [
        Case("computed anew", lambda i: ask(servers.get("plain"), prompt(f"cold {i}"), 0)),
        from_a_cache("vLLM's own prefix cache", servers, "plain", forget=False),
        from_a_cache("Reprise, same host", servers, "near", settle=True),
        from_a_cache("Reprise, across a network namespace", servers, "far", settle=True),
        from_a_cache("vLLM's ExampleConnector, files", servers, "files"),
    ]
    for case, server in zip(cases, ("plain", "plain", "near", "far", "files")):
        why = servers.unusable.get(server)
        if isinstance(why, network.NotPermitted):
            case.skipped = str(why)
        elif why is not None:
            case.fail(why)
    return cases


def ask(server: Server, ids: list[int], cached: int) -> float:
    """Milliseconds to the first token. Raises RuntimeError where another count was cached."""
    # The machine may have taken back memory of a server that was idle while the others had their
    # turns: a short request finds it again, and is not measured.
    server.complete(WAKING, 1, own_cache_only=True, timeout=REQUEST_TIMEOUT_S)
    answer = server.complete(ids, ANSWER_TOKENS, session="bench", timeout=REQUEST_TIMEOUT_S)
    if answer.cached_tokens != cached:
        raise RuntimeError(f"{answer.cached_tokens} tokens were cached, {cached} expected")
    return answer.ttft_ms


def from_a_cache(
    case_name: str, servers: Servers, name: str, *, forget: bool = True, settle: bool = False
) -> Case:
    """Prompts that the server computed before; it then forgets them, or has them itself."""
    prompts = [prompt(f"{case_name} {i}") for i in range(PROMPTS)]

    def prepare() -> None:
        for ids in prompts:
            ask(servers.get(name), ids, 0)

    def sample(number: int) -> float:
        server = servers.get(name)
        if settle:
            server.settle()
        if forget:
            server.forget_prefixes()
        return ask(server, prompts[number % PROMPTS], full_blocks(PREFIX_TOKENS - 1))

    return Case(case_name, sample, prepare)


# ---- The cost where nothing is shared


@dataclasses.dataclass
class Cost:
    """Throughput of two servers in turns, and the connector's time in the steps meanwhile."""

    without: list[float] = dataclasses.field(default_factory=list)
    with_it: list[float] = dataclasses.field(default_factory=list)
    wall_us: list[float] = dataclasses.field(default_factory=list)
    cpu_us: list[float] = dataclasses.field(default_factory=list)
    failed: str = ""

    def percents(self) -> list[float]:
        """The cost in each pair of rounds that were measured one after the other."""
        return [(a - b) / a * 100 for a, b in zip(self.without, self.with_it)]

    def facts(self) -> dict[str, Any]:
        told: dict[str, Any] = {"failed": self.failed} if self.failed else {}
        if self.without and self.with_it:
            percents = self.percents()
            told |= {
                "tokens_per_s_without": summary(self.without),
                "tokens_per_s_with": summary(self.with_it),
                "cost_percent": statistics.median(percents),
                "cost_percent_spread": [min(percents), max(percents)],
                "pairs": len(percents),
            }
        if self.wall_us:
            told |= {
                "scheduler_us_per_step": summary(self.wall_us),
                "scheduler_cpu_us_per_step": summary(self.cpu_us),
            }
        return told


def throughput(server: Server, name: str, requests: int, at_once: int) -> float:
    """Output tokens a second of prompts that no one saw before."""
    asked = [prompt(f"{name} {i}", 200) for i in range(requests)]
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        answers = list(
            pool.map(lambda ids: server.complete(ids, 32, timeout=REQUEST_TIMEOUT_S), asked)
        )
    return sum(len(answer.tokens) for answer in answers) / (time.monotonic() - begun)


def cost(servers: Servers, rounds: int, requests: int, budget: Budget, progress: Progress) -> Cost:
    """Rounds in the order A-B, B-A, A-B, ..., so that a busy minute hits both."""
    found = Cost()
    spans: list[tuple[float, float]] = []
    try:
        plain, near = servers.get("plain"), servers.get("near")
        for server in (plain, near):
            throughput(server, f"warm {server.name}", requests // 2, 4)
        for number in range(rounds):
            if not budget.left():
                progress.say(f"time is up after {number} of {rounds} rounds")
                break
            speeds: dict[str, float] = {}
            for server in (plain, near) if number % 2 == 0 else (near, plain):
                begun = time.monotonic()
                speeds[server.name] = throughput(server, f"{server.name} {number}", requests, 4)
                if server is near:
                    spans.append((begun, time.monotonic()))
                    near.settle()  # what is saved behind the answers is not the next one's load
            found.without.append(speeds[plain.name])
            found.with_it.append(speeds[near.name])
            progress.say(
                f"nothing shared, round {number + 1} of {rounds}: {speeds[plain.name]:.0f} "
                f"tokens/s without, {speeds[near.name]:.0f} with the connector"
            )
    except Exception as error:
        found.failed = first_line(error)
        progress.say(f"throughput failed: {found.failed}")
    servers.stop("plain", "near")  # the last records are written
    found.wall_us, found.cpu_us = steps_between(servers.steps_file, spans)
    return found
