"""How the LLM client keeps to a server's limits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from services.kit.values import Allowance
from tests.support.asking import ask
from tests.support.teacher import Fault, ScriptedTeacher


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
