"""Page hashes made here are SGLang's own: what its servers stored can be asked for from outside."""

from __future__ import annotations

import array
import json
import pathlib
import subprocess

import pytest

pytest.importorskip("sglang", reason="SGLang is not installed here: ./dev test installs it")

import reprise  # noqa: E402
from prompts import words  # noqa: E402
from server import PAGE_TOKENS, full_pages  # noqa: E402
from sglang.srt.mem_cache.radix_cache import RadixKey  # noqa: E402
from sglang.srt.mem_cache.utils import get_storage_hash_str  # noqa: E402
from stored import COPIES, Growth  # noqa: E402

VECTORS = pathlib.Path(__file__).parents[2] / "unit" / "client" / "key_vectors.json"
ROWS = json.loads(VECTORS.read_text())["sglang"]


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_the_vectors_are_sglangs(row):
    key = RadixKey(
        array.array("q", row["tokens"]),
        extra_key=row["extra_key"] or None,
        cache_salt=row["cache_salt"] or None,
    )
    made = get_storage_hash_str(key, page_size=row["page_tokens"])
    assert made[: len(row["keys"])] == row["keys"]


def test_explain_says_what_a_server_stored_of_a_prompt(pair, cache, binaries):
    prompt = words("explained", 200)
    stored = Growth(cache)
    pair.a.complete(prompt, 2, cache_salt="a salt")
    stored.reaches(COPIES * (200 // PAGE_TOKENS))
    specs = subprocess.run(
        [binaries / "reprise", "get", "specs", "--router", cache.router, "-o", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    (mine,) = [
        row["fingerprint"]
        for row in json.loads(specs.stdout)["specs"]
        if all(part in row["spec"] for part in ("model=tiny-llama", "layers=4", "sglang kv"))
    ]
    answer = subprocess.run(
        [binaries / "reprise", "explain", "--router", cache.router, "--fingerprint", mine]
        + ["--tokens", json.dumps(prompt), "--salt", "a salt", "-o", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    runs = [row["run_blocks"] for row in json.loads(answer.stdout)["shards"]]
    assert max(runs) * PAGE_TOKENS == full_pages(200)
