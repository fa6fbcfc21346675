"""Errors <-> google.rpc.Status: one interceptor on the server, one function on the client.

Every error carries ErrorInfo{reason, domain "p2m"}; BadRequest names a wrong field; RetryInfo says when to come back.
UNKNOWN never leaves a server of ours: what nobody foresaw is INTERNAL with the reason BUG.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.kit import bounds, telemetry
from services.kit.errors import (
    Cancelled,
    Internal,
    InvalidArgument,
    P2MError,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
    from_os_error,
    rebuild,
)

log = logging.getLogger(__name__)
DOMAIN = "p2m"

# The message travels three times in headers, percent-encoded once, and gRPC takes 8 KB of headers in all.
_MESSAGE_BYTES = 1_000
# The service has tried already: that gRPC tries again at once, four times, would only be slow.
_NO_RETRY = ("grpc-retry-pushback-ms", "-1")
# What the generated code raises for a call that a service has left out.
_GENERATED = "Method not implemented!"


def to_status(error: P2MError) -> status_pb2.Status:
    """The google.rpc.Status of an error of the tree."""
    message = _cut(error.message)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=_cut(error.field), description=message)
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
    for detail in _details(error):
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    return rebuild(code, reason, message, field=field, retry_after=retry_after)


def _details(error: grpc.RpcError) -> Iterable[Any]:
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
    except (ValueError, DecodeError, AttributeError):  # a stranger's details that contradict its status, or are none
        return ()
    return status.details if status else ()


def _cut(text: str) -> str:
    encoded = text.encode("utf-8", "replace")
    return (
        encoded.decode() if len(encoded) <= _MESSAGE_BYTES else encoded[:_MESSAGE_BYTES].decode("utf-8", "ignore") + "…"
    )


def as_p2m_error(error: Exception) -> P2MError:
    """Any exception as one of the tree; what nobody foresaw is Internal, and its traceback goes to the log."""
    if isinstance(error, P2MError):
        return error
    if isinstance(error, grpc.RpcError):
        return from_rpc_error(error)
    if isinstance(error, ConnectionError):
        return Unavailable("CONNECTION", f"A connection failed: {error}")
    if isinstance(error, OSError):
        return from_os_error(error, "Working")
    if isinstance(error, MemoryError):
        return ResourceExhausted("OUT_OF_MEMORY", "The memory is used up; take a smaller model or batch.")
    if isinstance(error, NotImplementedError) and str(error) == _GENERATED:
        return Unimplemented("UNIMPLEMENTED", "This service does not implement that call.")
    log.error("unforeseen error", exc_info=error)
    return Internal("BUG", f"A bug in this service ({type(error).__name__}: {error}). Its log has the traceback.")


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends every failed call with the status of its exception."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(details)
        # Health and reflection are gRPC's own; some of their handlers are no generators.
        if handler is None or handler.request_streaming or str(details.method).startswith("/grpc."):
            return handler
        # Bytes in and bytes out: what is raised while a message is read or written must not leave as UNKNOWN either.
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(_stream(handler, details.method))
        return grpc.unary_unary_rpc_method_handler(_unary(handler, details.method))


def _unary(handler: Any, method: str) -> Any:
    async def call(data: bytes, context: Any) -> Any:
        async with _errors(method, context):
            return _serialized(handler, await handler.unary_unary(_deserialized(handler, data), context))

    return call


def _stream(handler: Any, method: str) -> Any:
    async def call(data: bytes, context: Any) -> AsyncIterator[Any]:
        async with (
            _errors(method, context) as served,
            contextlib.aclosing(handler.unary_stream(_deserialized(handler, data), context)) as responses,
        ):
            async for response in responses:
                data = _serialized(handler, response)
                served.sends(response)
                yield data

    return call


@contextlib.asynccontextmanager
async def _errors(method: str, context: Any) -> AsyncIterator[telemetry.Observed]:
    with telemetry.served(method, context) as call:
        try:
            yield call
        except grpc.aio.AbortError:
            raise
        except asyncio.CancelledError:
            call.failed("CANCELLED", "CANCELLED")
            task = asyncio.current_task()
            # Of a call that nobody cancelled, gRPC would send no status at all, and its caller would wait.
            if task is not None and not task.cancelling():
                await _abort(context, Cancelled("CANCELLED", "The work was cancelled inside of the service."))
            raise
        except Exception as error:
            known = as_p2m_error(error)
            call.failed(known.code, known.reason)
            await _abort(context, known)


def _deserialized(handler: Any, data: bytes) -> Any:
    try:
        request = handler.request_deserializer(data)
    except Exception as error:
        raise InvalidArgument("BAD_MESSAGE", f"The request's {len(data)} bytes are no message of its type.") from error
    if isinstance(request, Message):
        bounds.check(request)
    return request


def _serialized(handler: Any, response: Any) -> Any:
    return handler.response_serializer(response)


async def _abort(context: Any, error: P2MError) -> NoReturn:
    status: Any = rpc_status.to_status(to_status(error))
    pushback = (_NO_RETRY,) if isinstance(error, Unavailable) else ()
    await context.abort(status.code, status.details, (*status.trailing_metadata, *pushback))
    raise AssertionError("abort always raises")
