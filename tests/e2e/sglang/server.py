"""Real SGLang servers on this machine's CPU, on loopback, over a Reprise cache."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from demo.server_process import ServerProcess

PAGE_TOKENS = 16
POOL_TOKENS = 8192  # of the engine's own memory; its host memory has as much
START_TIMEOUT_S = 300.0
ON_CPU = pathlib.Path(__file__).parent / "on_cpu"


def reprise_backend(router: str, **settings: Any) -> dict[str, Any]:
    """The --hicache-storage-backend-extra-config of a server over this cache."""
    return {
        "backend_name": "reprise",
        "module_path": "reprise.engines.sglang",
        "class_name": "RepriseHiCache",
        "interface_v1": 1,
        "hicache_storage_pass_prefix_keys": True,
        "prefetch_threshold": PAGE_TOKENS,
        "router": router,
        **settings,
    }


def full_pages(tokens: int) -> int:
    """Tokens of the full pages of a prompt or prefix."""
    return tokens // PAGE_TOKENS * PAGE_TOKENS


@dataclasses.dataclass
class Answer:
    tokens: list[int]
    cached: dict[str, int]  # prompt tokens not computed, by where they were: device, host, storage

    @property
    def from_storage(self) -> int:
        return self.cached.get("storage", 0)

    @property
    def cached_tokens(self) -> int:
        return sum(self.cached.values())


class Server(ServerProcess):
    """One SGLang server. Starts on construction; `ready` waits until it serves."""

    def __init__(
        self,
        folder: pathlib.Path,
        model: pathlib.Path,
        name: str,
        backend: dict[str, Any] | None,
        *,
        layout: str = "page_first_direct",
        arguments: tuple[str, ...] = (),
    ) -> None:
        super().__init__("SGLang", name, folder)
        command = [
            sys.executable, "-m", "sglang.launch_server",
            "--model-path", str(model), "--dtype", "float32",
            "--device", "cpu", "--attention-backend", "torch_native",
            "--host", "127.0.0.1", "--port", str(self.port),
            "--skip-tokenizer-init", "--skip-server-warmup",
            "--page-size", str(PAGE_TOKENS), "--context-length", str(POOL_TOKENS),
            "--max-total-tokens", str(POOL_TOKENS), "--mem-fraction-static", "0.2",
            "--enable-hierarchical-cache", "--hicache-ratio", "1.2",
            "--hicache-io-backend", "direct", "--hicache-mem-layout", layout,
            "--hicache-write-policy", "write_through", "--enable-cache-report",
            "--enable-metrics", "--sleep-on-idle", *arguments,
        ]  # fmt: skip
        if backend is not None:
            command += [
                "--hicache-storage-backend", "dynamic",
                "--hicache-storage-prefetch-policy", "wait_complete",
                "--hicache-storage-backend-extra-config", json.dumps(backend),
            ]  # fmt: skip
        path = os.pathsep.join([str(ON_CPU), os.environ.get("PYTHONPATH", "")])
        self.start(command, {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"})

    def ready(self, timeout_s: float = START_TIMEOUT_S) -> "Server":
        """Returns when it serves. Raises RuntimeError with the end of its log, or TimeoutError."""
        self.await_answer("/model_info", timeout_s)
        return self

    def post(self, path: str, body: dict[str, Any] | None = None, timeout: float = 60.0) -> Any:
        """The answer's JSON, or its text. Raises HTTPError."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body or {}).encode(), {"Content-Type": "application/json"}
        )
        text = urllib.request.urlopen(request, timeout=timeout).read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def complete(self, prompt: list[int], tokens: int, **fields: Any) -> Answer:
        """Greedy completion of a prompt of token ids."""
        sampling = {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True}
        answer = self.post(
            "/generate", {"input_ids": prompt, "sampling_params": sampling, **fields}
        )
        details = answer["meta_info"].get("cached_tokens_details") or {}
        cached = {place: details.get(place, 0) for place in ("device", "host", "storage")}
        assert sum(cached.values()) == answer["meta_info"]["cached_tokens"]
        return Answer(answer["output_ids"], cached)

    def forget(self) -> None:
        """Empties the engine's own caches, of the device and of the host, once nothing runs."""
        deadline = time.monotonic() + 30
        while True:
            try:
                self.post("/flush_cache")
                return
            except urllib.error.HTTPError:  # a request is not yet over
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        """At once: an orderly stop takes SGLang many seconds."""
        if self.process.poll() is None:
            self.kill()
        super().close()
