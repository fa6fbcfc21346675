"""Who may talk to whom: mutual TLS between services, a bearer token on RunService.

Plaintext binds only to loopback. With the three TLS settings every connection is mutual TLS: each side shows a
certificate that the other's authority signed.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from services.kit.errors import FailedPrecondition, Unauthenticated
from services.kit.settings import Settings


def uses_tls(settings: Settings) -> bool:
    """Whether TLS is on. FailedPrecondition when only a part of it is set or a file is missing."""
    given = {
        "P2M_TLS_CA": settings.tls_ca,
        "P2M_TLS_CERTIFICATE": settings.tls_certificate,
        "P2M_TLS_KEY": settings.tls_key,
    }
    missing = [name for name, path in given.items() if path is None]
    if len(missing) == 3:
        return False
    if missing:
        raise FailedPrecondition(
            "TLS_INCOMPLETE", f"TLS needs all of {', '.join(given)}; missing: {', '.join(missing)}."
        )
    return True


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Credentials that ask the client for its certificate; None for plaintext, which only loopback may use."""
    if uses_tls(settings):
        ca, certificate, key = _files(settings)
        return grpc.ssl_server_credentials([(key, certificate)], root_certificates=ca, require_client_auth=True)
    if not _is_loopback(settings.host):
        raise FailedPrecondition(
            "PLAINTEXT", f"Without TLS a service binds to loopback only, not to {settings.host}. Set P2M_TLS_CA, "
            "P2M_TLS_CERTIFICATE and P2M_TLS_KEY, or P2M_HOST=127.0.0.1."
        )  # fmt: skip
    return None


def channel_credentials(settings: Settings) -> grpc.ChannelCredentials | None:
    """Credentials that show this process's certificate; None for plaintext."""
    if not uses_tls(settings):
        return None
    ca, certificate, key = _files(settings)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=certificate)


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls to one service (and lets health checks through) that do not bear the token."""

    def __init__(self, token: str, service: str) -> None:
        self._expected = f"Bearer {token}"
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        given = dict(details.invocation_metadata or ()).get("authorization", "")
        known = hmac.compare_digest(str(given).encode(), self._expected.encode())
        if handler is None or known or not details.method.startswith(self._prefix):
            return handler
        return _refuse(handler)


def _refuse(handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
    error = Unauthenticated("BAD_TOKEN", "The bearer token is missing or wrong. Set P2M_TOKEN to the server's token.")

    async def unary(request: Any, context: Any) -> Any:
        raise error

    async def stream(request: Any, context: Any) -> Any:
        raise error
        yield

    # Messages are read and written by ErrorInterceptor, which stands before this one.
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)
    return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)


def _files(settings: Settings) -> tuple[bytes, bytes, bytes]:
    def read(path: Path | None) -> bytes:
        assert path is not None
        try:
            return path.read_bytes()
        except OSError as error:
            raise FailedPrecondition("TLS_FILE", f"The TLS file {path} cannot be read: {error.strerror}.") from error

    return read(settings.tls_ca), read(settings.tls_certificate), read(settings.tls_key)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
