"""Makes checksum_vectors.json, the published test vectors of the block checksum.

An independent implementation of the definition in kernels/checksum/checksum.h, over the PyPI
package `xxhash` instead of xxhash.h:

    python3 tests/unit/kernels/checksum_vectors.py > tests/unit/kernels/checksum_vectors.json

The bytes of every vector: byte i is the low byte of ((i + 1) * 2654435761 mod 2^32) >> 16.
"""

import json
import struct
import sys

import xxhash

CHUNK = 16 << 10

# (name, block_bytes, section_bytes)
CASES = [
    ("one byte", 1, 4096),
    ("sixteen bytes", 16, 4096),
    ("seventeen bytes", 17, 4096),
    ("ragged 240-byte section tails", 1000, 240),
    ("one chunk less a byte", CHUNK - 1, CHUNK * 4),
    ("one chunk", CHUNK, CHUNK),
    ("one chunk and a byte", CHUNK + 1, CHUNK * 4),
    ("section is one chunk and a byte", 3 * (CHUNK + 1), CHUNK + 1),
    ("four layers", 4 * 65536, 65536),
    ("32 layers of Llama-3-8B", 32 * 65536, 65536),
    ("27 small layers", 27 * 9216, 9216),
    ("ragged last section", 3 * 40000 + 123, 40000),
    ("section longer than the block", 50000, 1 << 30),
    ("one section of 100 chunks", 100 * CHUNK, 100 * CHUNK),
]


def pattern(count: int) -> bytes:
    return bytes((((i + 1) * 2654435761) & 0xFFFFFFFF) >> 16 & 0xFF for i in range(count))


def section_digest(section: bytes) -> bytes:
    chunks = b"".join(
        xxhash.xxh3_128(section[at : at + CHUNK]).digest() for at in range(0, len(section), CHUNK)
    )
    return xxhash.xxh3_128(chunks + struct.pack("<Q", len(section))).digest()


def block_checksum(block: bytes, section_bytes: int) -> tuple[bytes, list[bytes]]:
    sections = [
        section_digest(block[at : at + section_bytes]) for at in range(0, len(block), section_bytes)
    ]
    digest = xxhash.xxh3_128(b"".join(sections) + struct.pack("<Q", len(block))).digest()
    return digest, sections


def main() -> None:
    vectors = []
    for name, block_bytes, section_bytes in CASES:
        digest, sections = block_checksum(pattern(block_bytes), section_bytes)
        vectors.append(
            {
                "name": name,
                "block_bytes": block_bytes,
                "section_bytes": section_bytes,
                "first_section": sections[0].hex(),
                "last_section": sections[-1].hex(),
                "checksum": digest.hex(),
            }
        )
    document = {
        "pattern": "byte i is ((i + 1) * 2654435761 mod 2^32) >> 16, low byte",
        "chunk_bytes": CHUNK,
        "vectors": vectors,
    }
    json.dump(document, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
