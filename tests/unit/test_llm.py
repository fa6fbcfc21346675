"""The LLM client, against a scripted server: pays for nothing twice, never more than it may, and says what is wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from services.kit.errors import (
    BudgetExhausted,
    DiskFull,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from services.kit.llm import Ask, InvalidAnswer, Schema, Teacher
from services.kit.prices import price_of
from services.kit.values import Allowance, Ledger
from tests.support.teacher import BUSY, EMPTY, HANG, NONSENSE, OVERLOADED, WRONG_KEY, Fault, ScriptedTeacher, schema_of

KEY = "sk-very-secret-0123456789"
PAIR = {
    "type": "object",
    "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
    "required": ["input", "output"],
}
EXAMPLES = Schema(
    "examples",
    {
        "type": "object",
        "properties": {"examples": {"type": "array", "items": PAIR, "maxItems": 3}},
        "required": ["examples"],
    },
)
ANSWER = Schema("answer", {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]})


def ask(key: str = "a", schema: Schema = EXAMPLES, text: str = "Make some.", **rest) -> Ask:
    return Ask(key, ({"role": "user", "content": f"{text} ({key})"},), schema, **rest)


@pytest.fixture
async def open_teacher(settings, artifacts):
    """f(server or url, **settings) -> Teacher, with little patience; all are closed at the end."""
    opened = []

    def open_(server, **changes):
        url = server if isinstance(server, str) else server.url
        changes = {"openai_base_url": url, "llm_patience_s": 2.0, "llm_timeout_s": 5.0} | changes
        teacher = Teacher.from_settings(settings.model_copy(update=changes), artifacts)
        opened.append(teacher)
        return teacher

    yield open_
    for teacher in opened:
        await teacher.close()


# -- answers


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


# -- paid once


async def test_a_stored_answer_is_not_asked_for_again(open_teacher):
    """Another attempt gets the same values without a request; what they cost is still told."""
    async with ScriptedTeacher() as server:
        first = open_teacher(server).session("run/generate", Allowance())
        values = [await first.ask(ask(key)) for key in "abc"]
        second = open_teacher(server).session("run/generate", Allowance())
        assert list((await second.replay()).values()) == values
        assert [await second.ask(ask(key)) for key in "abc"] == values
        assert server.count["requests"] == 3
        assert second.ledger.replayed == 3
        assert (second.ledger.requests, second.ledger.completion_tokens) == (3, first.ledger.completion_tokens)
        other = open_teacher(server).session("run/evaluate", Allowance())
        await other.ask(ask("a"))
        assert server.count["requests"] == 4, "another request's answers are its own"


async def test_an_invalid_answer_is_paid_for_once(open_teacher):
    """Nonsense costs one answer: it raises InvalidAnswer, is counted, and is not paid for again."""
    async with ScriptedTeacher(faults=[None, NONSENSE, EMPTY, None]) as server:
        session = open_teacher(server).session("run", Allowance())
        await session.ask(ask("a"))
        for key, said in (("b", "no JSON"), ("c", "empty")):
            with pytest.raises(InvalidAnswer, match=said):
                await session.ask(ask(key))
        await session.ask(ask("d"))
        again = open_teacher(server).session("run", Allowance())
        with pytest.raises(InvalidAnswer, match="no JSON"):
            await again.ask(ask("b"))
        assert server.count["requests"] == 4
        assert (session.ledger.invalid, again.ledger.invalid, again.ledger.requests) == (2, 2, 4)
        assert set(await again.replay()) == {"a", "d"}


_KILLED = """
import asyncio, sys
from services.kit.artifacts import Artifacts
from services.kit.llm import Ask, Schema, Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance

async def main(home, url):
    settings = Settings(home=home, openai_base_url=url, openai_api_key="", llm_concurrency=16)
    session = Teacher.from_settings(settings, Artifacts.open(settings, "tests")).session("run", Allowance())
    schema = Schema("answer", {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]})

    async def one(n):
        await session.ask(Ask(str(n), ({"role": "user", "content": str(n)},), schema))
        print(n, flush=True)

    await asyncio.gather(*(one(n) for n in range(60)))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_9_loses_only_what_was_in_flight(settings, open_teacher):
    """Every answer that a killed process had used is there for the next; only those in flight are asked again."""
    async with ScriptedTeacher(latency=0.05) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _KILLED, str(settings.home), server.url, stdout=subprocess.PIPE
        )
        used = [int(await process.stdout.readline()) for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
        used += [int(line) for line in (await process.stdout.read()).split()]
        await process.wait()
        asked = server.count["requests"]
        session = open_teacher(server).session("run", Allowance())
        assert set(map(str, used)) <= set(await session.replay())
        await asyncio.gather(*(session.ask(ask(str(n), ANSWER)) for n in range(60)))
        assert asked < 60
        assert server.count["requests"] <= 60 + 16, "at most those in flight are asked for twice"


async def test_an_answer_that_cannot_be_stored_is_not_used(open_teacher, artifacts, monkeypatch):
    """On a full disk `ask` raises DiskFull instead of handing out an answer that a crash would lose."""

    def full(key: str, data: bytes) -> None:
        raise DiskFull("no room")

    async with ScriptedTeacher() as server:
        session = open_teacher(server).session("run", Allowance())
        monkeypatch.setattr(artifacts.store, "put", full)
        with pytest.raises(DiskFull):
            await session.ask(ask())


# -- the budget


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
    """A server may charge for an answer that timed out: its request and prompt stay in the ledger."""
    async with ScriptedTeacher(faults=[None, HANG, None]) as server:
        session = open_teacher(server, llm_timeout_s=0.5).session("run", Allowance())
        await session.ask(ask("a"))
        await session.ask(ask("b"))
        assert session.ledger.requests == 3
        again = open_teacher(server).session("run", Allowance())
        await again.replay()
        assert again.ledger.requests == 3


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


# -- what goes wrong


async def test_a_wrong_key_is_said_and_never_shown(open_teacher, caplog):
    """401: WRONG_KEY at once, with what to do; the key is in no message and no log, though the server repeats it."""
    caplog.set_level(logging.DEBUG)
    fault = Fault(401, f"Incorrect API key provided: {KEY}", "invalid_api_key")
    async with ScriptedTeacher(always=fault) as server:
        session = open_teacher(server, openai_api_key=_secret(KEY)).session("run", Allowance())
        with pytest.raises(Unauthenticated, match="OPENAI_API_KEY") as caught:
            await session.ask(ask())
        assert caught.value.reason == "WRONG_KEY"
        assert server.count["requests"] == 1
        assert KEY not in str(caught.value) + caplog.text
        assert session.ledger.requests == 0


async def test_a_key_in_another_error_is_masked(open_teacher, caplog):
    """Whatever a server says back, the key in it is replaced."""
    async with ScriptedTeacher(always=Fault(404, f"no model for {KEY}")) as server:
        session = open_teacher(server, openai_api_key=_secret(KEY)).session("run", Allowance())
        with pytest.raises(NotFound) as caught:
            await session.ask(ask())
        assert KEY not in str(caught.value) + caplog.text
        assert caught.value.reason == "LLM_UNKNOWN"


async def test_no_key_where_one_is_wanted(open_teacher):
    """A 401 with no key set asks for one rather than calling it wrong."""
    async with ScriptedTeacher(always=WRONG_KEY) as server:
        with pytest.raises(Unauthenticated, match="none is set"):
            await open_teacher(server).session("run", Allowance()).ask(ask())


async def test_nobody_at_the_address(open_teacher):
    """A refused connection is LLM_UNREACHABLE within 5 s, and names the URL, without the password in it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    with pytest.raises(Unavailable, match=f"http://127.0.0.1:{port}/v1") as caught:
        await open_teacher(f"http://me:hidden@127.0.0.1:{port}/v1").session("run", Allowance()).ask(ask())
    assert time.monotonic() - began < 5
    assert caught.value.reason == "LLM_UNREACHABLE"
    assert "hidden" not in str(caught.value)


async def test_a_server_that_answers_nothing(open_teacher):
    """Silence ends after P2M_LLM_TIMEOUT_S, tried twice, as LLM_TIMEOUT."""
    async with ScriptedTeacher(always=HANG) as server:
        with pytest.raises(Unavailable, match=r"within 0\.3 s") as caught:
            await open_teacher(server, llm_timeout_s=0.3).session("run", Allowance()).ask(ask())
        assert caught.value.reason == "LLM_TIMEOUT"
        assert server.count["requests"] == 2


async def test_a_server_that_speaks_another_protocol(open_teacher):
    """A 200 that is no chat completion is not taken for an answer."""
    other = Fault(200, "welcome")
    async with ScriptedTeacher(always=other) as server:
        with pytest.raises(Unavailable, match="OPENAI_BASE_URL") as caught:
            await open_teacher(server, llm_patience_s=0.5).session("run", Allowance()).ask(ask())
        assert caught.value.reason == "LLM_PROTOCOL"


async def test_no_credit_is_not_waited_for(open_teacher):
    """429 insufficient_quota will not pass by waiting: it fails at once."""
    async with ScriptedTeacher(always=Fault(429, "You exceeded your quota", "insufficient_quota")) as server:
        with pytest.raises(FailedPrecondition, match="credit") as caught:
            await open_teacher(server).session("run", Allowance()).ask(ask())
        assert (caught.value.reason, server.count["requests"]) == ("LLM_QUOTA", 1)


@pytest.mark.parametrize("where", ["server", "settings"])
async def test_a_prompt_that_is_too_long(open_teacher, where):
    """A context overflow is the prompt's fault: InvalidArgument, whether the server or the setting says so."""
    fault = Fault(400, "This model's maximum context length is 4096 tokens.", "context_length_exceeded")
    async with ScriptedTeacher(always=fault) as server:
        session = open_teacher(server, llm_context_tokens=1000).session("run", Allowance())
        with pytest.raises(InvalidArgument) as caught:
            await session.ask(ask(text="short" if where == "server" else "long " * 1000))
        assert caught.value.reason == "CONTEXT_OVERFLOW"
        assert server.count["requests"] == (where == "server")


async def test_faults_that_pass_are_survived(open_teacher):
    """429, 503 and dropped connections are tried again; every question is answered, none is asked twice for a 200."""
    dropped = Fault(hang_s=0.01)
    async with ScriptedTeacher(faults=[BUSY, OVERLOADED, None, dropped, BUSY, None, OVERLOADED]) as server:
        session = open_teacher(server, llm_patience_s=20).session("run", Allowance())
        values = await asyncio.gather(*(session.ask(ask(str(n))) for n in range(8)))
        assert len(values) == 8
        assert server.count["answered"] == 8
        assert session.ledger.requests == 9, "the dropped one may have been paid for"


@pytest.mark.parametrize(("fault", "reason"), [(BUSY, "LLM_BUSY"), (OVERLOADED, "LLM_FAILING")])
async def test_faults_that_do_not_pass_end(open_teacher, fault, reason):
    """A server that never recovers is given up after P2M_LLM_PATIENCE_S, and nothing is booked."""
    async with ScriptedTeacher(always=fault) as server:
        session = open_teacher(server, llm_patience_s=1).session("run", Allowance())
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await session.ask(ask())
        assert caught.value.reason == reason
        assert time.monotonic() - began < 3
        assert server.count["requests"] > 1
        assert session.ledger == Ledger()


async def test_retry_after_is_kept(open_teacher):
    """After a 429 with Retry-After no request at all is sent before that time."""
    async with ScriptedTeacher(faults=[Fault(429, retry_after=1.0)]) as server:
        session = open_teacher(server, llm_patience_s=20).session("run", Allowance())
        began = time.monotonic()
        first = asyncio.create_task(session.ask(ask("a")))
        await asyncio.sleep(0.9)
        seen = server.count["requests"]
        await asyncio.gather(first, session.ask(ask("b")))
        assert time.monotonic() - began >= 1.0
        assert (seen, server.count["requests"]) == (1, 3)


# -- limits


async def test_a_lease_of_requests_per_minute_is_kept(open_teacher):
    """At 300 a minute 15 questions take two seconds: five at once, then five a second."""
    async with ScriptedTeacher() as server:
        session = open_teacher(server).session("run", Allowance(requests_per_minute=300))
        began = time.monotonic()
        await asyncio.gather(*(session.ask(ask(str(n))) for n in range(15)))
        assert 1.9 < time.monotonic() - began < 4


async def test_limits_are_learned_from_headers(open_teacher):
    """Once a server has told its limit, questions come at its pace and hardly one is refused."""
    async with ScriptedTeacher(rpm=600) as server:
        session = open_teacher(server, llm_patience_s=20).session("run", Allowance())
        await asyncio.gather(*(session.ask(ask(str(n))) for n in range(20)))
        before, began = server.count["rate_limited"], time.monotonic()
        await asyncio.gather(*(session.ask(ask(str(n))) for n in range(100, 120)))
        assert server.count["answered"] == 40
        assert server.count["rate_limited"] - before <= 2
        assert time.monotonic() - began < 4, "the pace is the limit's, not less"


_REPLICA = """
import asyncio, sys
from services.kit.artifacts import Artifacts
from services.kit.llm import Ask, Schema, Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance

async def main(home, url, name):
    settings = Settings(home=home, openai_base_url=url, openai_api_key="")
    session = Teacher.from_settings(settings, Artifacts.open(settings, "tests")).session(name, Allowance())
    schema = Schema("answer", {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]})
    for asked in asyncio.as_completed(
        [session.ask(Ask(str(n), ({"role": "user", "content": str(n)},), schema)) for n in range(600)]
    ):
        await asked
        print(".", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_replicas_share_the_limits_of_one_key(settings):
    """Three processes that know nothing of each other use over 90 % of 600 a minute, and none of them is refused."""
    async with ScriptedTeacher(latency=0.05, rpm=600) as server:
        replicas = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", _REPLICA, str(settings.home), server.url, str(name), stdout=subprocess.PIPE
            )
            for name in range(3)
        ]
        try:
            for replica in replicas:
                await replica.stdout.readline()
            await asyncio.sleep(5)
            answered, refused = server.count["answered"], server.count["rate_limited"]
            await asyncio.sleep(5)
            assert server.count["answered"] - answered > 0.9 * 50
            assert server.count["rate_limited"] == refused
        finally:
            for replica in replicas:
                replica.kill()
                await replica.wait()


async def test_fewer_at_once_where_a_server_refuses_without_a_limit(open_teacher):
    """429s without figures narrow the window below what was in flight; everything is answered."""
    async with ScriptedTeacher(latency=0.05, faults=[None] * 8 + [Fault(429)] * 4) as server:
        teacher = open_teacher(server, llm_patience_s=20, llm_concurrency=64)
        session = teacher.session("run", Allowance())
        await asyncio.gather(*(session.ask(ask(str(n))) for n in range(16)))
        assert server.count["answered"] == 16
        assert teacher.concurrency < 16


# -- backends that can do less


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


def _secret(key: str):
    from pydantic import SecretStr

    return SecretStr(key)
