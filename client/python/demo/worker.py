"""An inference worker: a process with a model, that answers prompts one at a time.

    python -m demo.worker

It reads one JSON object per line on stdin and answers each with one on stdout. Its first line is
`{"model": PATH | null, "size": ..., "device": "cpu" | "cuda", "tokenizer": PATH,
"router": ADDRESS | null, "name": ..., "folder": PATH}`. Without a router it has no client and
computes everything itself. Then `{"encode": TEXT}`, or an ask: `{"prompt": [ids], "count": n,
"session": str, "how": ...}` where `how` is
- "reprise": restore the prefix, compute the rest, store everything;
- "own": go on with the K/V cache that the last answer left, cut to `cached` tokens;
- "cold": compute everything with an empty K/V cache;
- "no-cache": compute everything again for every token.
Logits go to files in `folder`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from demo import decode, model

THREADS = 2


class Worker:
    """The state of the process: a model, perhaps a client, and the K/V cache of the last answer."""

    def __init__(self, setup: dict[str, Any]) -> None:
        torch.set_num_threads(THREADS)
        self._decoder = model.load(
            setup["model"], setup["size"], Path(setup["tokenizer"]), setup["device"]
        )
        self._folder = Path(setup["folder"])
        self._name: str = setup["name"]
        self._asked = 0
        self._own: DynamicCache | None = None
        self._client: Any = None
        self._prefixes: Any = None
        if setup["router"]:
            import reprise
            from reprise.engines.transformers import PrefixCache

            self._client = reprise.Client(router=setup["router"], name=f"demo-{self._name}")
            self._prefixes = PrefixCache(self._client, self._decoder.model)
        self._warm_up()

    def _warm_up(self) -> None:
        """The first steps of a process are slower than all others; a GPU loads its kernels by the
        shapes that they are for."""
        model = self._decoder.model
        tokens = 64 if model.device.type == "cpu" else 4096
        cache = self._empty()
        decode.with_cache(model, [1] * tokens, 0, cache, 2, time.perf_counter())
        decode.with_cache(model, [1] * (tokens + 33), tokens, cache, 2, time.perf_counter())

    def hello(self) -> dict[str, Any]:
        """What this worker is."""
        answer: dict[str, Any] = {"model": self._decoder.describe()}
        if self._prefixes:
            answer["block_bytes"] = self._prefixes.spec.block_bytes
            answer["block_tokens"] = self._prefixes.spec.block_tokens
            answer["fingerprint"] = self._prefixes.spec.fingerprint.hex()
        return answer

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answers one request."""
        if "encode" in request:
            return {"tokens": self._decoder.encode(request["encode"])}
        if "replicas" in request:
            return {"shards": self._shards_with(request["replicas"])}
        return self._ask(request)

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        prompt, count, how = request["prompt"], request["count"], request["how"]
        facts: dict[str, Any] = {}
        started = time.perf_counter()
        if how == "no-cache":
            answer = decode.without_cache(self._decoder.model, prompt, count)
        else:
            cache, cached = self._cache_for(request, facts)
            answer = decode.with_cache(self._decoder.model, prompt, cached, cache, count, started)
            self._own = cache
            if how == "reprise":
                facts.update(self._save(prompt + answer.tokens, cache, request["session"]))
        self._asked += 1
        path = self._folder / f"{self._name}-{self._asked}.npy"
        np.save(path, answer.logits.numpy())
        return {
            "tokens": answer.tokens,
            "text": self._decoder.decode(answer.tokens),
            "ttft_ms": answer.ttft_seconds * 1e3,
            "total_s": answer.total_seconds,
            "logits": str(path),
            **facts,
        }

    def _cache_for(
        self, request: dict[str, Any], facts: dict[str, Any]
    ) -> tuple[DynamicCache, int]:
        if request["how"] == "cold":
            return self._empty(), 0
        if request["how"] == "own":
            cached: int = request["cached"]
            if self._own is None or cached == 0:
                return self._empty(), 0
            extra = self._own.get_seq_length() - cached
            if extra:
                self._own.crop(-extra)
            return self._own, cached
        before = self._served()
        started = time.perf_counter()
        restored = self._prefixes.restore(request["prompt"], request["session"])
        facts.update(
            restore_ms=(time.perf_counter() - started) * 1e3,
            cached_tokens=restored.cached_tokens,
            blocks=restored.blocks,
            bytes=restored.bytes,
            lanes=restored.lanes,
            tiers=restored.tiers,
            usage=restored.usage,
            error=restored.error,
            served_by={
                shard: blocks - before.get(shard, 0)
                for shard, blocks in self._served().items()
                if blocks > before.get(shard, 0)
            },
        )
        return restored.cache, restored.cached_tokens

    def _save(self, tokens: list[int], cache: DynamicCache, session: str) -> dict[str, Any]:
        started = time.perf_counter()
        result = self._prefixes.save(tokens, cache, session)
        return {
            "stored_blocks": result.stored,
            "stored_bytes": result.bytes,
            "store_ms": (time.perf_counter() - started) * 1e3,
            "store_error": result.error,
        }

    def _served(self) -> dict[str, int]:
        """Blocks that each shard has sent to this worker so far."""
        served: dict[str, int] = self._client.stats()["blocks_fetched_by_shard"]
        return served

    def _shards_with(self, tokens: list[int]) -> dict[str, int]:
        """Blocks of this prompt on each shard, now."""
        import reprise

        spec = self._prefixes.spec
        keys = reprise.block_keys(tokens, spec.block_tokens)
        explained = self._client.explain(spec, keys)
        return {
            row["shard_id"]: row["run_blocks"] for row in explained["shards"] if "run_blocks" in row
        }

    def _empty(self) -> DynamicCache:
        return DynamicCache(config=self._decoder.model.config)


def main() -> None:
    """Serves stdin until it ends."""
    worker = Worker(json.loads(sys.stdin.readline()))
    _answer(worker.hello())
    for line in sys.stdin:
        _answer(worker.handle(json.loads(line)))


def _answer(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
