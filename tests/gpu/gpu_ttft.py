"""Time to first token on a GPU, restored from Reprise beside computed, over the prompt's length.

    python3 gpu_ttft.py --bundle FOLDER --out FOLDER

A Llama of SmolLM2-1.7B's shape (24 layers of 32 heads of 64, 192 KiB of K/V a token) in bf16 with
seeded weights, random tokens. One shard holds the blocks; each length is measured REPEATS times
both ways, in turns, and the medians are compared. The last 64 tokens are never stored, so that the
restored way computes something, as a new question does.

Last it says from which length on restoring is faster, by tier: where lines through the measured
times cross.

Passes when every restored prefix was whole and its logits are those of the engine's own cache after
the same steps; how far both are from a prompt computed in one step is bf16's rounding, and printed.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

from bundle_python import Bundle, run_step, table

LENGTHS = (1024, 4096, 8192, 16384)
REPEATS = 5
QUESTION_TOKENS = 64
VOCABULARY = 49_152
#: One rounding of bf16, relative to the largest logit.
TOLERANCE = 2.0**-8


def sweep(bundle: Bundle) -> int:
    """Exit status of the step."""
    from demo import model as models
    from demo.cluster import Cluster

    model = models.make("smollm2-1.7b", "cuda")
    rows = []
    for tier, memory in (("hbm", {"hbm": "8GiB", "dram": "64MiB"}), ("dram", {"dram": "5GiB"})):
        log = bundle.out / f"ttft-{tier}-cluster.txt"
        with Cluster(bundle.folder, shards=1, replication=1, log=log, **memory) as cluster:
            rows += [{"tier": tier, **row} for row in measure(model, cluster.router)]
    table(
        (
            "tokens of prompt", "tier", "blocks by lane", "GiB", "computed", "restored",
            "of it restore", "speed-up", "logits: own cache", "one step",
        ),
        [
            (
                f"{row['tokens']:,}", row["tier"],
                ", ".join(f"{n} {lane}" for lane, n in row["lanes"].items()),
                f"{row['bytes'] / 2**30:.2f}", f"{row['computed_ms']:.1f} ms",
                f"{row['restored_ms']:.1f} ms", f"{row['restore_ms']:.1f} ms",
                f"{row['computed_ms'] / row['restored_ms']:.2f} x", f"{row['difference']:.2%}",
                f"{row['one_step_difference']:.1%}",
            )
            for row in rows
        ],
    )  # fmt: skip
    for tier in ("hbm", "dram"):
        print(f"{tier}: {_crossover([row for row in rows if row['tier'] == tier])}")
    (bundle.out / "ttft.json").write_text(json.dumps(rows, indent=1))
    failures = [row for row in rows if row["missing"] or row["difference"] > TOLERANCE]
    for row in failures:
        print(f"FAILED: {row}")
    return 1 if failures else 0


def measure(model: Any, router: str) -> list[dict[str, Any]]:
    """One row per length."""
    import torch

    import reprise
    from reprise.engines.transformers import PrefixCache

    rows = []
    with reprise.Client(router=router, name="ttft", timeout=30.0) as client:
        prefixes = PrefixCache(client, model, revision="seeded")
        generator = torch.Generator().manual_seed(83)
        for tokens in LENGTHS:
            prompt = torch.randint(0, VOCABULARY, (tokens,), generator=generator).tolist()
            rows.append(_length(model, prefixes, prompt))
    return rows


def _length(model: Any, prefixes: Any, prompt: list[int]) -> dict[str, Any]:
    from transformers import DynamicCache

    stored = len(prompt) - QUESTION_TOKENS
    cache = DynamicCache(config=model.config)
    _step(model, prompt[:stored], cache)
    saved = prefixes.save(prompt[:stored], cache)
    own = _step(model, prompt[stored:], cache)
    del cache
    computed, restored, restore = [], [], []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        expected = _step(model, prompt, DynamicCache(config=model.config))
        computed.append(time.perf_counter() - started)
        started = time.perf_counter()
        back = prefixes.restore(prompt)
        restore.append(time.perf_counter() - started)
        logits = _step(model, prompt[back.cached_tokens :], back.cache)
        restored.append(time.perf_counter() - started)
    largest = expected.abs().max()
    return {
        "tokens": len(prompt),
        "missing": stored // 16 * 16 - back.cached_tokens,
        "error": back.error or saved.error,
        "lanes": back.lanes,
        "tiers": back.tiers,
        "bytes": back.bytes,
        # The first of each is the warm-up.
        "computed_ms": statistics.median(computed[1:]) * 1e3,
        "restored_ms": statistics.median(restored[1:]) * 1e3,
        "restore_ms": statistics.median(restore[1:]) * 1e3,
        "difference": float((logits - own).abs().max() / largest),
        "one_step_difference": float((logits - expected).abs().max() / largest),
    }


def _crossover(rows: list[dict[str, Any]]) -> str:
    """In words: the shortest prompt, among those measured and between them, that restoring wins."""
    gains = [(row["tokens"], row["computed_ms"] - row["restored_ms"]) for row in rows]
    if gains[-1][1] <= 0:
        return f"computing is faster at {gains[-1][0]:,} tokens still"
    if all(gain > 0 for _, gain in gains):
        return f"restoring is faster from {gains[0][0]:,} tokens on, the shortest measured"
    at = max(i for i, (_, gain) in enumerate(gains) if gain <= 0)
    (shorter, loss), (longer, gain) = gains[at : at + 2]
    crossover = shorter + (longer - shorter) * -loss / (gain - loss)
    return f"restoring is faster from about {crossover:,.0f} tokens on"


def _step(model: Any, tokens: list[int], cache: Any) -> Any:
    import torch

    with torch.inference_mode():
        ids = torch.tensor([tokens], device="cuda")
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        logits = output.logits[0, -1].float()
        torch.cuda.synchronize()
    return logits


if __name__ == "__main__":
    run_step(sweep)
