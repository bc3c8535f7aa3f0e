"""`./dev demo --json` on a small model: the story holds, and the JSON says what it promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[3] / "client" / "python"


def test_a_conversation_survives_its_worker_and_its_shard(binaries: Path) -> None:
    pytest.importorskip("transformers")
    code = (
        f"import sys; sys.path.append({str(SOURCES)!r}); "
        "from demo.__main__ import main; sys.exit(main())"
    )
    command = ["--json", "--size", "small", "--answer-tokens", "8", "--binaries", str(binaries)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr + done.stdout
    facts = json.loads(done.stdout)
    assert facts["failures"] == []
    assert facts["tokens_identical"] is True
    assert facts["max_logit_difference"] == 0.0
    assert facts["cold_logit_difference"] <= facts["cold_logit_tolerance"]
    assert 0 < facts["cached_tokens"] < facts["prompt_tokens"]
    assert facts["cached_tokens"] == 16 * facts["blocks_restored"]
    assert facts["bytes_restored"] > 0
    assert facts["usage"]["prompt_tokens_details"]["cached_tokens"] == facts["cached_tokens"]
    assert facts["worker_killed"] is True and facts["shard_killed"] is True
    assert facts["shard_killed_id"] not in facts["restored_from"]
    for name in ("ttft_cold_ms", "ttft_restored_ms", "generate_no_cache_s", "generate_kv_cache_s"):
        assert facts[name] > 0
