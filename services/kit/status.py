"""Errors <-> google.rpc.Status: one interceptor on the server, one function on the client.

Every error carries ErrorInfo{reason, domain "p2m"}; BadRequest names a wrong field; RetryInfo says when to come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.kit.errors import Internal, P2MError, Unavailable, from_os_error, rebuild

log = logging.getLogger(__name__)
DOMAIN = "p2m"


def to_status(error: P2MError) -> status_pb2.Status:
    """The google.rpc.Status of an error of the tree."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_rpc_error(error: grpc.RpcError) -> P2MError:
    """The error of the tree that a call failed with. A status without details keeps its code."""
    code = error.code().name if hasattr(error, "code") else "UNKNOWN"
    message = (error.details() if hasattr(error, "details") else None) or str(error)
    reason, field, retry_after = code, "", None
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status else ():
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return rebuild(code, reason, message, field=field, retry_after=retry_after)


def as_p2m_error(error: Exception) -> P2MError:
    """Any exception as one of the tree; what nobody foresaw is Internal, and its traceback goes to the log."""
    if isinstance(error, P2MError):
        return error
    if isinstance(error, grpc.RpcError):
        return from_rpc_error(error)
    if isinstance(error, ConnectionError):
        return Unavailable("CONNECTION", f"A connection failed: {error}")
    if isinstance(error, OSError):
        return from_os_error(error, "Reading or writing files")
    log.error("unforeseen error", exc_info=error)
    return Internal("BUG", f"A bug in this service ({type(error).__name__}: {error}). Its log has the traceback.")


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends every failed call with the status of its exception."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        handler: Any = await continuation(details)
        # Health and reflection are gRPC's own; some of their handlers are no generators.
        if handler is None or handler.request_streaming or str(details.method).startswith("/grpc."):
            return handler  # type: ignore[no-any-return]
        return replace_behaviour(handler, unary=_unary(handler.unary_unary), stream=_stream(handler.unary_stream))


def replace_behaviour(handler: Any, *, unary: Any, stream: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """The same handler, with `unary` or `stream` in the place of its function."""
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)
    return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)


def _unary(inner: Any) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await inner(request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await _abort(context, error)

    return call


def _stream(inner: Any) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in inner(request, context):
                yield response
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await _abort(context, error)

    return call


async def _abort(context: Any, error: Exception) -> NoReturn:
    status = rpc_status.to_status(to_status(as_p2m_error(error)))
    await context.abort(status.code, status.details, status.trailing_metadata)  # type: ignore[attr-defined]
    raise AssertionError("abort always raises")
