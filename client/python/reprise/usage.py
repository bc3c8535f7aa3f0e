"""Token accounting in the shape of OpenAI's API."""

from __future__ import annotations

from typing import TypedDict


class PromptTokensDetails(TypedDict):
    """What the prompt's tokens were."""

    cached_tokens: int


class Usage(TypedDict):
    """The prompt's part of an OpenAI `usage` object."""

    prompt_tokens: int
    prompt_tokens_details: PromptTokensDetails


def usage_details(prompt_tokens: int, cached_tokens: int) -> Usage:
    """The `usage` of a request whose first `cached_tokens` of `prompt_tokens` tokens were not
    computed.

    Raises ValueError unless 0 <= cached_tokens <= prompt_tokens.
    """
    if not 0 <= cached_tokens <= prompt_tokens:
        raise ValueError(
            f"cached_tokens = {cached_tokens}: must be in [0, prompt_tokens = {prompt_tokens}]"
        )
    return {
        "prompt_tokens": int(prompt_tokens),
        "prompt_tokens_details": {"cached_tokens": int(cached_tokens)},
    }
