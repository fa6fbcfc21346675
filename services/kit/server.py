"""A gRPC server as every service runs it: health, reflection, error mapping, TLS, a graceful end.

    serve(service, settings)       binds, warms up, is SERVING, and on SIGTERM drains; the main of every service
    Server(...)                    the same in parts, for tests and for hosting several services in one process

Health is NOT_SERVING until the service is warm and from the moment it drains, so that clients go elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.kit import handshakes, telemetry
from services.kit.errors import FailedPrecondition, P2MError
from services.kit.security import TokenInterceptor, server_credentials
from services.kit.settings import Settings, port_of
from services.kit.status import ErrorInterceptor
from services.kit.tokens import Tokens

log = logging.getLogger(__name__)

# A prompt has at most a megabyte; everything larger travels as an artifact.
MAX_MESSAGE_BYTES = 16 << 20

# How soon a peer is noticed that answers no more though its connection stands: after 10 s of silence it is asked, and
# has 10 s to answer. (Without ping_timeout gRPC gives it a minute, whatever keepalive_timeout says.)
KEEPALIVE: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


class Service(Protocol):
    """What `Server` hosts."""

    name: str
    """"parser", "trainer", ... or "run"."""
    full_name: str
    """The proto's name, "p2m.parser.v1.ParserService"."""

    def register(self, server: grpc.aio.Server) -> None:
        """Adds its handlers to the server."""

    async def warm(self) -> None:
        """Loads what the first call needs; the service is SERVING after it."""

    async def close(self) -> None:
        """Ends what `warm` or calls started."""


class Server:
    """One service on one port. `port` is the bound one after `start`."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.port = 0
        self._settings = settings
        self._observed = False
        age_ms = int(settings.connection_age_s * 1000)
        interceptors: list[grpc.aio.ServerInterceptor] = [ErrorInterceptor()]
        if service.name == "run" and (tokens := Tokens(settings)):
            interceptors.append(TokenInterceptor(tokens, service.full_name))
        self._server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_connection_age_ms", age_ms),
                # A long stream outlives its connection's age: the connection closes when the stream has ended.
                ("grpc.max_connection_age_grace_ms", 24 * 3600 * 1000),
                *KEEPALIVE,
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._health = health.aio.HealthServicer()

    async def start(self, port: int | None = None) -> None:
        """Binds (port 0: any free one), warms up, then is SERVING. FailedPrecondition when the port is taken."""
        self._observed = telemetry.start(self._settings, telemetry.known_as(self.service.name))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (self.service.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self.service.register(self._server)
        for name in ("", self.service.full_name):
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        self.port = self._bind(self._settings.port or port_of(self.service.name) if port is None else port)
        await self._server.start()
        await self.service.warm()
        for name in ("", self.service.full_name, f"version/{own_version()}"):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """NOT_SERVING at once; calls in flight may finish within the grace, then are cancelled."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(self._settings.grace_s)
        await self.service.close()
        if self._observed:
            self._observed = False
            await asyncio.to_thread(telemetry.stop)

    def _bind(self, port: int) -> int:
        address = f"{self._settings.host}:{port}"
        credentials = server_credentials(self._settings)
        try:
            if credentials:
                return self._server.add_secure_port(address, credentials)
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise FailedPrecondition(
                "PORT_TAKEN",
                f"The {self.service.name} service cannot bind {address}: is another one running? Set P2M_PORT.",
            ) from error


def own_version() -> str:
    """The version of what is installed here; a server's health knows it as a name, "version/0.1.0"."""
    try:
        return version("p2m")
    except PackageNotFoundError:
        return "unknown"


async def serve(service: Service, settings: Settings) -> int:
    """Runs a service until SIGTERM or SIGINT, while it warms up too; the process's exit status."""
    with handshakes.watched(service.name) if settings.tls_ca else contextlib.nullcontext():
        return await _serve(service, settings)


async def _serve(service: Service, settings: Settings) -> int:
    server = Server(service, settings)
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    starting = asyncio.ensure_future(server.start())
    ending = asyncio.ensure_future(ended.wait())
    await asyncio.wait([starting, ending], return_when=asyncio.FIRST_COMPLETED)
    try:
        if starting.done():
            starting.result()
            log.info("%s is SERVING on %s:%d", service.name, settings.host, server.port)
            await ending
        log.info("%s drains", service.name)
        return 0
    except P2MError as error:
        log.error("%s", error.message)
        return 2
    finally:
        starting.cancel()
        await asyncio.wait([starting])
        await server.stop()
