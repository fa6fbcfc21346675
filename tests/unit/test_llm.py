"""The LLM client, against a scripted server: its answers, and what it does where a server can do less."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from services.kit.llm import Ask, InvalidAnswer, Teacher
from services.kit.values import Allowance, Ledger
from tests.support.asking import ANSWER, EXAMPLES, ask
from tests.support.teacher import Fault, ScriptedTeacher, schema_of


async def test_no_llm_without_url_and_key(settings, artifacts):
    """Where neither OPENAI_BASE_URL nor a key is set there is no teacher, rather than one that fails later."""
    assert Teacher.from_settings(settings, artifacts) is None


async def test_an_answer_is_a_value_that_fits_its_schema(open_teacher):
    """`ask` gives the JSON value and the ledger what the server says it took."""
    async with ScriptedTeacher() as server:
        session = open_teacher(server, llm="a-model").session("run/generate", Allowance())
        value = await session.ask(ask(temperature=0.7, max_tokens=99, seed=5))
        [body] = server.requests
        assert [set(example) for example in value["examples"]] == [{"input", "output"}] * 3
        assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("a-model", 0.7, 99, 5)
        assert session.ledger == Ledger(1, server.count["prompt_tokens"], server.count["completion_tokens"])


async def test_many_answers_are_asked_for_at_once(open_teacher):
    """40 answers of 0.2 s take far less than 8 s, with no more in flight than P2M_LLM_CONCURRENCY."""
    async with ScriptedTeacher(latency=0.2) as server:
        session = open_teacher(server, llm_concurrency=16).session("run", Allowance())
        began = time.monotonic()
        await asyncio.gather(*(session.ask(ask(str(n))) for n in range(40)))
        assert time.monotonic() - began < 4
        assert 8 < server.peak_concurrency <= 16


async def test_a_server_that_tells_its_slots_is_not_flooded(open_teacher):
    """llama.cpp's /props is believed: one is served, one waits, and no more are sent."""
    async with ScriptedTeacher(latency=0.02, max_concurrent=1, tells_slots=1) as server:
        session = open_teacher(server).session("run", Allowance())
        await asyncio.gather(*(session.ask(ask(str(n))) for n in range(10)))
        assert server.peak_concurrency == 2


async def test_teachers_of_one_process_share_the_limit(open_teacher):
    """Two services in one process together have no more in flight than one alone may."""
    async with ScriptedTeacher(latency=0.1) as server:
        sessions = [open_teacher(server, llm_concurrency=4).session(f"run/{n}", Allowance()) for n in range(2)]
        await asyncio.gather(*(session.ask(ask(str(n))) for session in sessions for n in range(10)))
        assert server.peak_concurrency == 4


@pytest.mark.parametrize("formats", [["json_object", "text"], ["text"]])
async def test_a_backend_without_json_schema(open_teacher, formats):
    """Asked in the best form it takes, with the schema told in the messages; the refused form is not tried again."""
    async with ScriptedTeacher(formats=formats) as server:
        session = open_teacher(server).session("run", Allowance())
        values = [await session.ask(ask(key)) for key in "abc"]
        assert all(len(value["examples"]) == 3 for value in values)
        assert server.count["requests"] == 3 + 3 - len(formats)
        kinds = [(body.get("response_format") or {"type": "text"})["type"] for body in server.requests[-2:]]
        assert kinds == [formats[0]] * 2
        assert session.ledger.requests == 3, "a refusal is not paid for"


async def test_a_schema_in_words_comes_last(open_teacher):
    """What differs between requests, the schema too, stands after what they share, which a prefix cache then serves."""
    async with ScriptedTeacher(formats=["text"]) as server:
        session = open_teacher(server).session("run", Allowance())
        system, text = {"role": "system", "content": "Be brief."}, "Make some. " * 20
        for key, schema in (("a", EXAMPLES), ("b", ANSWER)):
            await session.ask(Ask(key, (system, {"role": "user", "content": text}), schema))
        first, second = (body["messages"] for body in server.requests[2::3])
        assert first[0] == second[0] == system
        assert first[1]["content"].startswith(text)
        assert second[1]["content"].startswith(text)
        assert first[1] != second[1]


async def test_a_backend_that_ignores_json_schema(open_teacher):
    """One that takes response_format and does not heed it is told the schema in words after three useless answers."""

    def prose(body, rng):
        return None if "Answer with one JSON value" in body["messages"][-1]["content"] else "Certainly!"

    async with ScriptedTeacher(prose) as server:
        session = open_teacher(server).session("run", Allowance())
        results = await asyncio.gather(*(_try(session, str(n)) for n in range(3)))
        assert results == ["INVALID_ANSWER"] * 3
        assert len((await session.ask(ask("d")))["examples"]) == 3


async def test_an_llm_that_renamed_its_parameters(open_teacher):
    """max_tokens becomes max_completion_tokens, and temperature is left out, where an LLM refuses them."""
    faults = [
        Fault(400, "Unsupported parameter: 'max_tokens' is not supported with this model.", "unsupported_parameter"),
        Fault(400, "Unsupported value: 'temperature' does not support 0.5 with this model.", "unsupported_value"),
    ]
    async with ScriptedTeacher(faults=faults) as server:
        session = open_teacher(server).session("run", Allowance())
        await session.ask(ask("a", temperature=0.5, max_tokens=77))
        await session.ask(ask("b", temperature=0.5, max_tokens=77))
        assert server.count["requests"] == 4
        for body in server.requests[2:]:
            assert body["max_completion_tokens"] == 77
            assert not {"max_tokens", "temperature"} & set(body)


async def test_the_schema_sent_is_one_that_strict_mode_takes(open_teacher):
    """Objects are closed and `strict` is set where every property is required."""
    async with ScriptedTeacher() as server:
        await open_teacher(server).session("run", Allowance()).ask(ask())
        spec = server.requests[0]["response_format"]["json_schema"]
        name, schema = schema_of(server.requests[0])
        assert (name, spec["strict"], schema["additionalProperties"]) == ("examples", True, False)
        assert json.dumps(EXAMPLES.schema).count("additionalProperties") == 0


async def _try(session, key: str) -> str:
    try:
        await session.ask(ask(key))
    except InvalidAnswer as error:
        return error.reason
    return ""
