"""The published proto is enough: stock grpcio stubs store and read blocks, nothing of ours."""

import hashlib
import json
import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import xxhash
from conftest import Generated

CHUNK_BYTES = 1 << 20
CHECKSUM_CHUNK_BYTES = 16 << 10
TIMEOUT = 30.0
KEEP_ALIVE_SECONDS = 1.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    folder = os.environ.get("REPRISE_BIN")
    if not folder:
        pytest.fail("set REPRISE_BIN to the folder with `reprise-shard` (./dev test does)")
    command = [str(Path(folder) / "reprise-shard"), "--id", "shard-stock", "--dram", "160MiB",
               "--listen", "127.0.0.1:0", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as shard:
        try:
            assert shard.stdout is not None
            yield json.loads(shard.stdout.readline())["address"]
        finally:
            shard.terminate()
            assert shard.wait(TIMEOUT) == 0


class Attached:
    """One attachment, made with the stubs alone."""

    def __init__(self, generated: Generated, address: str) -> None:
        self.pb = generated.shard
        self.common = generated.common
        self.channel = grpc.insecure_channel(address)
        self.stub = generated.shard_grpc.ShardServiceStub(self.channel)
        hello = self.pb.AttachRequest(hello=self.pb.AttachRequest.Hello(client_name="stock"))
        self.closing = threading.Event()
        self.stream = self.stub.Attach(self._requests(hello))
        self.welcome = next(self.stream).welcome
        self.id = self.welcome.attachment_id

    def _requests(self, hello: Any) -> Iterator[Any]:
        yield hello
        while not self.closing.wait(KEEP_ALIVE_SECONDS):
            yield self.pb.AttachRequest(keep_alive=self.pb.AttachRequest.KeepAlive())

    def close(self) -> None:
        self.closing.set()
        self.stream.cancel()
        self.channel.close()

    def open(self, block_tokens: int, head_dim: int) -> Any:
        spec = self.common.CacheSpec(
            model="stock", attention=self.common.ATTENTION_KIND_GQA,
            dtype=self.common.DATA_TYPE_F16, layers=3, kv_heads=2, head_dim=head_dim,
            block_tokens=block_tokens, tensor_parallel_size=1, pipeline_parallel_size=1)
        request = self.pb.OpenSpecRequest(attachment_id=self.id, spec=spec)
        return self.stub.OpenSpec(request, timeout=TIMEOUT)


@pytest.fixture
def attached(generated: Generated, address: str) -> Iterator[Attached]:
    one = Attached(generated, address)
    yield one
    one.close()


def checksum(block: bytes, section_bytes: int) -> bytes:
    """The block checksum as kernels/checksum/checksum.h defines it."""

    def section(part: bytes) -> bytes:
        chunks = b"".join(
            xxhash.xxh3_128(part[at:at + CHECKSUM_CHUNK_BYTES]).digest()
            for at in range(0, len(part), CHECKSUM_CHUNK_BYTES))
        return xxhash.xxh3_128(chunks + struct.pack("<Q", len(part))).digest()

    sections = b"".join(section(block[at:at + section_bytes])
                        for at in range(0, len(block), section_bytes))
    return xxhash.xxh3_128(sections + struct.pack("<Q", len(block))).digest()


def keys_of(name: str, count: int) -> list[bytes]:
    return [hashlib.sha256(f"{name}/{i}".encode()).digest() for i in range(count)]


def content(key: bytes, size: int) -> bytes:
    return hashlib.shake_256(key).digest(size)


def store(attached: Attached, opened: Any, keys: list[bytes], blocks: list[bytes]) -> Any:
    pb = attached.pb
    reserved = attached.stub.Reserve(
        pb.ReserveRequest(attachment_id=attached.id, spec_handle=opened.spec_handle,
                          keys=b"".join(keys)), timeout=TIMEOUT)
    assert list(reserved.outcomes) == [pb.RESERVE_OUTCOME_GRANTED] * len(keys)

    def messages() -> Iterator[Any]:
        for index, block in enumerate(blocks):
            for at in range(0, len(block), CHUNK_BYTES):
                yield pb.WriteRequest(attachment_id=attached.id,
                                      reservation_id=reserved.reservation_id, block=index,
                                      offset_bytes=at, data=block[at:at + CHUNK_BYTES])

    written = attached.stub.Write(messages(), timeout=TIMEOUT)
    assert written.bytes_written == sum(map(len, blocks))
    sums = b"".join(checksum(block, opened.block_bytes // 3) for block in blocks)
    return attached.stub.Commit(
        pb.CommitRequest(attachment_id=attached.id, reservation_id=reserved.reservation_id,
                         checksums=sums), timeout=TIMEOUT)


@pytest.mark.parametrize(("block_tokens", "head_dim"), [(4, 8), (16, 128), (64, 1500)])
def test_blocks_are_stored_and_read_with_stock_stubs(
        attached: Attached, block_tokens: int, head_dim: int) -> None:
    pb = attached.pb
    opened = attached.open(block_tokens, head_dim)
    keys = keys_of(f"stock-{head_dim}", 5)
    blocks = [content(key, opened.block_bytes) for key in keys]
    assert store(attached, opened, keys, blocks).committed == 5

    acquired = attached.stub.Acquire(
        pb.AcquireRequest(attachment_id=attached.id, spec_handle=opened.spec_handle,
                          keys=b"".join(keys + keys_of("never stored", 2)), first_block=1),
        timeout=TIMEOUT)
    assert acquired.run_blocks == 5
    assert acquired.checksums == b"".join(
        checksum(block, opened.block_bytes // 3) for block in blocks[1:])

    read = {index: bytearray() for index in range(1, 5)}
    for message in attached.stub.Read(
            pb.ReadRequest(attachment_id=attached.id, lease_id=acquired.lease_id, first_block=1),
            timeout=TIMEOUT):
        assert message.offset_bytes == len(read[message.block])
        read[message.block] += message.data
    assert [bytes(read[index]) for index in range(1, 5)] == blocks[1:]
    released = attached.stub.Release(
        pb.ReleaseRequest(attachment_id=attached.id, lease_ids=[acquired.lease_id]),
        timeout=TIMEOUT)
    assert released.released == 1


def test_a_wrong_checksum_is_data_loss_with_a_reason(attached: Attached) -> None:
    opened = attached.open(4, 8)
    keys = keys_of("damaged", 1)
    block = content(keys[0], opened.block_bytes)
    damaged = bytes([block[0] ^ 1]) + block[1:]
    pb = attached.pb
    reserved = attached.stub.Reserve(
        pb.ReserveRequest(attachment_id=attached.id, spec_handle=opened.spec_handle,
                          keys=keys[0]), timeout=TIMEOUT)
    attached.stub.Write(iter([pb.WriteRequest(attachment_id=attached.id,
                                              reservation_id=reserved.reservation_id,
                                              data=damaged)]), timeout=TIMEOUT)
    with pytest.raises(grpc.RpcError) as refused:
        attached.stub.Commit(
            pb.CommitRequest(attachment_id=attached.id, reservation_id=reserved.reservation_id,
                             checksums=checksum(block, opened.block_bytes // 3)),
            timeout=TIMEOUT)
    assert refused.value.code() == grpc.StatusCode.DATA_LOSS
    details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
    assert b"google.rpc.ErrorInfo" in details and b"CHECKSUM_MISMATCH" in details


def test_refusals_name_the_field_the_value_and_the_cure(attached: Attached) -> None:
    opened = attached.open(4, 8)
    with pytest.raises(grpc.RpcError) as refused:
        attached.stub.Lookup(
            attached.pb.LookupRequest(attachment_id=attached.id, spec_handle=opened.spec_handle,
                                      keys=b"x" * 33), timeout=TIMEOUT)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    sentence = refused.value.details()
    assert "keys" in sentence and "33" in sentence and "32-byte" in sentence
