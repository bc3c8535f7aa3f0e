"""The demo on a GPU: a Llama of SmolLM2-1.7B's shape, in bf16, whose worker and shard are killed.

    python3 gpu_demo.py --bundle FOLDER --out FOLDER

Runs the demo itself (`./dev demo` runs the same code) with a conversation of two turns and answers
of 300 tokens. Passes when it passes: the answers equal those of the engine's own K/V cache.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bundle_python import Bundle, run_step, table

ANSWER_TOKENS = 300
LIMIT_SECONDS = 200


def demo(bundle: Bundle) -> int:
    """Exit status of the step."""
    command = [
        sys.executable, "-m", "demo", "--json", "--device", "cuda", "--size", "smollm2-1.7b",
        "--turns", "2", "--answer-tokens", str(ANSWER_TOKENS), "--shards", "2",
        "--dram", "256MiB", "--hbm", "3GiB",
    ]  # fmt: skip
    # The engine's cache grows with every token, and torch's allocator asks the driver each time
    # unless its segments may grow too.
    allocator = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    done = subprocess.run(
        command,
        env={**bundle.environment(), **allocator},
        stdout=subprocess.PIPE,
        timeout=LIMIT_SECONDS,
        check=False,
        text=True,
    )
    if not done.stdout.strip():
        print(f"the demo ended with {done.returncode} and printed nothing")
        return 1
    facts = json.loads(done.stdout)
    (bundle.out / "demo.json").write_text(json.dumps(facts, indent=1))
    print(f"{facts['model']}; killed: worker A and {facts['shard_killed_id']}, home of the session")
    sources = ", ".join(facts["restored_from"])
    lanes = ", ".join(f"{blocks} by {lane}" for lane, blocks in facts["lanes"].items())
    tiers = ", ".join(f"{blocks} from {tier}" for tier, blocks in facts["tiers"].items())
    table(
        (f"last turn, {facts['prompt_tokens']} tokens of prompt", "value"),
        [
            ("cached tokens", str(facts["cached_tokens"])),
            ("restored", f"{facts['bytes_restored'] / 2**20:.0f} MiB from {sources}"),
            ("blocks", f"{lanes}; {tiers}"),
            ("first token, computed", f"{facts['ttft_cold_ms']:.1f} ms"),
            ("first token, restored", f"{facts['ttft_restored_ms']:.1f} ms"),
            (f"{ANSWER_TOKENS} tokens without K/V cache", f"{facts['generate_no_cache_s']:.2f} s"),
            ("with the engine's own K/V cache", f"{facts['generate_kv_cache_s']:.2f} s"),
            ("with the prefix restored", f"{facts['generate_restored_s']:.2f} s"),
            ("tokens identical to the engine's own cache", str(facts["tokens_identical"])),
            ("largest logit difference to it", f"{facts['max_logit_difference']:g}"),
            ("tokens equal to a cold prompt's", f"{facts['cold_tokens_equal']} of {ANSWER_TOKENS}"),
        ],
    )
    for failure in facts["failures"]:
        print(f"FAILED: {failure}")
    return 1 if facts["failures"] or done.returncode else 0


if __name__ == "__main__":
    run_step(demo)
