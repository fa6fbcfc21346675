"""The LLM client never spends more than it may."""

from __future__ import annotations

import asyncio

import pytest

from services.kit.endpoint import Endpoint
from services.kit.errors import (
    BudgetExhausted,
    DiskFull,
    FailedPrecondition,
    Unauthenticated,
)
from services.kit.prices import price_of
from services.kit.values import Allowance
from tests.support.asking import ask
from tests.support.teacher import BUSY, HANG, OVERLOADED, Fault, ScriptedTeacher


@pytest.mark.parametrize("kind", ["requests", "tokens", "dollars"])
async def test_a_budget_of_nothing_asks_nothing(open_teacher, kind):
    """An allowance of 0 of any kind raises BudgetExhausted, says what to do, and no request is sent."""
    async with ScriptedTeacher() as server:
        session = open_teacher(server).session("run", Allowance(**{kind: 0}))
        with pytest.raises(BudgetExhausted, match=f"0 {kind}.*Raise the budget"):
            await session.ask(ask())
        assert server.count["requests"] == 0


async def test_the_requests_allowed_are_all_used_and_no_more(open_teacher):
    """Of 30 concurrent questions with 10 paid for, exactly 10 are answered."""
    async with ScriptedTeacher(latency=0.02) as server:
        session = open_teacher(server).session("run", Allowance(requests=10))
        results = await asyncio.gather(*(session.ask(ask(str(n))) for n in range(30)), return_exceptions=True)
        assert server.count["requests"] == 10
        assert sum(isinstance(result, BudgetExhausted) for result in results) == 20


@pytest.mark.parametrize("kind", ["tokens", "dollars"])
async def test_what_is_in_flight_counts_as_spent(open_teacher, tmp_path, kind):
    """Questions wait for others' reservations rather than overrun: spending ends within the limit and near it."""
    prices = tmp_path / "prices.json"
    prices.write_text('{"m": [1000, 1000]}')
    limit = {"tokens": 2000, "dollars": 2.0}[kind]
    async with ScriptedTeacher(latency=0.02) as server:
        session = open_teacher(server, llm="m", llm_prices=prices).session("run", Allowance(**{kind: limit}))
        results = await asyncio.gather(
            *(session.ask(ask(str(n), max_tokens=400)) for n in range(60)), return_exceptions=True
        )
        ledger = session.ledger
        spent = {"tokens": ledger.prompt_tokens + ledger.completion_tokens, "dollars": ledger.dollars}[kind]
        assert spent <= limit
        assert spent > limit * 0.7, "reservations that were too high are given back"
        assert {type(result) for result in results} == {dict, BudgetExhausted}


@pytest.mark.parametrize("overcharge", [1.0, 3.0, 6.0])
@pytest.mark.parametrize("kind", ["tokens", "dollars"])
async def test_a_server_that_counts_more_than_was_reserved(open_teacher, tmp_path, kind, overcharge):
    """With 16 in flight and answers that take up to thrice their reservation, it is overrun by one of them at most."""
    prices = tmp_path / "prices.json"
    prices.write_text('{"m": [1000, 1000]}')
    limit = {"tokens": 9_000, "dollars": 9.0}[kind]
    async with ScriptedTeacher(latency=0.15, overcharge=overcharge) as server:
        session = open_teacher(server, llm="m", llm_prices=prices).session("run", Allowance(**{kind: limit}))
        results = await asyncio.gather(
            *(session.ask(ask(str(n), max_tokens=60)) for n in range(300)), return_exceptions=True
        )
        assert server.peak_concurrency >= 16
        ledger = session.ledger
        spent = {"tokens": ledger.prompt_tokens + ledger.completion_tokens, "dollars": ledger.dollars}[kind]
        reserved = 130 * limit / 9_000  # 60 for the answer, 70 for the prompt; taken are 62 times the overcharge
        assert 0.8 * limit < spent <= limit + reserved
        assert {type(result) for result in results} == {dict, BudgetExhausted}


async def test_requests_with_faults_are_not_overrun(open_teacher):
    """With 24 in flight, some refused, some dropped, no more may have been paid for than are allowed."""
    dropped = Fault(hang_s=0.02)
    faults = [None, BUSY, dropped, OVERLOADED, None] * 12
    async with ScriptedTeacher(latency=0.03, faults=faults) as server:
        session = open_teacher(server, llm_patience_s=20, llm_concurrency=24).session("run", Allowance(requests=40))
        await asyncio.gather(*(session.ask(ask(str(n))) for n in range(80)), return_exceptions=True)
        drops = faults[: server.count["requests"]].count(dropped)
        assert drops > 0
        assert server.count["answered"] + drops == session.ledger.requests == 40


@pytest.mark.parametrize("kind", ["requests", "tokens", "dollars"])
async def test_what_was_let_go_counts_as_its_reservation(open_teacher, tmp_path, kind):
    """A server may charge for what it wrote for one who has left: as much is booked as it may have written."""
    prices = tmp_path / "prices.json"
    prices.write_text('{"m": [1000, 1000]}')
    async with ScriptedTeacher(latency=5.0) as server:
        allowance = Allowance(**{kind: {"requests": 16, "tokens": 16 * 500, "dollars": 8.0}[kind]})
        teacher = open_teacher(server, llm="m", llm_prices=prices, llm_timeout_s=30.0)
        session = teacher.session("run", allowance)
        asked = [asyncio.create_task(session.ask(ask(str(n), max_tokens=400))) for n in range(16)]
        while server.count["requests"] < (16 if kind == "requests" else 3):
            await asyncio.sleep(0.01)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert session.ledger.requests == server.count["requests"]
        assert session.ledger.completion_tokens == 400 * server.count["requests"]
        await teacher.close()
        again = open_teacher(server).session("run", Allowance())
        await again.replay()
        assert again.ledger.completion_tokens == session.ledger.completion_tokens


async def test_what_an_earlier_attempt_spent_counts(open_teacher):
    """A request resumed under the same allowance cannot spend it a second time; a raised one goes on."""
    async with ScriptedTeacher() as server:
        first = open_teacher(server).session("run", Allowance(requests=3))
        for key in "abc":
            await first.ask(ask(key))
        second = open_teacher(server).session("run", Allowance(requests=3))
        await second.ask(ask("a"))
        with pytest.raises(BudgetExhausted):
            await second.ask(ask("d"))
        await open_teacher(server).session("run", Allowance(requests=4)).ask(ask("d"))
        assert server.count["requests"] == 4


async def test_a_lost_answer_is_booked_as_paid(open_teacher):
    """A server may charge for an answer that timed out: what was reserved for it stays in the ledger."""
    async with ScriptedTeacher(faults=[None, HANG, None]) as server:
        session = open_teacher(server, llm_timeout_s=0.5).session("run", Allowance())
        await session.ask(ask("a"))
        await session.ask(ask("b"))
        assert session.ledger.requests == 3
        again = open_teacher(server).session("run", Allowance())
        await again.replay()
        assert again.ledger.requests == 3


async def test_what_a_kill_leaves_under_way_is_booked(open_teacher):
    """A process that is gone while three are under way has spent them: the next one's allowance is short of them."""
    async with ScriptedTeacher(latency=30.0) as server:
        session = open_teacher(server).session("run", Allowance(requests=5))
        under_way = [asyncio.create_task(session.ask(ask(key, max_tokens=50))) for key in "abc"]
        while server.count["requests"] < 3:
            await asyncio.sleep(0.01)
        # What is stored at this moment is all that another process would find.
        async with ScriptedTeacher() as well:
            after = open_teacher(well).session("run", Allowance(requests=5))
            await after.replay()
            booked = after.ledger
            assert (booked.requests, booked.completion_tokens) == (3, 150)
            await after.ask(ask("a"))
            await after.ask(ask("b"))
            with pytest.raises(BudgetExhausted):
                await after.ask(ask("c"))
            assert well.count["requests"] == 2
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


@pytest.mark.parametrize("fault", [BUSY, OVERLOADED], ids=["busy", "overloaded"])
async def test_what_was_refused_is_not_booked(open_teacher, fault):
    """A request that the server turned away costs nothing, also for who reads the journal afterwards."""
    async with ScriptedTeacher(faults=[None, fault, None]) as server:
        teacher = open_teacher(server)
        session = teacher.session("run", Allowance())
        await session.ask(ask("a"))
        await session.ask(ask("b"))
        await teacher.close()
        again = open_teacher(server).session("run", Allowance())
        await again.replay()
        assert server.count["requests"] == 3
        assert again.ledger.requests == session.ledger.requests == 2
        assert again.ledger.completion_tokens == session.ledger.completion_tokens


@pytest.mark.parametrize(("error", "spent"), [(RuntimeError("a bug"), 1), (Unauthenticated("WRONG_KEY", "no"), 0)])
async def test_what_ends_in_an_unforeseen_way_stays_booked(open_teacher, monkeypatch, error, spent):
    """An error that nobody foresaw says nothing of what was charged; a server that refuses the key charges nothing."""
    async with ScriptedTeacher() as server:
        teacher = open_teacher(server)
        session = teacher.session("run", Allowance())

        async def fail(self, question):
            raise error

        monkeypatch.setattr(Endpoint, "send", fail)
        with pytest.raises(type(error)):
            await session.ask(ask("a"))
        await teacher.close()
        again = open_teacher(server).session("run", Allowance())
        await again.replay()
        assert again.ledger.requests == session.ledger.requests == spent


async def test_nothing_is_sent_that_cannot_be_booked(open_teacher, monkeypatch):
    """On a full disk no request is sent: its answer would be paid for, and lost."""
    async with ScriptedTeacher() as server:
        teacher = open_teacher(server)
        session = teacher.session("run", Allowance())
        await session.ask(ask("a"))

        def full(key: str, data: bytes) -> None:
            raise DiskFull("no room")

        monkeypatch.setattr(teacher._artifacts.store, "put", full)
        with pytest.raises(DiskFull):
            await session.ask(ask("b"))
        assert server.count["requests"] == 1
        assert session.ledger.requests == 1


def test_prices(settings, tmp_path):
    """Loopback is free, dated names have their family's price, the user's own come first, the unknown is dear."""
    prices = tmp_path / "prices.json"
    prices.write_text('{"mine": [1, 2]}')
    own = settings.model_copy(update={"llm_prices": prices})
    openai = "https://api.openai.com/v1"
    assert price_of("anything", "http://127.0.0.1:8000/v1", settings).dollars(10**6, 10**6) == 0
    assert price_of("gpt-4o-mini", openai, settings) == price_of("gpt-4o-mini-2024-07-18", openai, settings)
    assert price_of("gpt-4o-mini", openai, settings).dollars(10**6, 0) == 0.15
    assert price_of("mine", "http://localhost/v1", own).dollars(10**6, 10**6) == 3
    unknown = price_of("new-llm", "https://llm.example/v1", settings)
    assert unknown.prompt >= 10
    assert "P2M_LLM_PRICES" in unknown.note
    prices.write_text("[]")
    with pytest.raises(FailedPrecondition, match="price table"):
        price_of("mine", openai, own)
