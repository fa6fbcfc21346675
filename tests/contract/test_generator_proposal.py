"""Propose: what the examples of a task may differ in."""

from __future__ import annotations

from typing import Any

import pytest
from p2m.common.v1 import common_pb2 as common
from p2m.generator.v1 import generator_pb2 as pb
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit.channel import stream, unary
from services.kit.errors import FailedPrecondition, InvalidArgument
from tests.contract.conftest import Connect
from tests.support.teacher import NONSENSE, ScriptedTeacher

PROPOSED = {"topics": ["tea", "tea", "rain"], "lengths": ["one line"], "difficulties": [], "labels": []}


def _request(run_name: str, **fields: object) -> pb.ProposeRequest:
    request = pb.ProposeRequest(request_id=f"{run_name}/attributes", **fields)  # type: ignore[arg-type]
    request.spec.instruction = "Name the colour among the words."
    return request


async def test_a_proposal_is_made_once(connect: Connect, run_name: str) -> None:
    """It is cleaned, told with its cost, and the same request again asks nothing."""
    async with ScriptedTeacher({"attributes": PROPOSED}) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        first = await unary(stub.Propose, _request(run_name))
        assert [*first.attributes.topics] == ["tea", "rain"]
        assert [*first.attributes.lengths] == ["one line"]
        assert first.ledger.requests == 1
        assert first.llm
        assert await unary(stub.Propose, _request(run_name)) == first
        assert teacher.count["requests"] == 1


async def test_no_proposal_is_an_answer(connect: Connect, run_name: str) -> None:
    """An LLM that proposes nothing that can be read, or may not be asked, gives an empty one."""
    async with ScriptedTeacher(always=NONSENSE) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        assert not (await unary(stub.Propose, _request(run_name))).HasField("attributes")
        nothing = _request(f"{run_name}-poor", allowance=common.Allowance(requests=0))
        before = teacher.count["requests"]
        assert not (await unary(stub.Propose, nothing)).HasField("attributes")
        assert teacher.count["requests"] == before


async def test_what_cannot_be(connect: Connect, run_name: str) -> None:
    """A task that says nothing is INVALID_ARGUMENT; without an LLM it is FAILED_PRECONDITION."""
    stub = GeneratorServiceStub(await connect("generator", openai_base_url=""))
    with pytest.raises(FailedPrecondition, match="No LLM"):
        await unary(stub.Propose, _request(run_name))
    async with ScriptedTeacher({"attributes": PROPOSED}) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        with pytest.raises(InvalidArgument, match="instruction"):
            await unary(stub.Propose, pb.ProposeRequest(request_id=f"{run_name}/nothing"))


async def test_attributes_that_are_set_but_empty_steer_nothing(connect: Connect, run_name: str) -> None:
    """Who wants nothing proposed has nothing proposed, however many examples there are."""
    request = pb.GenerateRequest(request_id=f"{run_name}/generate", number=100)
    request.spec.instruction = "Name the colour among the words."
    request.attributes.SetInParent()
    async with ScriptedTeacher() as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        result = await stream(stub.Generate, request, lambda _: None)
        assert teacher.by_schema["attributes"] == 0
    assert result.rows == 100


async def test_rows_are_judged(connect: Connect, run_name: str) -> None:
    """With `judge` the LLM looks over the rows: those that it holds to be wrong are counted and no rows."""
    request = pb.GenerateRequest(request_id=f"{run_name}/generate", number=10, judge=True)
    request.spec.instruction = "Name the colour among the words."

    def scores(body: dict[str, Any], _rng: Any) -> Any:
        return {"scores": [{"number": 1, "score": 1}]}

    async with ScriptedTeacher({"scores": scores}) as teacher:
        stub = GeneratorServiceStub(await connect("generator", openai_base_url=teacher.url))
        result = await stream(stub.Generate, request, lambda _: None)
    assert 0 < result.rows <= 10
    assert result.dropped["judged"] >= 1
