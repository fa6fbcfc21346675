"""Who may talk to whom: mutual TLS between services, bearer tokens on RunService.

Plaintext binds only to loopback. With the three TLS settings every connection is mutual TLS: each side shows a
certificate that the other's authority signed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from services.kit import certificates
from services.kit.certificates import Certificates
from services.kit.errors import FailedPrecondition, Unauthenticated
from services.kit.refused import refused
from services.kit.settings import Settings
from services.kit.tokens import CALLER, Tokens


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
    """Credentials that ask the client for its certificate; None for plaintext, which only loopback may use.

    The files are looked at again at every handshake (see `certificates`).
    """
    if uses_tls(settings):
        return certificates.server_credentials(Certificates(settings))
    if not _is_loopback(settings.host):
        raise FailedPrecondition(
            "PLAINTEXT", f"Without TLS a service binds to loopback only, not to {settings.host}. Set P2M_TLS_CA, "
            "P2M_TLS_CERTIFICATE and P2M_TLS_KEY, or P2M_HOST=127.0.0.1."
        )  # fmt: skip
    return None


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls to one service (and lets health checks through) that do not bear a known token.

    Who the caller is stands in `tokens.CALLER` while its call is served.
    """

    def __init__(self, tokens: Tokens, service: str) -> None:
        self._tokens = tokens
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(self._prefix):
            return handler
        given = str(dict(details.invocation_metadata or ()).get("authorization", ""))
        kind, _, token = given.partition(" ")
        caller = self._tokens.caller(token) if kind == "Bearer" else None
        if caller is None:
            return _refuse(handler, details.method)
        CALLER.set(caller)  # a call is served by a task of its own
        return handler


def _refuse(handler: Any, method: str) -> grpc.RpcMethodHandler[Any, Any]:
    error = Unauthenticated("BAD_TOKEN", "The bearer token is missing or wrong. Set P2M_TOKEN to the server's token.")

    async def unary(request: Any, context: Any) -> Any:
        refused("BAD_TOKEN", method, context.peer())
        raise error

    async def stream(request: Any, context: Any) -> Any:
        refused("BAD_TOKEN", method, context.peer())
        raise error
        yield

    # Messages are read and written by ErrorInterceptor, which stands before this one. Of a stranger none is read.
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(stream, _unread, handler.response_serializer)
    return grpc.unary_unary_rpc_method_handler(unary, _unread, handler.response_serializer)


def _unread(data: bytes) -> bytes:
    return data


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
