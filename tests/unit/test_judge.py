"""The LLM looks over what it wrote."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from services.generator.generate import Generated, GenerateRequest, StopReason
from services.generator.judge import judged
from services.kit.artifacts import Artifacts
from services.kit.errors import Unauthenticated
from services.kit.llm import Session, Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, PromptSpec
from tests.support.teacher import WRONG_KEY, ScriptedTeacher, schema_of, toy_answer, toy_example

SPEC = PromptSpec(
    "Name the colour among the words.", (Demonstration("lamp red door", "red"), Demonstration("blue cat sat", "blue"))
)
REQUEST = GenerateRequest("run/generate", Allowance(), SPEC, 30, judge=True)


def _examples(body: dict[str, Any], rng: random.Random) -> Any:
    """As many as are wanted; the output of one in three is no colour."""
    wanted = schema_of(body)[1]["properties"]["examples"]["maxItems"]
    made = [toy_example(rng) for _ in range(wanted)]
    return {"examples": [one | {"output": "lamp"} if rng.random() < 0.33 else one for one in made]}


def _scores(body: dict[str, Any], _rng: random.Random) -> Any:
    """5 for the colour, 1 for what is none."""
    found = re.findall(r"^(\d+)\. (\{.*\})$", body["messages"][-1]["content"], re.MULTILINE)
    shown = [(int(number), json.loads(line)) for number, line in found]
    return {
        "scores": [
            {"number": number, "score": 5 if one["output"] == toy_answer(one["input"]) else 1} for number, one in shown
        ]
    }


@asynccontextmanager
async def _session(settings: Settings, url: str, allowance: Allowance) -> AsyncIterator[Session]:
    own = settings.model_copy(update={"openai_base_url": url})
    teacher = Teacher(own, Artifacts.open(own, "generator"))
    try:
        yield teacher.session(REQUEST.request_id, allowance)
    finally:
        await teacher.close()


async def _judged(settings: Settings, teacher: ScriptedTeacher, request: GenerateRequest = REQUEST) -> Generated:
    async with _session(settings, teacher.url, request.allowance) as session:
        return await judged(request, session, "scripted", (), settings)


async def test_what_is_held_to_be_wrong_is_replaced(settings: Settings) -> None:
    """Rows of a low score are left out, counted as judged, and others generated until there are as many as wanted;
    what each thing cost adds up to what was spent."""
    async with ScriptedTeacher({"examples": _examples, "scores": _scores}) as teacher:
        made = await _judged(settings, teacher)
        assert teacher.by_schema["scores"] >= 3
    assert (len(made.rows), made.stop_reason) == (30, StopReason.NUMBER)
    assert all(row.output == toy_answer(row.input) for row in made.rows)
    assert made.dropped["judged"] >= 5
    assert made.ledger.requests == pytest.approx(sum(one.requests for one in made.outcomes))
    assert next(one for one in made.outcomes if one.name == "judging").requests == teacher.by_schema["scores"]
    assert f"held {made.dropped['judged']} to be wrong" in made.notes[-1]


async def test_no_score_is_paid_twice(settings: Settings) -> None:
    """The same request again, as after a crash, asks for no example and no score, and gives the same rows."""
    async with ScriptedTeacher({"examples": _examples, "scores": _scores}) as teacher:
        first = await _judged(settings, teacher)
        asked = teacher.count["requests"]
        again = await _judged(settings, teacher)
        assert teacher.count["requests"] == asked
    assert again.rows == first.rows
    assert again.dropped["judged"] == first.dropped["judged"]


@pytest.mark.parametrize("answer", ["I would rather not.", {"scores": [{"number": 99, "score": 1}]}])
async def test_what_is_not_scored_stays(settings: Settings, answer: Any) -> None:
    """An answer that cannot be read, or that leaves rows out, drops none of them."""
    async with ScriptedTeacher({"scores": answer}) as teacher:
        made = await _judged(settings, teacher)
    assert (len(made.rows), made.stop_reason) == (30, StopReason.NUMBER)
    assert "judged" not in made.dropped


async def test_a_spent_allowance_ends_the_judging(settings: Settings) -> None:
    """Where the allowance ends amid the judging, rows that were not scored stay, and the result says so."""
    # One request at a time: how many there are then depends on the answers alone.
    settings = settings.model_copy(update={"llm_concurrency": 1})
    async with ScriptedTeacher({"examples": _examples, "scores": _scores}) as teacher:
        whole = await _judged(settings, teacher)
        spent = whole.ledger.requests
    few = replace(REQUEST, allowance=Allowance(requests=spent // 2), request_id="run/few")
    async with ScriptedTeacher({"examples": _examples, "scores": _scores}) as teacher:
        own = settings.model_copy(update={"home": settings.home_folder / "other", "store": ""})
        made = await _judged(own, teacher, few)
        assert teacher.count["requests"] <= spent // 2
    assert made.stop_reason == StopReason.BUDGET
    assert made.rows


async def test_no_judging_without_a_key(settings: Settings) -> None:
    """What stops the LLM's server from answering stops the request with its own error."""
    async with ScriptedTeacher({"examples": _examples}) as teacher:
        async with _session(settings, teacher.url, REQUEST.allowance) as session:
            request = replace(REQUEST, number=3)
            teacher.always = None
            await judged(replace(request, judge=True), session, "scripted", (), settings)
        teacher.always = WRONG_KEY
        with pytest.raises(Unauthenticated):
            await _judged(settings, teacher)
