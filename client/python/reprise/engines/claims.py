"""Names of claims: what keeps K/V is known, replaced and ended by one."""

from __future__ import annotations

import hashlib

CLAIM_BYTES_MAX = 128
SUFFIX_BYTES_MAX = 8  # behind an own name, where one request claims several things


def is_name(text: str, most: int = CLAIM_BYTES_MAX) -> bool:
    """Whether it has 1 to `most` bytes of UTF-8, none of which is 0: such text travels."""
    try:
        return 0 < len(text.encode()) <= most and "\0" not in text
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can carry
        return False


def own_claim(session: str | None, otherwise: tuple[str, str]) -> str:
    """The name of a claim that was given none: the session's, so that each turn replaces what the
    former one claimed; without a session that of `otherwise`, a kind and its name. A name that is
    too long is digested.
    """
    kind, text = ("session", session) if session else otherwise
    if is_name(f"{kind}:{text}", CLAIM_BYTES_MAX - SUFFIX_BYTES_MAX):
        return f"{kind}:{text}"
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    return f"{kind}:sha256:{digest[:32]}"
