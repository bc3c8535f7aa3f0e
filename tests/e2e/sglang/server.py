"""Real SGLang servers on this machine's CPU, on loopback, over a Reprise cache."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from demo.server_process import free_port

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


class Server:
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
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = folder / f"sglang-{name}.log"
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
        self._log = self.log_path.open("ab")
        self.process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )

    def ready(self, timeout_s: float = START_TIMEOUT_S) -> "Server":
        """Returns when it serves. Raises RuntimeError with the end of its log, or TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"SGLang {self.name} ended while starting: {self.log()[-3000:]}")
            try:
                urllib.request.urlopen(f"{self.url}/model_info", timeout=2).read()
                return self
            except OSError:
                time.sleep(0.2)
        raise TimeoutError(
            f"SGLang {self.name} does not serve after {timeout_s:.0f} s: {self.log()[-3000:]}"
        )

    def ended(self, timeout_s: float = START_TIMEOUT_S) -> str:
        """What the log says of a server that must refuse to start."""
        self.process.wait(timeout_s)
        return self.log()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

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
        """SIGKILL for all of its processes: an orderly stop takes SGLang many seconds."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own session: nobody else is in it
        except ProcessLookupError:
            pass
        self.process.wait()
        self._log.close()
