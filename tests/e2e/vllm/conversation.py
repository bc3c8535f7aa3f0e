"""Prompts of token ids, so that what is cached can be counted exactly; and the control that
answers are held to.
"""

from __future__ import annotations

from demo.vllm_fleet import Answer, Server
from prompts import words

def alone(server: Server, prompt: list[int], tokens: int, salt: str = "control") -> Answer:
    """What the server answers with its own prefix cache and nothing of Reprise."""
    return server.complete(prompt, tokens, salt=salt, own_cache_only=True)


class Talk:
    """A conversation that any server can go on with."""

    def __init__(self, name: str, first: int = 200) -> None:
        self.session = name
        self.prompt = words(f"{name} begins", first)
        self.computed = 0  # tokens whose K/V some server computed
        self.turns: list[tuple[list[int], Answer]] = []

    def turn(self, server: Server, tokens: int = 12, timeout: float = 60.0) -> Answer:
        """The server answers; the next question is appended."""
        answer = server.complete(self.prompt, tokens, session=self.session, timeout=timeout)
        self.turns.append((self.prompt, answer))
        self.computed = (
            len(self.prompt) + len(answer.tokens) - 1
        )  # the last token was never an input
        self.prompt = self.prompt + answer.tokens + words(f"{self.session} {len(self.turns)}", 45)
        return answer

    def cacheable(self) -> int:
        """Tokens of the next prompt that are in full blocks which some server computed; one is
        always computed.
        """
        from demo.vllm_fleet import full_blocks

        return min(full_blocks(self.computed), full_blocks(len(self.prompt) - 1))

    def check(self, server: Server) -> None:
        """Every answer equals that of one server that served the whole conversation alone."""
        for number, (prompt, answer) in enumerate(self.turns):
            control = alone(server, prompt, len(answer.tokens), salt=f"control {self.session}")
            assert answer.tokens == control.tokens, f"turn {number + 1} differs from the control"
