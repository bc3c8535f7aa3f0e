"""What must never be shared: other weights, another dtype, another salt."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: ./dev test installs it")

from conftest import LOOKUP_BUDGET_MS  # noqa: E402
from conversation import alone, words  # noqa: E402
from demo.vllm_fleet import Server, full_blocks, reprise_connector  # noqa: E402
from demo.vllm_model import make_model  # noqa: E402

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def strangers(folder, model, cache):
    """A server with other weights under the same name, which stores in int8, and one with another
    dtype.
    """
    twin = make_model(folder / "two" / model.name, seed=1)

    def connector(**extra):
        return reprise_connector(
            cache.router, lookup_budget_ms=LOOKUP_BUDGET_MS, explain_interval_ms=100, **extra
        )

    servers = [
        Server(folder, twin, "twin", connector=connector(codec="int8")),
        Server(folder, model, "bf16", connector=connector(), dtype="bfloat16"),
    ]
    try:
        yield [server.ready() for server in servers]
    finally:
        for server in servers:
            server.close()


def said_in_time(server, sentence: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while sentence not in server.log():
        assert time.monotonic() < deadline, f"{server.name} never said {sentence!r}"
        time.sleep(0.1)


def test_other_weights_and_other_dtypes_share_nothing_and_the_log_names_the_field(pair, strangers):
    prompt = words("strangers", 200)
    pair.a.complete(prompt, 4, session="strangers")
    pair.a.settle()
    for server, field in zip(strangers, ("revision", "dtype")):
        answer = server.complete(prompt, 4, session="strangers")
        assert answer.cached_tokens == 0, server.name
        assert answer.tokens == alone(server, prompt, 4).tokens, server.name
        server.settle()
        # A whole miss is looked into in the background.
        said_in_time(server, f"cache spec field {field}")
    # And what they stored does not come back to the others.
    again = pair.b.complete(prompt, 4, session="strangers")
    assert again.cached_tokens == full_blocks(len(prompt) - 1)
    assert again.tokens == alone(pair.b, prompt, 4).tokens


def test_two_salts_share_nothing(pair):
    prompt = words("salted", 200)
    pair.a.complete(prompt, 4, session="salt", salt="one")
    pair.a.settle()
    assert pair.b.complete(prompt, 4, session="salt", salt="two").cached_tokens == 0
    assert pair.b.complete(prompt, 4, session="salt").cached_tokens == 0
    assert pair.b.complete(prompt, 4, session="salt", salt="one").cached_tokens == full_blocks(
        len(prompt) - 1
    )


def test_weights_that_were_replaced_find_nothing_of_the_old_ones(strangers):
    server = strangers[0]
    prompt = words("before the weights changed", 100)
    server.complete(prompt, 2, session="weights")
    server.settle()
    server.forget_prefixes()
    assert server.complete(prompt, 2, session="weights").cached_tokens == 96
    server.settle()
    server.post("/reset_prefix_cache?reset_external=true")
    assert server.complete(prompt, 2, session="weights").cached_tokens == 0
    server.settle()
    server.forget_prefixes()
    assert server.complete(prompt, 2, session="weights").cached_tokens == 96, (
        "nothing is stored any more"
    )


def test_a_codec_keeps_fewer_bytes_and_what_it_kept_is_found_again(pair, strangers):
    server = strangers[0]
    prompt = words("in int8", 200)
    server.complete(prompt, 2, session="codec")
    server.settle()
    server.forget_prefixes()
    assert server.complete(prompt, 2, session="codec").cached_tokens == full_blocks(
        len(prompt) - 1
    )
    pair.a.complete(prompt, 2, session="codec")
    pair.a.settle()
    assert bytes_of_a_block(server) < 0.3 * bytes_of_a_block(pair.a)


def bytes_of_a_block(server) -> float:
    blocks = server.metric("vllm:reprise_saved_blocks_total", outcome="stored")
    return server.metric("vllm:reprise_saved_bytes_total") / blocks
