"""What the package is to others: light to import, typed, at peace with torch and grpcio."""

import re
import subprocess
import sys
from pathlib import Path

import reprise

PACKAGE = Path(reprise.__file__).parent


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_importing_it_imports_no_engine() -> None:
    loaded = run(
        "import reprise, sys; "
        "print([m for m in ('torch', 'transformers', 'vllm') if m in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


def test_nothing_in_it_can_run_what_a_cache_returns() -> None:
    for source in PACKAGE.rglob("*.py"):
        text = source.read_text()
        found = re.search(r"\b(pickle|marshal|torch\.load)\b|(?<![\w.])(eval|exec)\(", text)
        assert not found, f"{source}: {found.group()}"


def test_its_libraries_live_beside_those_of_torch_and_grpcio() -> None:
    code = """
import torch, grpc, reprise, numpy as np
from concurrent import futures
server = grpc.server(futures.ThreadPoolExecutor(1))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
spec = reprise.CacheSpec("m", dtype="f32", layers=1, kv_heads=1, head_dim=16)
with reprise.Client(shards=[f"127.0.0.1:{port}"], timeout=2.0) as client:
    run = client.acquire(spec, reprise.block_keys(list(range(32))))
    assert run.blocks == 0 and run.error, run
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    grpc.channel_ready_future(channel).result(timeout=10)
print(torch.ones(3).sum().item(), len(reprise.checksum(np.ones(100), 64)))
"""
    assert run(code).split() == ["3.0", "16"]
