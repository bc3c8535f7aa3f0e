"""Asks shards and the router over gRPC with the published protos, as any client in any language
could.
"""

from __future__ import annotations

import functools
import pathlib
import subprocess
import tempfile
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTO = pathlib.Path(__file__).parents[3] / "proto"


@functools.cache
def messages() -> Any:
    """All messages of the shard and router services by name."""
    with tempfile.NamedTemporaryFile(suffix=".pb") as out:
        subprocess.run(
            [
                "protoc",
                f"-I{PROTO}",
                f"--descriptor_set_out={out.name}",
                "--include_imports",
                "reprise/v1/shard.proto",
                "reprise/v1/router.proto",
            ],
            check=True,
            cwd=PROTO,
        )
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClassesForFiles([file.name for file in files.file], pool)


def call(
    address: str, service: str, method: str, request: str, response: str, **fields: Any
) -> Any:
    """One unary call."""
    known = messages()
    with grpc.insecure_channel(address) as channel:
        stub = channel.unary_unary(
            f"/reprise.v1.{service}/{method}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=known[f"reprise.v1.{response}"].FromString,
        )
        return stub(known[f"reprise.v1.{request}"](**fields), timeout=10)


def describe(address: str) -> Any:
    """What a shard says of itself: blocks, leases, reservations, counters."""
    return call(
        address,
        "ShardService",
        "Describe",
        "ShardServiceDescribeRequest",
        "ShardServiceDescribeResponse",
    )


def home(router: str, session: str) -> str:
    """Id of the shard that is home to a session."""
    answer = call(
        router,
        "RouterService",
        "RouteSession",
        "RouteSessionRequest",
        "RouteSessionResponse",
        session_id=session,
    )
    return str(answer.home.shard_id)
