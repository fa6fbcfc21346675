"""A small service that speaks GeneratorService, for tests of what stands around a service.

What it does is asked for by the request: `spec.instruction` names it (see `_DEEDS`), `number` is its size.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from p2m.common.v1 import common_pb2
from p2m.generator.v1 import generator_pb2 as pb
from p2m.generator.v1 import generator_pb2_grpc

from services.kit import worker
from services.kit.artifacts import Artifacts
from services.kit.errors import NotFound, Unavailable
from services.kit.server import Server
from services.kit.settings import Settings
from services.kit.slots import Slots
from services.kit.stage import Report, Stage
from services.kit.values import Metric, Progress
from tests.support.jobs import Order, Outcome

FULL_NAME = "p2m.generator.v1.GeneratorService"


class Toy(generator_pb2_grpc.GeneratorServiceServicer):
    """The service. `worked` counts pieces of work begun, `ended` those that ended in whatever way."""

    name = "generator"
    full_name = FULL_NAME

    def __init__(self, settings: Settings, label: str = "toy", folder: Path | None = None) -> None:
        self.settings = settings
        self.label = label
        self.folder = folder
        self.stage = Stage(Artifacts.open(settings, "generator"), Slots(settings.slots))
        self.warmed = asyncio.Event()
        self.warmed.set()
        self.release = asyncio.Event()
        self.worked = 0
        self.ended = 0
        self.closed = False

    def register(self, server: grpc.aio.Server) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]

    async def warm(self) -> None:
        await self.warmed.wait()

    async def close(self) -> None:
        self.closed = True

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[Any]:
        if request.spec.instruction in _RAW:
            for response in await _RAW[request.spec.instruction](self, request, context):
                yield response
            return

        async def work(report: Report) -> pb.GenerateResult:
            self.worked += 1
            try:
                return await _DEEDS[request.spec.instruction](self, request, report)
            finally:
                self.ended += 1

        kept = request.spec.instruction != "spend"
        async for response in self.stage.stream(
            request, pb.GenerateResponse, pb.GenerateResult, work, keep=lambda _: kept
        ):
            yield response


async def _answer(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    return pb.GenerateResult(rows=toy.worked, llm=toy.label)


async def _spend(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    return pb.GenerateResult(rows=toy.worked, llm=toy.label, stop_reason=pb.STOP_REASON_BUDGET)


async def _wait(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    report(Progress(message="waiting"))
    await toy.release.wait()
    return pb.GenerateResult(rows=toy.worked, llm=toy.label)


async def _report(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    for step in range(request.number):
        report(Progress(step, request.number, "steps", metrics=(Metric("train_loss", float("nan")),)))
        await asyncio.sleep(0.01)
    return pb.GenerateResult(rows=toy.worked)


async def _report_from_a_thread(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    await asyncio.to_thread(report, Progress(message="from a thread"))
    await asyncio.sleep(0.5)
    return pb.GenerateResult()


async def _flood(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    while True:
        report(Progress(message="x" * 1_000_000))
        await asyncio.sleep(0.05)


async def _child(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    order = Order("wait and save" if request.number == 0 else "ignore everything", str(toy.folder))
    outcome = await worker.run("tests.support.jobs:work", order, Outcome, toy.settings)
    return pb.GenerateResult(llm=outcome.said)


async def _refuse(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    raise NotFound("NO_SUCH_MODEL", "There is no model x.", field="model", retry_after=2.5)


async def _be_unavailable(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    raise Unavailable("LLM_UNREACHABLE", "The LLM is out of reach.")


async def _talk_long(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    raise NotFound("LONG", "Ä" * 100_000, field="f" * 100_000)


async def _crash(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    raise ZeroDivisionError("a bug")


async def _cancel_itself(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    raise asyncio.CancelledError


async def _break_the_disk(toy: Toy, request: pb.GenerateRequest, report: Report) -> pb.GenerateResult:
    raise FileNotFoundError(2, "No such file", "/data/x")


async def _answer_nonsense(toy: Toy, request: pb.GenerateRequest, context: Any) -> list[Any]:
    return ["no message at all"]


async def _end_without_result(toy: Toy, request: pb.GenerateRequest, context: Any) -> list[Any]:
    return [pb.GenerateResponse(progress=common_pb2.Progress(done=1))]


async def _break_off_once(toy: Toy, request: pb.GenerateRequest, context: Any) -> list[Any]:
    """As a replica that goes away before it answers: UNAVAILABLE of the transport, without details."""
    toy.worked += 1
    if toy.worked < 3:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    return [pb.GenerateResponse(result=pb.GenerateResult(rows=toy.worked))]


_DEEDS = {
    "answer": _answer, "spend": _spend, "wait": _wait, "report": _report, "report from a thread": _report_from_a_thread,
    "flood": _flood, "child": _child, "refuse": _refuse, "be unavailable": _be_unavailable, "talk long": _talk_long,
    "crash": _crash, "cancel itself": _cancel_itself, "break the disk": _break_the_disk,
}  # fmt: skip
_RAW = {
    "answer nonsense": _answer_nonsense, "end without result": _end_without_result, "break off once": _break_off_once,
}  # fmt: skip


def ask(deed: str, request_id: str = "run/generate", **fields: Any) -> pb.GenerateRequest:
    """A request for a deed."""
    return pb.GenerateRequest(request_id=request_id, spec=common_pb2.PromptSpec(instruction=deed), **fields)


@asynccontextmanager
async def hosted(toy: Toy, port: int = 0) -> AsyncIterator[Server]:
    """The service on a port, until the block ends."""
    server = Server(toy, toy.settings)
    await server.start(port)
    try:
        yield server
    finally:
        toy.release.set()
        await server.stop()
