"""Clients that go away in the middle of a load leave nothing behind."""

from __future__ import annotations

import http.client
import json
import random
import time

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conversation import alone, words  # noqa: E402
from shard_api import describe  # noqa: E402

ABORTS = 200


def abandon(server, prompt: list[int], after_s: float) -> None:
    """Sends a request and hangs up."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = json.dumps(
        {
            "model": "tiny",
            "prompt": prompt,
            "max_tokens": 40,
            "temperature": 0,
            "session_id": "abort",
        }
    )
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    time.sleep(after_s)
    connection.close()


def idle(server) -> bool:
    return (
        server.metric("vllm:num_requests_running") == 0
        and server.metric("vllm:num_requests_waiting") == 0
        and server.metric("vllm:kv_cache_usage_perc") == 0
    )


def test_aborted_requests_leak_no_lease_no_reservation_and_no_block(pair, cache):
    server = pair.b
    prompts = [words(f"abandoned {i}", 30 * 32) for i in range(4)]
    for prompt in prompts:
        pair.a.complete(prompt, 2, session="abort")
    pair.a.settle()
    random.seed(7)
    for number in range(ABORTS):
        if number % 4 == 0:
            server.forget_prefixes()  # so that the next ones load
        abandon(server, prompts[number % 4], random.uniform(0, 0.03))
    end = time.monotonic() + 30
    while not idle(server) and time.monotonic() < end:
        time.sleep(0.1)
    assert idle(server), "vLLM still holds requests or blocks"
    server.settle()
    pair.a.settle()
    end = time.monotonic() + 15
    while any(d.leases or d.reservations for d in map(describe, (s.address for s in cache.shards))):
        assert time.monotonic() < end, "leases or reservations stay: " + ", ".join(
            f"{s.id} {describe(s.address).leases} leases {describe(s.address).reservations} "
            f"reservations"
            for s in cache.shards
        )
        time.sleep(0.1)
    # And the server is as good as before.
    server.forget_prefixes()
    answer = server.complete(prompts[0], 4, session="abort")
    assert answer.tokens == alone(server, prompts[0], 4).tokens
