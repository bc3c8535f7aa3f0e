"""A part of the demo with vLLM: one server computes a prompt, and the other one answers it."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from demo.console import Console
from demo.report import Report, Section, count, milliseconds
from demo.vllm_fleet import BLOCK_TOKENS, Answer, Server, full_blocks

LOADED = "vllm:reprise_loaded_blocks_by_tier_total"


@dataclasses.dataclass
class Handover:
    """`control`: the second server alone, without Reprise."""

    prefill_ms: float
    answer: Answer
    loaded_tokens: int
    control: Answer

    @classmethod
    def measure(
        cls, first: Server, second: Server, prompt: list[int], tokens: int, console: Console
    ) -> Handover:
        """The prompt is new to both."""
        # As long as the prompt that follows, and another one from its first block on.
        asked = prompt[BLOCK_TOKENS // 2 :]
        before = second.metric(LOADED)
        begun = time.monotonic()
        handed = first.prefill(asked)
        prefill_ms = (time.monotonic() - begun) * 1000
        answer = second.complete(asked, tokens, handed=handed)
        second.settle()  # the metrics follow the answer by a moment
        loaded = round(second.metric(LOADED) - before) * BLOCK_TOKENS
        control = second.complete(asked, tokens, salt="handover", own_cache_only=True)
        console.note(
            f"server {first.name} computed a prompt of {count(len(asked))} tokens in "
            f"{milliseconds(prefill_ms)}; server {second.name} answered it from "
            f"{count(loaded)} of them, first token after {milliseconds(answer.ttft_ms)}"
        )
        return cls(prefill_ms, answer, loaded, control)

    @property
    def identical(self) -> bool:
        return self.answer.tokens == self.control.tokens

    def facts(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.answer.prompt_tokens,
            "loaded_tokens": self.loaded_tokens,
            "prefill_ms": self.prefill_ms,
            "ttft_ms": self.answer.ttft_ms,
            "ttft_alone_ms": self.control.ttft_ms,
            "tokens_identical": self.identical,
        }

    def check(self, report: Report) -> None:
        expected = full_blocks(self.answer.prompt_tokens - 1)
        report.require(
            self.loaded_tokens == expected,
            f"the second server loaded {self.loaded_tokens} tokens of the first one's "
            f"{expected}",
        )
        report.require(self.identical, "the second server's tokens differ from those of its own")

    def section(self) -> Section:
        return Section(
            "A prompt that one server computed and the other answered",
            [
                (
                    "tokens handed over",
                    f"{count(self.loaded_tokens)} of {count(self.answer.prompt_tokens)}",
                ),
                ("computed by the first", milliseconds(self.prefill_ms)),
                ("first token of the second", milliseconds(self.answer.ttft_ms)),
                ("the second alone", milliseconds(self.control.ttft_ms)),
                ("tokens identical", "yes" if self.identical else "NO"),
            ],
        )
