"""A server as every service runs it: its health, its end, its errors at the start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit.authority import Authority
from services.kit.channel import dial, stream, wait_until_serving
from services.kit.errors import FailedPrecondition, Unavailable
from services.kit.probe import probe
from services.kit.server import Server
from services.kit.settings import Settings
from tests.support.processes import until
from tests.support.seaweed import free_ports
from tests.support.toy import FULL_NAME, Toy, ask, hosted

ROOT = Path(__file__).resolve().parent.parent.parent
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def plain_channel(port: int) -> AsyncIterator[grpc.aio.Channel]:
    """A channel without our options, as a stranger's."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel


async def health(channel: grpc.aio.Channel, service: str = "") -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5, wait_for_ready=True)).status


async def test_it_serves_when_it_is_warm(settings: Settings) -> None:
    """Health is NOT_SERVING while the service warms up, then SERVING: the server's and that of the service's name."""
    toy = Toy(settings)
    toy.warmed.clear()
    server = Server(toy, settings)
    starting = asyncio.ensure_future(server.start(0))
    await until(lambda: server.port)
    async with plain_channel(server.port) as channel:
        assert [await health(channel), await health(channel, FULL_NAME)] == [NOT_SERVING, NOT_SERVING]
        with pytest.raises(Unavailable, match="not ready"):
            await wait_until_serving(channel, 0.3)
        toy.warmed.set()
        await starting
        assert [await health(channel), await health(channel, FULL_NAME)] == [SERVING, SERVING]
        await wait_until_serving(channel, 1)
    await server.stop()
    assert toy.closed


async def test_the_probe_asks_as_a_caller_does(settings: Settings, tmp_path: Path) -> None:
    """A container's health check succeeds where the service is SERVING, with mutual TLS too, and else fails."""
    folder = Authority(tmp_path / "ca").issue("generator")
    tls = {"tls_ca": folder / "ca.pem", "tls_certificate": folder / "certificate.pem", "tls_key": folder / "key.pem"}
    for changes in ({}, tls | {"host": "0.0.0.0"}):
        own = settings.model_copy(update=changes)
        async with hosted(Toy(own)) as server:
            assert await probe("generator", own.model_copy(update={"port": server.port})) == 0
    assert await probe("generator", settings.model_copy(update={"port": free_ports(1)[0]}), within_s=0.3) == 1


async def test_it_drains(settings: Settings) -> None:
    """On `stop` health is NOT_SERVING at once, a call in flight finishes, and then the server is gone at once."""
    toy = Toy(settings.model_copy(update={"grace_s": 20.0}))
    server = Server(toy, toy.settings)
    await server.start(0)
    async with plain_channel(server.port) as watching, dial(f"127.0.0.1:{server.port}", settings) as channel:
        stub: Any = health_pb2_grpc.HealthStub(watching)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        call = asyncio.ensure_future(stream(GeneratorServiceStub(channel).Generate, ask("wait")))
        await until(lambda: toy.worked == 1)
        stopping = asyncio.ensure_future(server.stop())
        assert (await watch.read()).status == NOT_SERVING
        assert not toy.closed
        toy.release.set()
        assert (await call).llm == "toy"
        watch.cancel()
        began = time.monotonic()
        await asyncio.wait_for(stopping, 10)
        assert time.monotonic() - began < 3, "a caller's own health watch must not hold the server"
    assert toy.closed


async def test_what_outlives_the_grace_is_cancelled(settings: Settings) -> None:
    """A call that does not end within the grace is cancelled, its work with it, and the server is gone."""
    toy = Toy(settings.model_copy(update={"grace_s": 0.3}))
    server = Server(toy, toy.settings)
    await server.start(0)
    async with dial(f"127.0.0.1:{server.port}", settings) as channel:
        call = asyncio.ensure_future(stream(GeneratorServiceStub(channel).Generate, ask("wait"), timeout_s=2))
        await until(lambda: toy.worked == 1)
        await asyncio.wait_for(server.stop(), 5)
        assert toy.ended == 1
        with pytest.raises(Exception) as raised:
            await call
        assert getattr(raised.value, "code", "") in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED")


async def test_reflection_lists_the_service(settings: Settings) -> None:
    """Server reflection names the service, so that grpcurl can talk to it."""
    async with hosted(Toy(settings)) as server, plain_channel(server.port) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await call.read()
        names = {service.name for service in answer.list_services_response.service}
    assert {FULL_NAME, "grpc.health.v1.Health"} <= names


async def test_a_taken_port_is_said(settings: Settings) -> None:
    """A port that another server has is FailedPrecondition and names the port and the setting."""
    async with hosted(Toy(settings)) as server:
        other = Server(Toy(settings), settings)
        with pytest.raises(FailedPrecondition, match=rf"127.0.0.1:{server.port}.*P2M_PORT") as raised:
            await other.start(server.port)
        assert raised.value.reason == "PORT_TAKEN"
        await other.stop()


async def test_two_services_live_in_one_process(settings: Settings) -> None:
    """Several services on ports of their own share a process."""
    async with hosted(Toy(settings, "a")) as a, hosted(Toy(settings, "b")) as b:
        for server, label in ((a, "a"), (b, "b")):
            async with dial(f"127.0.0.1:{server.port}", settings) as channel:
                assert (await stream(GeneratorServiceStub(channel).Generate, ask("answer", label))).llm == label


async def test_a_message_of_eight_megabytes_passes_and_one_too_large_is_refused(settings: Settings) -> None:
    """A request may be larger than gRPC's 4 MB; one beyond our limit is RESOURCE_EXHAUSTED, no broken connection."""
    async with hosted(Toy(settings)) as server, dial(f"127.0.0.1:{server.port}", settings) as channel:
        stub = GeneratorServiceStub(channel)
        request = ask("answer")
        for _ in range(42):
            request.spec.demonstrations.add(input="x" * 200_000)
        await stream(stub.Generate, request)
        request.spec.language = "x" * (20 << 20)
        with pytest.raises(grpc.RpcError) as raised:
            async for _ in stub.Generate(request, timeout=20):
                pass
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


SERVE = """
import asyncio, sys
from services.kit import logs
from services.kit.server import serve
from services.kit.settings import Settings
from tests.support.toy import Toy
async def main():
    settings = Settings()
    logs.configure(settings.log_level)
    toy = Toy(settings)
    if "--cold" in sys.argv:
        toy.warmed.clear()
    return await serve(toy, settings)
sys.exit(asyncio.run(main()))
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("cold", [False, True])
async def test_a_service_ends_on_a_signal(tmp_path: Path, sent: signal.Signals, cold: bool) -> None:
    """SIGTERM and Ctrl-C end a service with status 0, while it warms up too."""
    [port] = free_ports(1)
    process = _start(tmp_path, port, *(["--cold"] if cold else []))
    try:
        async with plain_channel(port) as channel:
            await until_health(channel, NOT_SERVING if cold else SERVING)
        process.send_signal(sent)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


async def test_a_service_that_cannot_start_says_why(tmp_path: Path, settings: Settings) -> None:
    """With its port taken a service ends with status 2 and one line that says so: no traceback."""
    async with hosted(Toy(settings)) as server:
        process = _start(tmp_path, server.port)
        _, said = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 2
    assert b"cannot bind" in said and b"Traceback" not in said


async def until_health(channel: grpc.aio.Channel, wanted: Any) -> None:
    async with asyncio.timeout(20):
        while await health(channel) != wanted:
            await asyncio.sleep(0.05)


def _start(home: Path, port: int, *arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"P2M_HOME": str(home), "P2M_PORT": str(port), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
