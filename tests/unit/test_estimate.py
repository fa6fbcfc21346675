"""Whether the estimate is honest: what the stages really ask of a scripted LLM lies between low and high."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from orchestrator import estimate
from orchestrator.commands import Job
from services.evaluator import teacher as contestant
from services.generator.generate import GenerateRequest, generate
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition
from services.kit.llm import Session, Teacher
from services.kit.prices import Price, price_of
from services.kit.settings import Settings
from services.kit.values import Allowance, Ledger, Prefer, PromptSpec
from services.model_retriever.hypothetical import hypothetical_card
from services.parser.parse import parse
from tests.conftest import ROOT
from tests.support.batch_server import BatchServer, word
from tests.support.teacher import TOY_PROMPT, schema_of

DATES = (ROOT / "examples" / "normalise-dates" / "prompt.txt").read_text()
_PARAGRAPH = "The river rises in the hills, passes two towns and an old mill, and ends in a lake that few people know. "
_WORDS = _PARAGRAPH.split()
LONG = "Answer the question from the text.\n\n" + "\n\n".join(
    f'input="{_PARAGRAPH * 6}Where does river {n} end?"\noutput="in lake {n}"' for n in range(3)
)
TEACHER_ROWS = 40


def _settings(settings: Settings, url: str, folder: Path) -> Settings:
    prices = folder / "prices.json"
    prices.write_text(json.dumps({"gpt-4o-mini": [1.0, 4.0]}))
    return settings.model_copy(update={"openai_base_url": url, "llm_prices": prices, "llm_batch_look_s": 0.01})


def _server(length: int, repeated: float) -> BatchServer:
    """Examples of `length` words, a share of them repeated."""
    numbers = itertools.count()

    def examples(body: dict[str, Any], _: random.Random) -> Any:
        found = []
        for _place in range(schema_of(body)[1]["properties"]["examples"]["maxItems"]):
            number = next(numbers)
            rng = random.Random(number)
            place = rng.randrange(number) if number and rng.random() < repeated else number
            rng = random.Random(place)
            words = " ".join(
                rng.choice(_WORDS) if rng.random() < 0.5 else word(rng.randrange(8000)) for _ in range(length)
            )
            found.append({"input": words, "output": "green" if length < 10 else "in a lake"})
        return {"examples": found}

    return BatchServer({"examples": examples})


async def _spent(settings: Settings, prompt: str, number: int, prefer: Prefer) -> dict[str, Ledger]:
    """What each stage asks for really."""
    teacher = Teacher(settings, Artifacts.open(settings, "generator"))
    found: dict[str, Ledger] = {}

    async def stage(name: str, work: Callable[[Session], Awaitable[Any]]) -> Any:
        session = teacher.session(f"run/{name}", Allowance())
        result = await work(session)
        found[name] = session.ledger
        return result

    try:
        parsed = await stage("parse", lambda session: parse(prompt, session, settings))
        spec: PromptSpec = parsed.spec
        request = GenerateRequest("run/generate", Allowance(), spec, number, prefer=prefer)
        await stage("generate", lambda session: generate(request, session, "it", (), settings))
        await stage("models", lambda session: hypothetical_card(spec, session))
        inputs = [spec.demonstrations[0].input] * TEACHER_ROWS
        await stage("evaluate", lambda session: contestant.answer(session, spec, inputs, 8))
    finally:
        await teacher.close()
    return found


@pytest.mark.parametrize("prefer", [Prefer.TIME, Prefer.COST])
@pytest.mark.parametrize(
    ("prompt", "number", "repeated"),
    [(TOY_PROMPT, 40, 0.0), (DATES, 300, 0.3), (LONG, 200, 0.1), (TOY_PROMPT, 1500, 0.2)],
    ids=["short", "dates", "long", "many"],
)
async def test_what_is_spent_lies_between_low_and_high(
    settings: Settings, tmp_path: Path, prompt: str, number: int, repeated: float, prefer: Prefer
) -> None:
    """Requests, tokens and dollars of each stage, by the user's own prices, in the usual way and by batches."""
    async with _server(130 if prompt is LONG else 7, repeated) as server:
        own = _settings(settings, server.url, tmp_path)
        spent = await _spent(own, prompt, number, prefer)
    options = run_pb2.RunOptions(
        number=number, teacher_rows=TEACHER_ROWS, skip_datasets=True, prefer=common_pb2.Prefer.ValueType(prefer)
    )
    costs = estimate.estimate(Job(prompt, options))
    price = price_of(own.llm, own.openai_base_url, own)
    assert costs.keys() == spent.keys()
    for name, ledger in spent.items():
        low, high = costs[name]["low"], costs[name]["high"]
        assert low.requests <= ledger.requests <= high.requests, name
        tokens = ledger.prompt_tokens + ledger.completion_tokens
        assert _tokens(low) <= tokens <= _tokens(high), name
        dollars = [estimate._dollars(name, cost, price, prefer == Prefer.COST) for cost in (low, high)]
        assert dollars[0] <= ledger.dollars <= dollars[1], name


def _tokens(cost: estimate.Cost) -> int:
    return cost.prompt_tokens + cost.completion_tokens


def test_both_ways_are_told(settings: Settings) -> None:
    """A batch price of the user's own counts for generation alone."""
    price = Price(1.0, 4.0, batch=(0.1, 0.4))
    cost = estimate.Cost(1, 1_000_000, 1_000_000)
    assert [estimate._dollars("generate", cost, price, by_cost) for by_cost in (False, True)] == [5.0, 0.5]
    assert [estimate._dollars("parse", cost, price, by_cost) for by_cost in (False, True)] == [5.0, 5.0]
    assert Price(1.0, 4.0).by_batch == Price(0.5, 2.0)


@pytest.mark.parametrize("table", ["[]", '{"m": [1]}', '{"m": [1, 2, 3]}', '{"m": [1, -2]}', '{"m": ["x", 1]}', "{"])
def test_a_price_table_that_is_none(settings: Settings, tmp_path: Path, table: str) -> None:
    """It is refused, with what is wanted."""
    path = tmp_path / "prices.json"
    path.write_text(table)
    with pytest.raises(FailedPrecondition) as caught:
        price_of("m", "", settings.model_copy(update={"llm_prices": path}))
    assert caught.value.reason == "BAD_PRICES"
