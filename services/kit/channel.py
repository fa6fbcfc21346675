"""A channel as every caller dials it: round robin over all replicas, health checks, keepalive, retries, deadlines.

    dial("trainer:50055", settings)            a grpc.aio channel; with TLS, of the certificate as it is at each call
    unary(stub.Parse, request, timeout_s)      one call; errors are those of `errors`
    stream(stub.Train, request, ..., report)   a long call: reports progress, returns the result

A call that a connection broke before its first message is made again by gRPC, and one that met NO_FREE_SLOT or a server
that was just closing here: at a sibling, then after the asked delay. What the service itself calls Unavailable it has
tried already, and is not retried. After the first message a broken stream raises Unavailable: the caller may ask again
with the same request_id.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.kit import telemetry
from services.kit.certificates import Certificates, RotatingChannel, channel_credentials
from services.kit.errors import Cancelled, Internal, NoFreeSlot, P2MError, Unavailable
from services.kit.security import uses_tls
from services.kit.server import KEEPALIVE, MAX_MESSAGE_BYTES
from services.kit.settings import Settings
from services.kit.status import from_rpc_error
from services.kit.values import Progress
from services.kit.wire import from_message

# Longer than any stage should take, so that a hung one ends some day.
STREAM_TIMEOUT_S = 24 * 3600.0
UNARY_TIMEOUT_S = 900.0
# A call that is refused so soon came as its server closed; it is made again so often.
_CLOSING_S, _CLOSING_TRIES = 1.0, 3

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "3s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def dial(target: str, settings: Settings) -> grpc.aio.Channel:
    """A channel to all replicas behind `target`, mutual TLS where the settings have it.

    `target` is "host:port", whose name may stand for many addresses, or a target of gRPC's own:
    "ipv4:10.0.0.1:50055,10.0.0.2:50055", "unix:/path", "dns://server/host:port".
    """
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        *KEEPALIVE,
        # New replicas are found when a connection ages out: resolve then at once, not after gRPC's 30 s.
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 3_000),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    address = target if "://" in target or target.startswith(("unix:", "ipv4:", "ipv6:")) else f"dns:///{target}"
    if not uses_tls(settings):
        return grpc.aio.insecure_channel(address, options)
    return RotatingChannel(
        Certificates(settings), lambda files: grpc.aio.secure_channel(address, channel_credentials(files), options)
    )


def token_metadata(settings: Settings) -> tuple[tuple[str, str], ...]:
    """The metadata that bears the token of RunService; empty where none is set."""
    token = settings.token.get_secret_value()
    return (("authorization", f"Bearer {token}"),) if token else ()


async def unary(
    method: Any, request: Any, timeout_s: float = UNARY_TIMEOUT_S, metadata: tuple[tuple[str, str], ...] = ()
) -> Any:
    """One call, waiting for a replica and a free slot within the deadline. Raises P2MError."""

    async def call(remaining_s: float) -> Any:
        carried = (*metadata, *telemetry.carried())
        return await method(request, timeout=remaining_s, wait_for_ready=True, metadata=carried)

    with telemetry.calling(method) as called:
        return await _with_free_slot(call, timeout_s, called)


async def stream(
    method: Any, request: Any, report: Callable[[Progress], None] = lambda _: None, timeout_s: float = STREAM_TIMEOUT_S
) -> Any:
    """A long call (`oneof event {progress, result}`): reports progress and returns the result message. Raises P2MError.

    Cancelling it cancels the call, and with it the work.
    """

    async def call(remaining_s: float) -> Any:
        stream_call = method(request, timeout=remaining_s, wait_for_ready=True, metadata=telemetry.carried())
        try:
            async for response in stream_call:
                if response.WhichOneof("event") == "result":
                    return response.result
                report(from_message(response.progress, Progress))
        finally:
            stream_call.cancel()  # leaving the loop alone does not
        raise Internal(
            "NO_RESULT", "The stream ended without a result: this implementation breaks the proto's contract."
        )

    with telemetry.calling(method) as called:
        return await _with_free_slot(call, timeout_s, called)


async def _with_free_slot(call: Callable[[float], Any], timeout_s: float, called: telemetry.Observed) -> Any:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    attempt = 0
    while True:
        began = loop.time()
        try:
            return await call(max(0.001, deadline - began))
        except grpc.RpcError as rpc_error:
            error: P2MError = from_rpc_error(rpc_error)
        refused = _is_closing(error) and loop.time() - began < _CLOSING_S and attempt < _CLOSING_TRIES
        if not isinstance(error, NoFreeSlot) and not refused:
            raise error
        called.waits()
        # The first few tries go to siblings at once (round robin); then all are busy and waiting is right.
        attempt += 1
        delay = 0.02 if attempt < 4 else (error.retry_after or 1.0) * random.uniform(0.5, 1.5)
        if loop.time() + delay > deadline:
            raise error
        await asyncio.sleep(delay)


def _is_closing(error: P2MError) -> bool:
    """Whether gRPC itself refused the call, with no word of ours: one that comes as the server closes is CANCELLED."""
    return isinstance(error, Cancelled) and error.message == error.reason


async def wait_until_serving(channel: grpc.aio.Channel, timeout_s: float) -> None:
    """Returns when the server behind `channel` is SERVING; raises P2MError when it is not within the time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    stub: Any = health_pb2_grpc.HealthStub(channel)
    while True:
        try:
            within_s = min(2.0, max(0.01, deadline - loop.time()))
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=within_s, wait_for_ready=True)
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
        except grpc.RpcError as error:
            if loop.time() > deadline:
                raise from_rpc_error(error) from error
        if loop.time() > deadline:
            raise Unavailable("NOT_SERVING", f"The service was not ready within {timeout_s:.0f} s.")
        await asyncio.sleep(0.05)
