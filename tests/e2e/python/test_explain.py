"""Why a prompt misses: the case that hurts users most, and its neighbours."""

from collections.abc import Callable

import numpy as np
import reprise
from conftest import make_spec, random_blocks

Prompt = Callable[[int], np.ndarray]


def test_a_timestamp_at_the_start_is_named_as_what_makes_two_prompts_miss(
    client: reprise.Client, spec: reprise.CacheSpec
) -> None:
    # One token per byte: a system prompt that begins with the time.
    template = (
        "Now: 2026-11-23T{time}Z. You are a helpful assistant. " + "Answer in one sentence. " * 8
    )
    morning = np.frombuffer(template.format(time="09:15:00").encode(), np.uint8).astype(np.uint32)
    later = np.frombuffer(template.format(time="09:16:42").encode(), np.uint8).astype(np.uint32)
    differs = int(np.nonzero(morning != later)[0][0])
    keys = reprise.block_keys(morning, spec.block_tokens)
    client.store(spec, keys, random_blocks(spec, len(keys)), tokens=morning)

    missed = reprise.block_keys(later, spec.block_tokens)
    with client.acquire(spec, missed) as run:
        assert run.blocks == differs // spec.block_tokens
    why = client.explain(spec, missed, later)
    assert why["reason"] == "tokens_differ"
    assert why["run_blocks"] == why["miss_block"] == differs // spec.block_tokens
    assert why["first_differing_token"] == differs
    assert (why["prompt_token"], why["stored_token"]) == (ord("6"), ord("5"))
    assert str(differs) in why["sentence"]


def test_a_prompt_that_is_stored_has_no_miss(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    tokens = prompt(64)
    keys = reprise.block_keys(tokens, spec.block_tokens)
    client.store(spec, keys, random_blocks(spec, 4), tokens=tokens)
    why = client.explain(spec, keys, tokens)
    assert (why["reason"], why["run_blocks"]) == ("none", 4)
    assert why["tiers"] == [{"tier": "dram", "blocks": 4}]


def test_a_prompt_that_nobody_stored_says_so(
    client: reprise.Client, spec: reprise.CacheSpec, prompt: Prompt
) -> None:
    tokens = prompt(32)
    why = client.explain(spec, reprise.block_keys(tokens), tokens)
    assert (why["reason"], why["run_blocks"], why["miss_block"]) == ("never_stored", 0, 0)
    assert len(why["shards"]) == 3


def test_another_spec_is_named_by_its_first_field(client: reprise.Client, prompt: Prompt) -> None:
    spec = make_spec(revision="r1")
    other = make_spec(model=spec.model, revision="r2")
    tokens = prompt(32)
    keys = reprise.block_keys(tokens)
    client.store(spec, keys, random_blocks(spec, 2), tokens=tokens)
    # A spec is known to a shard once a worker opened it there.
    client.acquire(other, keys).release()
    why = client.explain(other, keys, tokens)
    assert why["reason"] == "other_spec"
    assert (why["spec_field"], why["spec_value_asked"], why["spec_value_stored"]) == (
        "revision",
        "r2",
        "r1",
    )
