"""The generator's contract: what every implementation of GeneratorService does."""

from __future__ import annotations

import asyncio

import pytest
from p2m.common.v1 import common_pb2 as common
from p2m.generator.v1 import generator_pb2 as pb
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit.artifacts import Artifacts
from services.kit.channel import stream
from services.kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unauthenticated
from services.kit.settings import Settings
from services.kit.values import Artifact, Progress, Row
from services.kit.wire import from_message, to_message
from tests.contract.conftest import Connect
from tests.support.teacher import NONSENSE, WRONG_KEY, ScriptedTeacher, toy_answer


def _request(run_name: str, number: int = 20, **fields: object) -> pb.GenerateRequest:
    request = pb.GenerateRequest(request_id=f"{run_name}/generate", number=number, **fields)  # type: ignore[arg-type]
    request.spec.instruction = "Name the colour among the words."
    request.spec.language = "en"
    request.spec.demonstrations.add(input="lamp red door", output="red")
    request.spec.demonstrations.add(input="blue cat sat", output="blue")
    return request


def _rows(settings: Settings, result: pb.GenerateResult) -> list[Row]:
    return Artifacts.open(settings, "tests").read_rows(from_message(result.dataset, Artifact))


async def test_a_dataset(connect: Connect, run_name: str, settings: Settings) -> None:
    """Generate gives a dataset artifact of the number of rows, all different, none a demonstration, and how it went."""
    async with ScriptedTeacher() as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        seen: list[Progress] = []
        result = await stream(stub.Generate, _request(run_name), seen.append)
    rows = _rows(settings, result)
    assert result.rows == len(rows) == len({row.input for row in rows}) == 20
    assert {row.source for row in rows} == {"generated"}
    assert not {row.input for row in rows} & {"lamp red door", "blue cat sat"}
    assert all(row.output == toy_answer(row.input) for row in rows)
    assert result.stop_reason == pb.STOP_REASON_NUMBER
    assert result.ledger.requests == teacher.count["answered"]
    assert result.llm
    assert seen
    assert all(progress.total == 20 and progress.unit == "examples" for progress in seen)


async def test_the_result_is_stored(connect: Connect, run_name: str) -> None:
    """The same request again gives the same result without the LLM; with other content the id is ALREADY_EXISTS."""
    async with ScriptedTeacher() as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        first = await stream(stub.Generate, _request(run_name))
        asked = teacher.count["requests"]
        assert await stream(stub.Generate, _request(run_name)) == first
        assert teacher.count["requests"] == asked
        with pytest.raises(AlreadyExists):
            await stream(stub.Generate, _request(run_name, number=21))


async def test_what_is_excluded(connect: Connect, run_name: str, settings: Settings) -> None:
    """Inputs of the datasets in `exclude` are not generated again."""
    batch = [{"input": f"word{letter} red", "output": "red"} for letter in "abcde"]
    dataset = Artifacts.open(settings, "tests").put_rows([Row("worda red", "red"), Row("wordb red", "red")])
    async with ScriptedTeacher({"examples": lambda _, rng: {"examples": rng.sample(batch, 5)}}) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        request = _request(run_name, number=3)
        request.exclude.append(to_message(dataset, common.Artifact))
        result = await stream(stub.Generate, request)
    assert sorted(row.input for row in _rows(settings, result)) == ["wordc red", "wordd red", "worde red"]
    assert result.dropped["excluded"] > 0


async def test_an_absent_dataset_to_exclude(connect: Connect, run_name: str) -> None:
    """An artifact in `exclude` that is not in the store is NOT_FOUND, before anything is paid."""
    async with ScriptedTeacher() as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        request = _request(run_name)
        request.exclude.add(uri=f"p2m://tests/blobs/sha256/{'0' * 64}", sha256="0" * 64)
        with pytest.raises(NotFound):
            await stream(stub.Generate, request)
        assert teacher.count["requests"] == 0


async def test_a_budget_of_nothing(connect: Connect, run_name: str) -> None:
    """With an allowance of nothing the result is empty, says why, and no request was sent."""
    async with ScriptedTeacher() as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        request = _request(run_name)
        request.allowance.dollars = 0
        result = await stream(stub.Generate, request)
        assert teacher.count["requests"] == 0
    assert (result.rows, result.stop_reason) == (0, pb.STOP_REASON_BUDGET)


async def test_a_larger_budget_goes_on(connect: Connect, run_name: str) -> None:
    """The same id with a larger allowance goes on from the paid answers."""
    async with ScriptedTeacher() as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        request = _request(run_name)
        request.allowance.requests = 1
        first = await stream(stub.Generate, request)
        request.allowance.requests = 100
        result = await stream(stub.Generate, request)
        assert teacher.count["requests"] == result.ledger.requests
    assert first.stop_reason == pb.STOP_REASON_BUDGET
    assert first.rows < 20
    assert (result.rows, result.stop_reason) == (20, pb.STOP_REASON_NUMBER)
    assert result.ledger.replayed == 1


async def test_nothing_new(connect: Connect, run_name: str) -> None:
    """Where the LLM has nothing new to say the result holds what there is, and says so."""
    batch = [{"input": "lamp green door", "output": "green"}]
    async with ScriptedTeacher({"examples": {"examples": batch}}) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        result = await stream(stub.Generate, _request(run_name))
    assert (result.rows, result.stop_reason) == (1, pb.STOP_REASON_NOTHING_NEW)
    assert result.dropped["duplicate"] > 0


async def test_a_cancel_keeps_what_was_paid(connect: Connect, run_name: str) -> None:
    """Cancelling stops the asking; the same request afterwards pays for the rest alone."""
    async with ScriptedTeacher(latency=0.1) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url, llm_concurrency=1))
        arrived = asyncio.Event()

        def report(progress: Progress) -> None:
            if progress.done >= 5:
                arrived.set()

        job = asyncio.create_task(stream(stub.Generate, _request(run_name, number=40), report))
        await asyncio.wait_for(arrived.wait(), 20)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await asyncio.sleep(0.3)
        asked = teacher.count["requests"]
        await asyncio.sleep(0.3)
        assert teacher.count["requests"] == asked
        result = await stream(stub.Generate, _request(run_name, number=40))
        assert teacher.count["requests"] <= 11
    assert result.rows == 40
    assert result.ledger.replayed >= 1


async def test_a_wrong_key(connect: Connect, run_name: str) -> None:
    """A key that the LLM refuses is UNAUTHENTICATED."""
    async with ScriptedTeacher(always=WRONG_KEY) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url, openai_api_key="sk-wrong"))
        with pytest.raises(Unauthenticated):
            await stream(stub.Generate, _request(run_name))


async def test_nonsense(connect: Connect, run_name: str) -> None:
    """An LLM that answers nonsense is FAILED_PRECONDITION, with what to do."""
    async with ScriptedTeacher(always=NONSENSE) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        with pytest.raises(FailedPrecondition) as caught:
            await stream(stub.Generate, _request(run_name))
    assert caught.value.reason == "LLM_NONSENSE"


async def test_no_llm(connect: Connect, run_name: str) -> None:
    """Without an LLM it is FAILED_PRECONDITION with reason NO_LLM."""
    stub = GeneratorServiceStub(await connect("generator", openai_base_url="", openai_api_key=""))
    with pytest.raises(FailedPrecondition) as caught:
        await stream(stub.Generate, _request(run_name))
    assert caught.value.reason == "NO_LLM"


@pytest.mark.parametrize(
    ("number", "fields", "field"),
    [
        (0, {}, "number"),
        (-1, {}, "number"),
        (1_000_001, {}, "number"),
        (20, {"initial_temperature": 2.5}, "initial_temperature"),
        (20, {"max_temperature": -1.0}, "max_temperature"),
        (20, {"part": 3, "parts": 2}, "part"),
    ],
)
async def test_out_of_range(
    connect: Connect, run_name: str, number: int, fields: dict[str, object], field: str
) -> None:
    """What is out of range is INVALID_ARGUMENT and names the field."""
    stub = GeneratorServiceStub(await connect("generator"))
    with pytest.raises(InvalidArgument) as caught:
        await stream(stub.Generate, _request(run_name, number, **fields))
    assert caught.value.field == field


async def test_no_request_id(connect: Connect) -> None:
    """A request without an id is INVALID_ARGUMENT."""
    stub = GeneratorServiceStub(await connect("generator"))
    request = _request("x")
    request.request_id = ""
    with pytest.raises(InvalidArgument) as caught:
        await stream(stub.Generate, request)
    assert caught.value.field == "request_id"
