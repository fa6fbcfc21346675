"""The parser's contract: what every implementation of ParserService does."""

from __future__ import annotations

import pytest
from p2m.parser.v1 import parser_pb2 as pb
from p2m.parser.v1.parser_pb2_grpc import ParserServiceStub

from services.kit.channel import unary
from services.kit.errors import AlreadyExists, InvalidArgument, Unauthenticated
from tests.contract.conftest import Connect
from tests.support.teacher import NONSENSE, TOY_PROMPT, WRONG_KEY, ScriptedTeacher


def _request(run_name: str, prompt: str, **fields: object) -> pb.ParseRequest:
    return pb.ParseRequest(request_id=f"{run_name}/parse", prompt=prompt, **fields)  # type: ignore[arg-type]


async def test_instruction_and_demonstrations(connect: Connect, run_name: str) -> None:
    """Parse gives the instruction and every demonstration, word for word and in order."""
    stub = ParserServiceStub(await connect("parser"))
    answer = await unary(stub.Parse, _request(run_name, TOY_PROMPT))
    assert len(answer.spec.demonstrations) == 3
    for demonstration in answer.spec.demonstrations:
        assert f'input="{demonstration.input}"\noutput="{demonstration.output}"' in TOY_PROMPT
    assert answer.spec.instruction == TOY_PROMPT.split("\n\n")[0]
    assert answer.spec.language == "en"
    assert answer.spec.original_instruction == ""


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "EMPTY_PROMPT"),
        (" \n\t", "EMPTY_PROMPT"),
        ("x" * 1_000_000, "PROMPT_TOO_LONG"),
        ("Sum\0 up.", "PROMPT_NUL"),
    ],
)
async def test_no_prompt_is_refused(connect: Connect, run_name: str, prompt: str, reason: str) -> None:
    """What is no prompt is INVALID_ARGUMENT, and the error names the field and what to do."""
    stub = ParserServiceStub(await connect("parser"))
    with pytest.raises(InvalidArgument) as caught:
        await unary(stub.Parse, _request(run_name, prompt))
    assert (caught.value.reason, caught.value.field) == (reason, "prompt")


async def test_the_longest_prompt_is_taken(connect: Connect, run_name: str) -> None:
    """A prompt of exactly 200,000 characters is parsed."""
    stub = ParserServiceStub(await connect("parser"))
    prompt = ("Name the colour. " * 12_000)[:200_000]
    answer = await unary(stub.Parse, _request(run_name, prompt))
    assert answer.spec.instruction == prompt.strip()


async def test_no_demonstrations_is_fine(connect: Connect, run_name: str) -> None:
    """A prompt without demonstrations is its own instruction; a note says what would help."""
    stub = ParserServiceStub(await connect("parser"))
    answer = await unary(stub.Parse, _request(run_name, "Summarise the news article in one sentence."))
    assert answer.spec.instruction == "Summarise the news article in one sentence."
    assert not answer.spec.demonstrations
    assert any("demonstration" in note for note in answer.notes)


async def test_a_prompt_in_japanese(connect: Connect, run_name: str) -> None:
    """A Japanese prompt is known as such, and its demonstrations are found."""
    stub = ParserServiceStub(await connect("parser"))
    prompt = "文から日付を抜き出してください。\n\n例：\n\n入力：「会議は3月5日です」\n出力：「3月5日」\n"
    answer = await unary(stub.Parse, _request(run_name, prompt))
    assert answer.spec.language == "ja"
    own = answer.spec.original_instruction or answer.spec.instruction
    assert own == "文から日付を抜き出してください。"
    assert [(one.input, one.output) for one in answer.spec.demonstrations] == [("会議は3月5日です", "3月5日")]


async def test_an_id_stands_for_one_prompt(connect: Connect, run_name: str) -> None:
    """The same id and prompt give the same answer; the same id with another prompt is ALREADY_EXISTS."""
    stub = ParserServiceStub(await connect("parser"))
    first = await unary(stub.Parse, _request(run_name, "Add the two numbers."))
    assert await unary(stub.Parse, _request(run_name, "Add the two numbers.")) == first
    with pytest.raises(AlreadyExists):
        await unary(stub.Parse, _request(run_name, "Multiply the two numbers."))


async def test_no_allowance_means_rules(connect: Connect, run_name: str) -> None:
    """With an allowance of nothing the rules parse alone, and the answer says so."""
    async with ScriptedTeacher() as teacher:
        stub = ParserServiceStub(await connect("parser", openai_base_url=teacher.url))
        request = _request(run_name, TOY_PROMPT)
        request.allowance.requests = 0
        answer = await unary(stub.Parse, request)
        assert teacher.count["requests"] == 0
    assert answer.method == pb.PARSE_METHOD_RULES
    assert len(answer.spec.demonstrations) == 3
    assert any("rules" in note for note in answer.notes)


async def test_the_llm_is_asked_and_paid_once(connect: Connect, run_name: str) -> None:
    """With an LLM the method is LLM, the ledger counts its request, and the same request asks no second time."""
    async with ScriptedTeacher() as teacher:
        stub = ParserServiceStub(await connect("parser", openai_base_url=teacher.url))
        answer = await unary(stub.Parse, _request(run_name, TOY_PROMPT))
        again = await unary(stub.Parse, _request(run_name, TOY_PROMPT))
        assert teacher.count["requests"] == 1
    assert answer == again
    assert answer.method == pb.PARSE_METHOD_LLM
    assert answer.ledger.requests == 1
    assert len(answer.spec.demonstrations) == 3


async def test_a_wrong_key_is_an_error(connect: Connect, run_name: str) -> None:
    """A key that the LLM refuses is UNAUTHENTICATED: every later stage would meet it again."""
    async with ScriptedTeacher(always=WRONG_KEY) as teacher:
        stub = ParserServiceStub(await connect("parser", openai_base_url=teacher.url, openai_api_key="sk-wrong"))
        with pytest.raises(Unauthenticated):
            await unary(stub.Parse, _request(run_name, TOY_PROMPT))


async def test_nonsense_falls_back_to_the_rules(connect: Connect, run_name: str) -> None:
    """An LLM that answers nonsense costs a note, not the run."""
    async with ScriptedTeacher(always=NONSENSE) as teacher:
        stub = ParserServiceStub(await connect("parser", openai_base_url=teacher.url))
        answer = await unary(stub.Parse, _request(run_name, TOY_PROMPT))
    assert answer.method == pb.PARSE_METHOD_RULES
    assert len(answer.spec.demonstrations) == 3
