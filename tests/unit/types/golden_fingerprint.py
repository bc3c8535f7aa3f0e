"""Makes the golden fingerprints of cache_spec_test.cc from the documented encoding.

The encoding: a length-prefixed domain tag, then per field in field order its number (one byte),
its length (u32 little-endian) and its value as text.
"""
import hashlib
import struct

TEXTS_BEFORE = ["model", "revision", "scope", "attention", "dtype"]
NUMBERS = ["layers", "kv_heads", "head_dim", "block_tokens", "window_tokens",
           "tensor_parallel_size", "tensor_parallel_rank",
           "pipeline_parallel_size", "pipeline_parallel_rank"]
TEXTS_AFTER = ["rope_digest", "lora_digest", "codec", "engine_layout", "key_scheme"]


def fingerprint(**spec):
    def prefixed(text):
        data = text.encode()
        return struct.pack("<I", len(data)) + data

    encoding = prefixed("reprise cache spec v1")
    for number, field in enumerate(TEXTS_BEFORE + NUMBERS + TEXTS_AFTER, 1):
        default = 1 if field.endswith("parallel_size") else 0 if field in NUMBERS else ""
        encoding += bytes([number]) + prefixed(str(spec.pop(field, default)))
    assert not spec, spec
    return hashlib.sha256(encoding).hexdigest()


LLAMA = dict(model="llama", attention="gqa", dtype="bf16",
             layers=32, kv_heads=8, head_dim=128, block_tokens=16)
FULL = dict(model="deepseek", revision="abc", scope="prod", attention="mla", dtype="bf16",
            layers=61, head_dim=576, block_tokens=16, window_tokens=4096,
            tensor_parallel_size=8, tensor_parallel_rank=3,
            pipeline_parallel_size=2, pipeline_parallel_rank=1,
            rope_digest="rope", lora_digest="lora", codec="none",
            engine_layout="vllm:1:0", key_scheme="sha256_cbor:seed")

if __name__ == "__main__":
    print("Llama", fingerprint(**LLAMA))
    print("full ", fingerprint(**FULL))
