"""The LLM client pays for no answer twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from services.kit.errors import (
    DiskFull,
)
from services.kit.llm import InvalidAnswer
from services.kit.values import Allowance
from tests.support.asking import ANSWER, ask
from tests.support.teacher import EMPTY, NONSENSE, ScriptedTeacher


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
