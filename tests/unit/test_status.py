"""Every error keeps its meaning across a call, and nothing leaves a server as UNKNOWN."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2, dataset_retriever_pb2_grpc
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit import errors
from services.kit.channel import dial, stream, unary
from services.kit.errors import P2MError, from_os_error, rebuild
from services.kit.server import Server
from services.kit.settings import Settings
from services.kit.status import DOMAIN, as_p2m_error, to_status
from tests.support.toy import FULL_NAME, Toy, ask, hosted

TREE = [cls for cls in vars(errors).values() if isinstance(cls, type) and P2MError in cls.__mro__[1:]]


@asynccontextmanager
async def called(settings: Settings) -> AsyncIterator[tuple[grpc.aio.Channel, GeneratorServiceStub]]:
    async with hosted(Toy(settings)) as server, dial(f"127.0.0.1:{server.port}", settings) as channel:
        yield channel, GeneratorServiceStub(channel)


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_an_error_is_rebuilt_as_itself(cls: type[P2MError]) -> None:
    """Each class of the tree has a code of gRPC's and comes back as itself from its code, reason and message."""
    special = cls in (errors.NoFreeSlot, errors.BudgetExhausted, errors.DiskFull)
    error = cls("what was wrong") if special else cls("REASON", "what was wrong", field="a.b")  # type: ignore[call-arg]
    again = rebuild(error.code, error.reason, error.message, field=error.field, retry_after=error.retry_after)
    assert (type(again), vars(again)) == (cls, vars(error))
    assert getattr(grpc.StatusCode, error.code).value[0] == code_pb2.Code.Value(error.code)


def test_an_unknown_code_is_internal() -> None:
    """A code that the tree does not have, as a stranger's UNKNOWN, is Internal."""
    assert type(rebuild("UNKNOWN", "UNKNOWN", "?")) is errors.Internal


def test_a_status_says_reason_field_and_delay() -> None:
    """The status carries ErrorInfo of our domain, BadRequest for the field and RetryInfo for the delay."""
    status = to_status(errors.InvalidArgument("EMPTY", "The prompt is empty.", field="prompt", retry_after=1.5))
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    assert [status.details[0].Unpack(info), status.details[1].Unpack(bad), status.details[2].Unpack(retry)] == [
        True
    ] * 3
    assert (info.reason, info.domain, bad.field_violations[0].field) == ("EMPTY", DOMAIN, "prompt")
    assert retry.retry_delay.ToNanoseconds() == 1_500_000_000


async def test_an_error_crosses_the_wire(settings: Settings) -> None:
    """Class, reason, message, field and delay of what the service raised are those that the caller catches."""
    async with called(settings) as (_, stub):
        with pytest.raises(errors.NotFound) as raised:
            await stream(stub.Generate, ask("refuse"))
    assert vars(raised.value) == vars(
        errors.NotFound("NO_SUCH_MODEL", "There is no model x.", field="model", retry_after=2.5)
    )


@pytest.mark.parametrize(
    ("deed", "code", "reason"),
    [
        ("crash", "INTERNAL", "BUG"),
        ("answer nonsense", "INTERNAL", "BUG"),
        ("cancel itself", "CANCELLED", "CANCELLED"),
        ("break the disk", "NOT_FOUND", "NO_SUCH_FILE"),
        ("talk long", "NOT_FOUND", "LONG"),
        ("end without result", "INTERNAL", "NO_RESULT"),
    ],
)
async def test_what_nobody_foresaw_is_not_unknown(settings: Settings, deed: str, code: str, reason: str) -> None:
    """A bug, a response that is none, a stray cancel, a message too long for headers: each has its code, soon."""
    async with called(settings) as (_, stub):
        with pytest.raises(P2MError) as raised:
            await stream(stub.Generate, ask(deed), timeout_s=10)
    assert (raised.value.code, raised.value.reason) == (code, reason)


class _Partial(dataset_retriever_pb2_grpc.DatasetRetrieverServiceServicer):
    """A service that has left out all of its calls."""

    name = "dataset_retriever"
    full_name = "p2m.dataset_retriever.v1.DatasetRetrieverService"

    def register(self, server: grpc.aio.Server) -> None:
        dataset_retriever_pb2_grpc.add_DatasetRetrieverServiceServicer_to_server(self, server)

    async def warm(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""


async def test_a_call_that_is_left_out_is_unimplemented(settings: Settings) -> None:
    """Who replaces a service and leaves a call out is told so, not that there is a bug: of both kinds of call."""
    server = Server(_Partial(), settings)
    await server.start(0)
    channel = dial(f"127.0.0.1:{server.port}", settings)
    try:
        stub = dataset_retriever_pb2_grpc.DatasetRetrieverServiceStub(channel)
        with pytest.raises(errors.Unimplemented):
            await unary(stub.Search, dataset_retriever_pb2.SearchRequest())
        with pytest.raises(errors.Unimplemented):
            await stream(stub.Retrieve, dataset_retriever_pb2.RetrieveRequest())
    finally:
        await channel.close()
        await server.stop()


async def test_a_long_message_keeps_its_beginning(settings: Settings) -> None:
    """A message longer than headers may be arrives shortened and marked, with its reason."""
    async with called(settings) as (_, stub):
        with pytest.raises(errors.NotFound) as raised:
            await stream(stub.Generate, ask("talk long"))
    assert raised.value.message.startswith("ÄÄÄ") and raised.value.message.endswith("…")
    assert 100 < len(raised.value.message) < 2000


async def test_garbage_is_the_callers_error(settings: Settings) -> None:
    """Random bytes in the place of a request are INVALID_ARGUMENT or what the message they happen to be deserves."""
    draw = random.Random(0)
    allowed = {grpc.StatusCode.INVALID_ARGUMENT}
    async with called(settings) as (channel, _):
        generate = channel.unary_stream(f"/{FULL_NAME}/Generate")
        for _ in range(100):
            with pytest.raises(grpc.RpcError) as raised:
                async for _ in generate(b"\xff" + draw.randbytes(draw.randint(0, 200)), timeout=10):
                    pass
            assert raised.value.code() in allowed  # type: ignore[attr-defined]


async def test_details_of_a_stranger_do_no_harm() -> None:
    """A status whose details contradict it, or are no status, keeps its code and message."""

    class Stranger(grpc.RpcError):
        def __init__(self, details: bytes) -> None:
            self._metadata = (("grpc-status-details-bin", details),)

        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.NOT_FOUND

        def details(self) -> str:
            return "not here"

        def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
            return self._metadata

    other = status_pb2.Status(code=3, message="else", details=[AnyMessage(type_url="x/y", value=b"\xff")])
    for details in (b"\xff\xff", other.SerializeToString()):
        error = as_p2m_error(Stranger(details))
        assert (type(error), error.message) == (errors.NotFound, "not here")


@pytest.mark.parametrize(
    ("error", "cls", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errors.DiskFull, "Saving: No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), errors.DiskFull, "Free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), errors.PermissionDenied, "/x"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), errors.NotFound, "/x"),
        (TimeoutError(), errors.DeadlineExceeded, "longer than it may"),
        (OSError(errno.EIO, "Input/output error"), errors.Unavailable, "Input/output error"),
    ],
)
def test_what_the_system_says_is_told(error: OSError, cls: type[P2MError], says: str) -> None:
    """An error of the operating system becomes one that a caller can act on, and says what was tried."""
    told = from_os_error(error, "Saving")
    assert type(told) is cls
    assert says in told.message and told.message.startswith("Saving")
