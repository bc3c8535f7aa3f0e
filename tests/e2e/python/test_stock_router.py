"""What any gRPC client gets from a server: the standard services, and a router's refusals."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from conftest import Generated
from demo.cluster import Cluster

TIMEOUT = 30.0
KEY_BYTES = 32
PROMPT_BLOCKS_MAX = 65_536
MESSAGE_BYTES_MAX = 8 << 20  # more than the largest message that a server takes
NAME_BYTES_MAX = 128
SERVICES = {"shard": b"reprise.v1.ShardService", "router": b"reprise.v1.RouterService"}


@pytest.fixture(scope="module", params=sorted(SERVICES))
def server(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[tuple[bytes, Any]]:
    """A server's service and a channel to it: each test runs against a shard and a router."""
    address = cluster.shards[0].address if request.param == "shard" else cluster.router
    with grpc.insecure_channel(address) as channel:
        yield SERVICES[request.param], channel


# Messages of the standard services are written by hand: they need no stubs of theirs.


def test_health_says_serving_for_the_server_and_for_the_service(
    server: tuple[bytes, grpc.Channel],
) -> None:
    service, channel = server
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    serving = b"\x08\x01"  # status = SERVING
    assert check(b"", timeout=TIMEOUT) == serving
    for name in (service, b"liveness"):  # the latter for the probes of deploy/kustomize
        assert check(b"\x0a" + bytes([len(name)]) + name, timeout=TIMEOUT) == serving
    with pytest.raises(grpc.RpcError) as unknown:
        check(b"\x0a\x04none", timeout=TIMEOUT)
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_service_and_hands_out_its_proto(
    server: tuple[bytes, grpc.Channel],
) -> None:
    service, channel = server
    info = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    list_services = b"\x3a\x00"
    of_symbol = b"\x22" + bytes([len(service)]) + service
    listed, file = list(info(iter([list_services, of_symbol]), timeout=TIMEOUT))
    for name in (service, b"grpc.health.v1.Health", b"grpc.channelz.v1.Channelz"):
        assert name in listed
    assert b"reprise/v1/" in file and b"Describe" in file


def test_channelz_shows_the_server_and_its_calls(server: tuple[bytes, grpc.Channel]) -> None:
    _, channel = server
    servers = channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")(b"", timeout=TIMEOUT)
    assert servers[:1] == b"\x0a", "no server in the answer"


def distinct_keys(count: int) -> bytes:
    return b"".join(i.to_bytes(KEY_BYTES, "little") for i in range(count))


FINGERPRINT = b"f" * KEY_BYTES
KEYS = distinct_keys(3)

# Name, verb, fields, status, and what the sentence has to name; a status of None is an answer.
BAD_INPUT: list[tuple[str, str, dict[str, Any], grpc.StatusCode | None, tuple[str, ...]]] = [
    ("locate-empty", "Locate", {}, grpc.StatusCode.INVALID_ARGUMENT, ("fingerprint",)),
    ("locate-short-fingerprint", "Locate", {"fingerprint": b"short", "keys": KEYS},
     grpc.StatusCode.INVALID_ARGUMENT, ("fingerprint", "5", "32")),
    ("locate-no-keys", "Locate", {"fingerprint": FINGERPRINT}, None, ()),
    ("locate-unknown-spec", "Locate", {"fingerprint": FINGERPRINT, "keys": KEYS}, None, ()),
    ("locate-misaligned", "Locate", {"fingerprint": FINGERPRINT, "keys": KEYS + b"x"},
     grpc.StatusCode.INVALID_ARGUMENT, ("keys", "97", "32")),
    ("locate-duplicate", "Locate", {"fingerprint": FINGERPRINT, "keys": KEYS + KEYS[:KEY_BYTES]},
     grpc.StatusCode.INVALID_ARGUMENT, ("keys",)),
    ("locate-too-many", "Locate",
     {"fingerprint": FINGERPRINT, "keys": distinct_keys(PROMPT_BLOCKS_MAX + 1)},
     grpc.StatusCode.INVALID_ARGUMENT, ("keys", str(PROMPT_BLOCKS_MAX))),
    ("locate-oversized", "Locate", {"fingerprint": FINGERPRINT, "keys": bytes(MESSAGE_BYTES_MAX)},
     grpc.StatusCode.RESOURCE_EXHAUSTED, ()),
    ("route-empty", "RouteSession", {}, None, ()),
    ("route-long-session", "RouteSession", {"session_id": "s" * (NAME_BYTES_MAX + 1)},
     grpc.StatusCode.INVALID_ARGUMENT, ("session_id", str(NAME_BYTES_MAX + 1))),
    ("route-short-fingerprint", "RouteSession", {"session_id": "s", "fingerprint": b"x"},
     grpc.StatusCode.INVALID_ARGUMENT, ("fingerprint",)),
    ("route-misaligned", "RouteSession", {"session_id": "s", "keys": b"x" * 33},
     grpc.StatusCode.INVALID_ARGUMENT, ("keys", "33")),
    ("route-keys-without-a-spec", "RouteSession", {"session_id": "s", "keys": KEYS}, None, ()),
]


@pytest.mark.parametrize(("verb", "fields", "code", "named"), [row[1:] for row in BAD_INPUT],
                         ids=[row[0] for row in BAD_INPUT])
def test_a_router_answers_bad_input_with_its_status_and_serves_on(
    cluster: Cluster, generated: Generated, verb: str, fields: dict[str, Any],
    code: grpc.StatusCode | None, named: tuple[str, ...],
) -> None:
    messages, stubs = generated.router, generated.router_grpc
    with grpc.insecure_channel(cluster.router) as channel:
        stub = stubs.RouterServiceStub(channel)
        call: Callable[..., Any] = getattr(stub, verb)
        request = getattr(messages, f"{verb}Request")(**fields)
        if code is None:
            answer = call(request, timeout=TIMEOUT)
            assert not answer.runs
        else:
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=TIMEOUT)
            assert refused.value.code() == code
            for word in named:
                assert word in refused.value.details()
            if named:
                details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
                assert b"google.rpc.ErrorInfo" in details
        described = stub.Describe(messages.RouterServiceDescribeRequest(), timeout=TIMEOUT)
        assert len(described.shards) == len(cluster.shards)


@pytest.mark.parametrize("verb", ["Locate", "RouteSession"])
def test_a_call_that_is_cancelled_is_over(
    cluster: Cluster, generated: Generated, verb: str
) -> None:
    messages, stubs = generated.router, generated.router_grpc
    with grpc.insecure_channel(cluster.router) as channel:
        stub = stubs.RouterServiceStub(channel)
        request = getattr(messages, f"{verb}Request")(fingerprint=FINGERPRINT, keys=KEYS)
        call = getattr(stub, verb).future(request)
        call.cancel()
        # The answer may have come first.
        assert call.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.OK)
        feed = stub.WatchTopology(messages.WatchTopologyRequest(), timeout=TIMEOUT)
        assert len(next(feed).shards) == len(cluster.shards)
        feed.cancel()
        assert stub.Describe(messages.RouterServiceDescribeRequest(), timeout=TIMEOUT).version
