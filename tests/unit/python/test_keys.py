"""Block keys and checksums agree with C++'s vectors and with a plain implementation."""

import hashlib
import struct
from typing import Any

import numpy as np
import pytest
import reprise
from reprise.keys import as_keys, as_tokens


def hex_keys(keys: np.ndarray) -> list[str]:
    return [bytes(key).hex() for key in keys]


def plain_keys(
    tokens: list[int],
    block_tokens: int,
    salt: bytes = b"",
    extra: bytes = b"",
    parent: bytes | None = None,
) -> list[str]:
    """The scheme reprise-sha256 from its description (client/cpp/prefix_hasher.h)."""
    keys = []
    for start in range(0, len(tokens) // block_tokens * block_tokens, block_tokens):
        own = salt if parent is None else b""
        encoding = b"reprise" + (b"r" if parent is None else b"c")
        encoding += struct.pack("<3I", block_tokens, len(extra), len(own))
        encoding += parent or bytes(32)
        encoding += (
            struct.pack(f"<{block_tokens}I", *tokens[start : start + block_tokens]) + extra + own
        )
        parent = hashlib.sha256(encoding).digest()
        keys.append(parent.hex())
    return keys


def test_keys_are_those_of_the_shared_vectors(key_vectors: dict[str, Any]) -> None:
    assert len(key_vectors["reprise"]) >= 5
    for row in key_vectors["reprise"]:
        parent = bytes.fromhex(row["parent"]) if row["parent"] else None
        salt, extra = bytes.fromhex(row["salt_hex"]), bytes.fromhex(row["extra_hex"])
        keys = reprise.block_keys(
            row["tokens"], row["block_tokens"], salt=salt, extra=extra, parent=parent
        )
        assert hex_keys(keys) == row["keys"], row["name"]
        assert plain_keys(row["tokens"], row["block_tokens"], salt, extra, parent) == row["keys"]


def test_vllm_keys_are_those_of_the_shared_vectors(key_vectors: dict[str, Any]) -> None:
    assert key_vectors["vllm"]
    for row in key_vectors["vllm"]:
        keys = reprise.vllm_block_keys(
            row["tokens"], row["block_tokens"], row["seed"], row.get("cache_salt")
        )
        assert hex_keys(keys) == row["keys"], row["name"]


def test_sglang_keys_are_those_of_the_shared_vectors(key_vectors: dict[str, Any]) -> None:
    assert key_vectors["sglang"]
    for row in key_vectors["sglang"]:
        keys = reprise.sglang_page_keys(
            row["tokens"],
            row["page_tokens"],
            extra_key=row["extra_key"],
            cache_salt=row["cache_salt"],
        )
        assert hex_keys(keys) == row["keys"], row["name"]


def test_a_text_that_would_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="extra_key .* NUL"):
        reprise.sglang_page_keys(list(range(16)), 16, extra_key="a\0b")
    for seed, salt in (("0\0", None), ("0", "a\0b")):
        with pytest.raises(ValueError, match="NUL"):
            reprise.vllm_block_keys(list(range(16)), 16, seed, salt)


def test_a_chain_continues_from_its_parent() -> None:
    tokens = np.arange(64)
    whole = reprise.block_keys(tokens)
    rest = reprise.block_keys(tokens[32:], parent=bytes(whole[1]))
    assert np.array_equal(whole[2:], rest)


def test_one_other_token_changes_its_block_and_all_after_it() -> None:
    tokens = np.arange(160)
    other = tokens.copy()
    other[37] += 1
    same = (reprise.block_keys(tokens) == reprise.block_keys(other)).all(axis=1)
    assert same.tolist() == [True, True] + [False] * 8


def test_salt_and_extra_of_the_same_bytes_are_different_keys() -> None:
    tokens = list(range(16))
    made = {
        bytes(reprise.block_keys(tokens, **options)[0])
        for options in (
            {},
            {"salt": b"a"},
            {"extra": b"a"},
            {"salt": b"aa"},
            {"salt": b"a", "extra": b"a"},
        )
    }
    assert len(made) == 5


def test_checksums_are_those_of_the_shared_vectors(checksum_vectors: dict[str, Any]) -> None:
    assert len(checksum_vectors["vectors"]) >= 5
    for row in checksum_vectors["vectors"]:
        i = np.arange(1, row["block_bytes"] + 1, dtype=np.uint64)
        block = ((i * np.uint64(2654435761) & np.uint64(0xFFFFFFFF)) >> np.uint64(16)).astype(
            np.uint8
        )
        assert reprise.checksum(block, row["section_bytes"]).hex() == row["checksum"], row["name"]


def test_a_checksum_takes_any_buffer() -> None:
    block = bytes(range(256)) * 16
    expected = reprise.checksum(block, 1024)
    assert reprise.checksum(bytearray(block), 1024) == expected
    assert reprise.checksum(memoryview(block), 1024) == expected
    assert reprise.checksum(np.frombuffer(block, np.uint16), 1024) == expected


@pytest.mark.parametrize("block, sections", [(b"", 16), (b"a", 0), (b"a", -1)])
def test_a_checksum_of_nothing_is_refused(block: bytes, sections: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        reprise.checksum(block, sections)


@pytest.mark.parametrize(
    "tokens, why",
    [
        ([-1], "-1"),
        ([2**32], str(2**32)),
        ([0.5], "integers"),
        ([[1, 2]], "shape"),
        (["a"], "integers"),
    ],
)
def test_what_is_no_token_is_refused(tokens: list[Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        as_tokens(tokens)


def test_every_integer_type_is_taken_for_tokens() -> None:
    expected = hex_keys(reprise.block_keys(list(range(16))))
    for kind in (np.int32, np.int64, np.uint32, np.uint64, np.int16):
        assert hex_keys(reprise.block_keys(np.arange(16, dtype=kind))) == expected
    assert hex_keys(reprise.block_keys(np.arange(32)[::2] // 2)) == expected


@pytest.mark.parametrize("block_tokens", [0, -16, 2**32])
def test_blocks_without_tokens_are_refused(block_tokens: int) -> None:
    with pytest.raises(ValueError, match="block_tokens"):
        reprise.block_keys([1, 2, 3], block_tokens)


def test_a_block_above_the_limit_is_refused_by_the_library() -> None:
    with pytest.raises(reprise.RepriseError) as caught:
        reprise.block_keys([1, 2, 3], 1 << 20)
    assert caught.value.code_name == "INVALID_ARGUMENT"


def test_keys_are_taken_in_three_forms() -> None:
    keys = reprise.block_keys(list(range(48)))
    rows = [bytes(key) for key in keys]
    assert np.array_equal(as_keys(rows), keys)
    assert np.array_equal(as_keys(b"".join(rows)), keys)
    assert as_keys([]).shape == (0, 32)


@pytest.mark.parametrize(
    "keys", [b"a" * 33, [b"a" * 31], np.zeros((2, 16), np.uint8), np.zeros(32, np.uint8)]
)
def test_what_is_no_key_is_refused(keys: Any) -> None:
    with pytest.raises(ValueError, match="32|key"):
        as_keys(keys)
    with pytest.raises(ValueError, match="parent has 31 bytes"):
        reprise.block_keys([1], 1, parent=b"p" * 31)
