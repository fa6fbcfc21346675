"""Generation by batches, against a server on loopback that speaks their protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.generator.generate import Generated, GenerateRequest, StopReason, generate
from services.kit.artifacts import Artifacts
from services.kit.errors import Unauthenticated
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, Ledger, Prefer, Progress, PromptSpec
from tests.support.batch_server import BatchServer, word
from tests.support.teacher import NONSENSE, WRONG_KEY, schema_of

SPEC = PromptSpec("Name the colour among the words.", (Demonstration("lamp red door", "red"),))
REQUEST = GenerateRequest("run/generate", Allowance(), SPEC, 60, prefer=Prefer.COST)
BY_TIME = replace(REQUEST, prefer=Prefer.TIME)


@pytest.fixture
def priced(settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a price for the LLM, and with batches that are looked at often."""
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"gpt-4o-mini": [1.0, 4.0]}))
    return settings.model_copy(update={"llm_prices": prices, "llm_batch_look_s": 0.01, "llm_patience_s": 0.05})


def _server(**options: Any) -> BatchServer:
    """Every example that it gives is another."""
    count = itertools.count()

    def examples(body: dict[str, Any], _: random.Random) -> Any:
        wanted = schema_of(body)[1]["properties"]["examples"]["maxItems"]
        return {"examples": [{"input": f"item {word(next(count))}", "output": "x"} for _ in range(wanted)]}

    return BatchServer({"examples": examples}, **options)


async def _made(
    settings: Settings,
    server: BatchServer,
    request: GenerateRequest = REQUEST,
    report: Callable[[Progress], None] = lambda _: None,
) -> Generated:
    own = settings.model_copy(update={"openai_base_url": server.url})
    teacher = Teacher(own, Artifacts.open(own, "generator"))
    try:
        return await generate(request, teacher.session(request.request_id, request.allowance), "it", (), own, report)
    finally:
        await teacher.close()


def _charged(server: BatchServer) -> int:
    return len(server.served) + server.count["answered"]


async def test_half_the_price(priced: Settings) -> None:
    """By batches the same number costs half: one request in the usual way, then a few waves, each an example's seed."""
    said: list[str] = []
    async with _server() as server:
        made = await _made(priced, server, report=lambda progress: said.append(progress.message))
        assert made.ledger.requests == _charged(server)
        assert server.count["answered"] == 1
        assert 2 <= len(server.batches) <= 3
        later = list(server.batches.values())[1].requests
    assert (made.stop_reason, len(made.rows), made.notes) == (StopReason.NUMBER, 60, ())
    assert made.batched == made.ledger.requests - 1
    assert any("These were written already" in line["body"]["messages"][1]["content"] for line in later)
    assert any("batch 1: in progress" in text for text in said)
    full = (made.ledger.prompt_tokens * 1.0 + made.ledger.completion_tokens * 4.0) / 1e6
    assert 0.5 * full < made.ledger.dollars < 0.6 * full


async def test_the_user_s_own_batch_price(priced: Settings) -> None:
    """Two more numbers in the table are the prices by batch."""
    assert priced.llm_prices
    priced.llm_prices.write_text(json.dumps({"gpt-4o-mini": [1.0, 1.0, 0.0, 0.0]}))
    async with _server() as server:
        made = await _made(priced, server)
        pilot = made.ledger.dollars * 1e6
    assert 0 < pilot < 0.2 * (made.ledger.prompt_tokens + made.ledger.completion_tokens)


@pytest.mark.parametrize("end", ["expired", "cancelled", "failed"])
async def test_what_a_batch_leaves_out_is_asked_again(priced: Settings, end: str) -> None:
    """A batch that expired, was cancelled or failed is completed by what is missing, and a note says so."""
    async with _server(ends=[end]) as server:
        made = await _made(priced, server)
        assert made.ledger.requests == _charged(server)
        assert len(server.served) == len(set(server.served))
    assert (made.stop_reason, len(made.rows)) == (StopReason.NUMBER, 60)
    assert len(made.notes) == 1 and end in made.notes[0]


async def test_requests_that_fail_within_a_batch(priced: Settings) -> None:
    """Requests that end in the error file cost nothing and are asked again in the next wave."""
    async with _server(error_share=0.4) as server:
        made = await _made(priced, server)
        assert made.ledger.requests == _charged(server)
    assert len(made.rows) == 60
    assert any("The server had an error" in note for note in made.notes)


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_batches(priced: Settings, status: int) -> None:
    """It is asked in the usual way, at the usual price, and a note says so."""
    async with _server(takes_batches=False, refusal=status) as server:
        made = await _made(priced, server)
        assert server.calls == []
    assert (made.stop_reason, len(made.rows), made.batched) == (StopReason.NUMBER, 60, 0)
    assert len(made.notes) == 1 and f"takes no batches ({status})" in made.notes[0]


async def test_batches_that_bring_nothing(priced: Settings) -> None:
    """After two in a row that failed the usual way is taken, and the wave between was half as large."""
    async with _server(ends=["failed"] * 5) as server:
        made = await _made(priced, server)
        sizes = [len(batch.requests) for batch in server.batches.values()]
    assert len(made.rows) == 60
    assert len(sizes) == 2 and sizes[1] <= sizes[0] // 2 + 1
    assert "usual way" in made.notes[-1]


async def test_the_whole_wave_is_reserved(priced: Settings) -> None:
    """A wave holds no more than the allowance pays for at the dearest; the budget is never passed."""
    tokens = replace(REQUEST, allowance=Allowance(tokens=12_000), number=600)
    requests = replace(REQUEST, request_id="run/other", allowance=Allowance(requests=7), number=600)
    async with _server() as server:
        made = await _made(priced, server, tokens)
        assert made.stop_reason == StopReason.BUDGET
        assert 6_000 < made.ledger.prompt_tokens + made.ledger.completion_tokens <= 12_000
        before = _charged(server)
        made = await _made(priced, server, requests)
        assert (made.stop_reason, made.ledger.requests, _charged(server) - before) == (StopReason.BUDGET, 7, 7)


async def test_a_server_that_counts_more_than_was_foreseen(priced: Settings) -> None:
    """The pilot tells by how much, and the waves are made the smaller: the budget holds."""
    request = replace(REQUEST, allowance=Allowance(tokens=60_000), number=600)
    async with _server(overcharge=8.0) as server:
        made = await _made(priced, server, request)
        assert made.ledger.requests == _charged(server)
    assert made.stop_reason == StopReason.BUDGET
    assert 20_000 < made.ledger.prompt_tokens + made.ledger.completion_tokens <= 60_000


async def test_no_budget(priced: Settings) -> None:
    """With an allowance of nothing nothing is asked, by batch neither."""
    async with _server() as server:
        made = await _made(priced, server, replace(REQUEST, allowance=Allowance(dollars=0.0)))
        assert _charged(server) == len(server.batches) == 0
    assert (made.stop_reason, made.rows) == (StopReason.BUDGET, ())


async def test_a_wrong_key_shows_at_once(priced: Settings) -> None:
    """The first request goes in the usual way: what is wrong for good shows before a batch is handed in."""
    async with _server(always=WRONG_KEY) as server:
        with pytest.raises(Unauthenticated):
            await _made(priced, server)
        assert server.calls == []


async def test_repeats_and_nonsense_are_topped_up(priced: Settings) -> None:
    """Duplicates and answers that cannot be read are made up for by further waves; the outcomes add up."""
    numbers = itertools.count()

    def examples(body: dict[str, Any], rng: random.Random) -> Any:
        if next(numbers) % 5 == 4:
            return "no list"
        wanted = schema_of(body)[1]["properties"]["examples"]["maxItems"]
        return {"examples": [{"input": f"item {word(rng.randrange(900))}", "output": "x"} for _ in range(wanted)]}

    async with BatchServer({"examples": examples}, faults=[NONSENSE]) as server:
        made = await _made(priced, server, replace(REQUEST, number=300))
        assert len(server.batches) <= 5
    assert (made.stop_reason, len(made.rows)) == (StopReason.NUMBER, 300)
    names = {one.name: one for one in made.outcomes}
    assert {"kept", "duplicate", "invalid", "planning"} <= names.keys()
    assert (names["kept"].examples, names["duplicate"].examples) == (300, made.dropped["duplicate"])
    _adds_up(made)


def _adds_up(made: Generated) -> None:
    for name in ("requests", "prompt_tokens", "completion_tokens", "dollars"):
        assert sum(getattr(one, name) for one in made.outcomes) == pytest.approx(getattr(made.ledger, name))


async def test_a_cancel_cancels_the_batch(priced: Settings) -> None:
    """Cancelled while a batch is under way, it cancels that; later it takes what was answered and asks for the rest."""
    async with _server(slow=True) as server:
        under_way = asyncio.Event()
        job = asyncio.create_task(
            _made(priced, server, report=lambda p: under_way.set() if "in progress" in p.message else None)
        )
        await asyncio.wait_for(under_way.wait(), 10)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        [batch] = server.batches.values()
        assert batch.status == "cancelling"
        server.slow = False
        made = await _made(priced, server)
        assert made.ledger.requests == _charged(server)
        assert len(server.served) == len(set(server.served))
        assert batch.served > 0
    assert len(made.rows) == 60


async def test_a_batch_that_is_no_longer_wanted(priced: Settings) -> None:
    """Who prefers time now has the batch of before cancelled, its answers taken, and the rest asked for at once."""
    async with _server(slow=True) as server:
        await _cut_off(priced, server)
        made = await _made(priced, server, BY_TIME)
        [batch] = server.batches.values()
        assert batch.status == "cancelled"
        assert made.batched == batch.served > 0
        assert made.ledger.requests == _charged(server)
    assert len(made.rows) == 60


async def test_an_export_leaves_a_batch_alone(priced: Settings) -> None:
    """With an allowance of no requests what is stored is given and nobody is called."""
    async with _server(slow=True) as server:
        await _cut_off(priced, server)
        asked, calls = server.count["requests"], len(server.calls)
        made = await _made(priced, server, replace(REQUEST, allowance=Allowance(requests=0)))
        assert (server.count["requests"], len(server.calls)) == (asked, calls)
    assert len(made.rows) == 5


async def test_without_a_list_a_batch_of_unknown_id_is_booked_as_lost(priced: Settings) -> None:
    """Where the server cannot list its batches, one that may have been handed in counts against the budget."""
    async with _server(lists=False) as server:

        async def die(when: str, call: str) -> None:
            if (when, call) == ("after", "POST batches"):
                raise ConnectionResetError

        server.watch = die
        impatient = priced.model_copy(update={"llm_patience_s": 0.001})
        with pytest.raises(Exception, match="batch endpoint"):
            await _made(impatient, server)
        server.watch = None
        made = await _made(priced, server)
        lost = next(one for one in made.outcomes if one.name == "lost")
        first = next(iter(server.batches.values()))
    assert lost.requests == len(first.requests)
    assert made.ledger.requests == _charged(server) + len(first.requests)
    _adds_up(made)
    assert Ledger() != made.ledger


async def _cut_off(settings: Settings, server: BatchServer) -> None:
    """A job that ends while its first batch is in progress, without a chance to cancel it."""
    under_way = asyncio.Event()
    job = asyncio.create_task(
        _made(settings, server, report=lambda p: under_way.set() if "in progress" in p.message else None)
    )
    await asyncio.wait_for(under_way.wait(), 10)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    for batch in server.batches.values():
        batch.status = "in_progress"  # as if the cancel had not come
