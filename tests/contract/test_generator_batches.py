"""The generator's contract where cost is preferred, and where a job was stopped."""

from __future__ import annotations

import asyncio

import pytest
from p2m.common.v1 import common_pb2 as common
from p2m.generator.v1 import generator_pb2 as pb
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit.artifacts import Artifacts
from services.kit.channel import stream, unary
from services.kit.errors import InvalidArgument, NotFound
from services.kit.settings import Settings
from services.kit.values import Artifact, Progress
from services.kit.wire import from_message
from tests.contract.conftest import Connect
from tests.support.batch_server import BatchServer
from tests.support.teacher import ScriptedTeacher, toy_answer


def _request(
    run_name: str, number: int = 40, prefer: common.Prefer.ValueType = common.PREFER_COST
) -> pb.GenerateRequest:
    request = pb.GenerateRequest(request_id=f"{run_name}/generate/0", number=number, prefer=prefer)
    request.spec.instruction = "Name the colour among the words."
    request.spec.language = "en"
    request.spec.demonstrations.add(input="lamp red door", output="red")
    return request


async def test_by_batches(connect: Connect, run_name: str) -> None:
    """Where cost is preferred the answers come by batches, and the result says how many and what the money went on."""
    async with BatchServer() as server:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=server.url, llm_batch_look_s=0.02))
        result = await stream(stub.Generate, _request(run_name))
        assert result.batched == len(server.served) == result.ledger.requests - 1
        again = await stream(stub.Generate, _request(run_name, prefer=common.PREFER_TIME))
    assert (result.rows, result.stop_reason, [*result.notes]) == (40, pb.STOP_REASON_NUMBER, [])
    assert sum(one.requests for one in result.outcomes) == pytest.approx(result.ledger.requests)
    assert next(one.examples for one in result.outcomes if one.name == "kept") == 40
    assert again == result  # the preference is no part of what is asked for


async def test_a_backend_without_batches(connect: Connect, run_name: str) -> None:
    """It is asked in the usual way, and a note says so."""
    async with ScriptedTeacher() as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        result = await stream(stub.Generate, _request(run_name))
    assert (result.rows, result.batched) == (40, 0)
    assert "takes no batches (404)" in result.notes[0]


async def test_a_cancel_reaches_the_batch(connect: Connect, run_name: str) -> None:
    """Cancelling the call cancels the batch at the server; the same request then completes what is missing."""
    async with BatchServer(slow=True) as server:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=server.url, llm_batch_look_s=0.02))
        under_way = asyncio.Event()

        def report(progress: Progress) -> None:
            if "in progress" in progress.message:
                under_way.set()

        job = asyncio.create_task(stream(stub.Generate, _request(run_name), report))
        await asyncio.wait_for(under_way.wait(), 20)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        [batch] = server.batches.values()
        async with asyncio.timeout(10):
            while batch.status != "cancelling":
                await asyncio.sleep(0.02)
        server.slow = False
        result = await stream(stub.Generate, _request(run_name))
        assert result.ledger.requests == len(server.served) + server.count["answered"]
        assert len({*server.served}) == len(server.served)
    assert result.rows == 40


async def test_what_was_stopped_is_salvaged(connect: Connect, run_name: str, settings: Settings) -> None:
    """Salvage gives the examples so far as a dataset without asking; NOT_FOUND where there are none."""
    async with ScriptedTeacher(latency=0.1) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url, llm_concurrency=1))
        wanted = pb.SalvageRequest(request_id=f"{run_name}/generate", spec=_request(run_name).spec)
        with pytest.raises(NotFound):
            await unary(stub.Salvage, wanted)
        arrived = asyncio.Event()

        def report(progress: Progress) -> None:
            if progress.done >= 5:
                arrived.set()

        job = asyncio.create_task(stream(stub.Generate, _request(run_name, 200, common.PREFER_TIME), report))
        await asyncio.wait_for(arrived.wait(), 20)
        under_way = await unary(stub.Salvage, wanted)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await asyncio.sleep(0.2)
        asked = teacher.count["requests"]
        stopped = await unary(stub.Salvage, wanted)
        assert teacher.count["requests"] == asked
    rows = Artifacts.open(settings, "tests").read_rows(from_message(stopped.dataset, Artifact))
    assert 5 <= under_way.rows <= stopped.rows == len({row.input for row in rows}) < 200
    assert all(row.output == toy_answer(row.input) for row in rows)


async def test_another_preference(connect: Connect, run_name: str) -> None:
    """A preference that there is none of is INVALID_ARGUMENT."""
    stub = GeneratorServiceStub(await connect("generator"))
    with pytest.raises(InvalidArgument) as caught:
        await stream(stub.Generate, _request(run_name, prefer=7))  # type: ignore[arg-type]
    assert caught.value.field == "prefer"
