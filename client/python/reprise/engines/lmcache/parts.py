"""How a chunk becomes blocks: a header and the chunk's bytes behind it, cut into parts of one size.

All parts but the first, which the header shares, are the memory object's own bytes; the first and
a short chunk's last one, which is not full, go through a buffer beside. The parts are one chain,
so that what a shard drops of a chunk is its end, and the header says how many there must be.
"""

# LMCache is there when this is imported, not when types are checked.
# mypy: disable-error-code="import-not-found,misc,unused-ignore"

from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
import numpy.typing as npt

from .chunk_form import ChunkForm

# Beside the copy of one part in each chunk, what a part costs is its share of an index and a lease,
# and what a short chunk's last one wastes.
PART_BYTES = 4 << 20
ROW_ALIGN_BYTES = 16
ROW_BYTES_MAX = 65_536  # of the cache spec
BLOCK_TOKENS_MAX = 4_096

MAGIC = b"REPR-LMC"
VERSION = 1
_HEADER = struct.Struct("<8sIIQ32s8x")  # magic, version, tokens, bytes, digest of the form
HEADER_BYTES = _HEADER.size

Bytes = npt.NDArray[np.uint8]


class BadHeader(ValueError):
    """A block that is the first of no chunk of this form."""


@dataclasses.dataclass(frozen=True)
class Cut:
    """The blocks of one form's chunks: `count` of a full one, each [layer][token][row]. The bytes
    begin after `lead`, so that those of a full one end where its last block does.
    """

    count: int
    layers: int
    block_tokens: int
    row_bytes: int
    lead: int  # bytes of the first block before the chunk's own: the header, and zeros

    @property
    def block_bytes(self) -> int:
        return self.layers * self.block_tokens * self.row_bytes

    def needed(self, nbytes: int) -> int:
        """Blocks of a chunk of so many bytes."""
        return -(-(self.lead + nbytes) // self.block_bytes)


def cut(form: ChunkForm) -> Cut:
    """The cut of a form: blocks about as large as `PART_BYTES`, the same wherever it is made."""
    count = max(-(-form.nbytes // PART_BYTES), -(-form.tokens // BLOCK_TOKENS_MAX))
    block_tokens = -(-form.tokens // count)
    rows = count * block_tokens * form.layers
    row_bytes = _aligned(-(-(form.nbytes + HEADER_BYTES) // rows))
    split = -(-row_bytes // ROW_BYTES_MAX)
    layers, row_bytes = form.layers * split, _aligned(-(-row_bytes // split))
    block_bytes = layers * block_tokens * row_bytes
    count = -(-(HEADER_BYTES + form.nbytes) // block_bytes)
    lead = min(count * block_bytes - form.nbytes, block_bytes)
    return Cut(count, layers, block_tokens, row_bytes, lead)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ROW_ALIGN_BYTES) * ROW_ALIGN_BYTES


def write_header(into: Bytes, form: ChunkForm, tokens: int) -> None:
    """Fills `into`, all that is before a chunk's bytes."""
    packed = _HEADER.pack(MAGIC, VERSION, tokens, tokens * form.token_bytes, _digest(form, tokens))
    into[:HEADER_BYTES] = np.frombuffer(packed, np.uint8)
    into[HEADER_BYTES:] = 0


def read_header(block: Bytes, form: ChunkForm) -> int:
    """The tokens of the chunk that `block` begins. Raises BadHeader."""
    magic, version, tokens, nbytes, digest = _HEADER.unpack(block[:HEADER_BYTES].tobytes())
    if magic != MAGIC or version != VERSION:
        raise BadHeader(f"a block begins with {magic!r} and version {version}")
    if not 1 <= tokens <= form.tokens or nbytes != tokens * form.token_bytes:
        raise BadHeader(f"a chunk of {tokens} tokens in {nbytes} bytes")
    if digest != _digest(form, tokens):
        raise BadHeader(f"a chunk of {tokens} tokens is no {form.describe(tokens)}")
    return int(tokens)


def _digest(form: ChunkForm, tokens: int) -> bytes:
    return hashlib.sha256(form.describe(tokens).encode()).digest()


def middle(data: Bytes, cut: Cut) -> list[Bytes]:
    """The parts that are whole inside a chunk's bytes: all but the first and a last short one."""
    size = cut.block_bytes
    begin = size - cut.lead
    return [data[end - size : end] for end in range(begin + size, data.size + 1, size)]


def ends(data: Bytes, cut: Cut) -> tuple[Bytes, Bytes]:
    """What of a chunk's bytes is in its first part, behind the header, and what in a last one that
    is not full (empty: there is none).
    """
    begin = cut.block_bytes - cut.lead
    rest = max(0, data.size - begin) % cut.block_bytes
    return data[:begin], data[data.size - rest :]
