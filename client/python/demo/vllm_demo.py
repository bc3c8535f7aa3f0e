"""The demo with vLLM: two servers, one cache. They answer a conversation's turns in turn; then one
of them is killed and the other goes on, from K/V that the dead one computed. Before that, one
computes a prompt that the other one answers.

The control is the surviving server alone, with its own prefix cache and without Reprise: its tokens
must be the same.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import openai

from demo.cluster import Cluster
from demo.console import Console
from demo.options import Options
from demo.report import Report, Section, count, milliseconds
from demo.vllm_fleet import Answer, Server, full_blocks, reprise_connector
from demo.vllm_handover import Handover
from demo.vllm_model import local_text, make_model

SESSION = "demo-conversation"
TURNS = 6
LOOKUP_BUDGET_MS = 2_000  # two servers start on a laptop: what is stored must be counted exactly
SIZES: dict[str, tuple[int, dict[str, Any]]] = {  # characters of the document; the made model
    "full": (6000, dict(layers=6, width=512, heads=8, kv_heads=4)),
    "small": (1500, dict(layers=2, width=128, heads=2, kv_heads=1)),
}
QUESTIONS = (
    "Who may copy this?",
    "And who may change it?",
    "What must be kept?",
    "What is not promised?",
    "Where does it end?",
    "Say it in one sentence.",
)


def run(options: Options, console: Console) -> Report:
    """Tells the story, and measures it."""
    console.title("Reprise: two vLLM servers, one conversation, and one of them dies")
    with tempfile.TemporaryDirectory(prefix="reprise-demo-") as name:
        folder = Path(name)
        with Cluster(
            options.binaries, shards=options.shards, log=folder / "cluster.log"
        ) as cluster:
            story = _Story(options, console, folder)
            try:
                story.start(cluster.router)
                report = story.tell()
                if report.failures:
                    story.show_warnings()  # the logs are gone in a moment
                return report
            except openai.OpenAIError as error:
                story.show_warnings()
                raise RuntimeError(f"a request to vLLM failed: {error}") from error
            finally:
                story.close()


class _Story:
    def __init__(self, options: Options, console: Console, folder: Path) -> None:
        self._options = options
        self._console = console
        self._folder = folder
        characters, self._shape = SIZES[options.size]
        self._document = local_text()[0][:characters]
        self._servers: list[Server] = []
        self._model = options.model or "a Llama with random weights, made on the spot"

    def start(self, router: str) -> None:
        """Makes the model and starts both servers. Raises RuntimeError or TimeoutError with the
        end of a server's log.
        """
        if self._options.model is None:
            with self._console.doing("making a model with random weights and a tokenizer"):
                model = make_model(self._folder / "tiny-llama", **self._shape)
        else:
            model = Path(self._options.model)
        with self._console.doing("starting two vLLM servers (half a minute)"):
            for letter in "AB":
                self._servers.append(
                    Server(
                        self._folder,
                        model,
                        letter,
                        connector=reprise_connector(router, lookup_budget_ms=LOOKUP_BUDGET_MS),
                        dtype="float32" if self._options.model is None else "auto",
                    )
                )
            for server in self._servers:
                server.ready()

    def show_warnings(self) -> None:
        """What the servers' logs say about Reprise and about errors."""
        for server in self._servers:
            for line in server.warnings():
                self._console.note(f"server {server.name}: {line}")

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def tell(self) -> Report:
        a, b = self._servers
        say = self._console
        turns = [a.tokens_of(self._document)] + [[] for _ in range(TURNS - 1)]
        turns = [ids + a.tokens_of(f"\n\n{question}\n") for ids, question in zip(turns, QUESTIONS)]
        answers: list[tuple[str, list[int], Answer, int]] = []
        prompt: list[int] = []
        stored = 0
        handover = Handover.measure(a, b, turns[0], self._options.answer_tokens, say)
        for number, ids in enumerate(turns):
            last = number == TURNS - 1
            server = b if last else (a, b)[number % 2]
            if last:
                a.settle()
                pid = a.process.pid
                a.kill()
                say.alarm(
                    f"server A, pid {pid}, killed with SIGKILL: its memory, and the answer to "
                    f"turn {number}, is gone"
                )
                b.forget_prefixes()
                say.note(
                    "server B forgets its own prefix cache: what it knows now comes from Reprise"
                )
            prompt = prompt + ids
            expected = min(full_blocks(stored), full_blocks(len(prompt) - 1))
            answer = server.complete(prompt, self._options.answer_tokens, session=SESSION)
            say.note(
                f"turn {number + 1}: server {server.name}, {count(answer.prompt_tokens)} "
                f"prompt tokens, "
                f"{count(answer.cached_tokens)} cached, first token after "
                f"{milliseconds(answer.ttft_ms)}"
            )
            if not last:
                server.settle()
            answers.append((server.name, list(prompt), answer, expected))
            stored = len(prompt) + len(answer.tokens) - 1
            prompt = prompt + answer.tokens
        with say.doing("control: server B alone, the whole conversation with its own prefix cache"):
            alone = [
                b.complete(asked, self._options.answer_tokens, salt="control", own_cache_only=True)
                for _, asked, _, _ in answers
            ]
        cold = b.complete(
            answers[-1][1], self._options.answer_tokens, salt="cold", own_cache_only=True
        )
        return self._report(answers, alone, cold, handover)

    def _report(
        self,
        answers: list[tuple[str, list[int], Answer, int]],
        alone: list[Answer],
        cold: Answer,
        handover: Handover,
    ) -> Report:
        report = Report()
        restored = answers[-1][2]
        identical = all(mine.tokens == own.tokens for (_, _, mine, _), own in zip(answers, alone))
        report.facts = {
            "engine": "vllm",
            "model": self._model,
            "turns": TURNS,
            "tokens_identical": identical,
            "worker_killed": True,
            "prompt_tokens": restored.prompt_tokens,
            "cached_tokens": restored.cached_tokens,
            "ttft_cold_ms": cold.ttft_ms,
            "ttft_restored_ms": restored.ttft_ms,
            "ttft_speedup": cold.ttft_ms / max(restored.ttft_ms, 0.001),
            "answer_tokens": self._options.answer_tokens,
            "handover": handover.facts(),
        }
        handover.check(report)
        report.require(
            identical, "the tokens differ from those of one server with its own prefix cache"
        )
        for number, (name, _, mine, expected) in enumerate(answers):
            report.require(
                mine.cached_tokens == expected,
                f"turn {number + 1} on server {name}: {mine.cached_tokens} "
                f"tokens were cached, {expected} were stored",
            )
        rows: list[tuple[str, ...]] = [
            (
                str(number + 1),
                name,
                count(mine.prompt_tokens),
                count(mine.cached_tokens),
                milliseconds(mine.ttft_ms),
                "yes" if mine.tokens == own.tokens else "NO",
            )
            for number, ((name, _, mine, _), own) in enumerate(zip(answers, alone))
        ]
        report.sections = [
            handover.section(),
            Section(
                "The conversation, in tokens",
                rows,
                (
                    "turn",
                    "server",
                    "prompt",
                    "cached",
                    "first token",
                    "same tokens as one server alone",
                ),
            ),
            Section(
                "The last turn, after server A was killed",
                [
                    (
                        "cached tokens",
                        f"{count(restored.cached_tokens)} of {count(restored.prompt_tokens)}, "
                        f"none of them "
                        f"from server B's own cache",
                    ),
                    ("first token, cold", milliseconds(cold.ttft_ms)),
                    ("first token, restored", milliseconds(restored.ttft_ms)),
                    ("speed-up", f"{report.facts['ttft_speedup']:.1f} x"),
                    ("tokens identical", "yes" if identical else "NO"),
                ],
            ),
        ]
        return report
