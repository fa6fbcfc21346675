"""What goes wrong with a run's prompt, key, teacher, budget and store: a clear end, the right status, nothing lost.

The parser and the generator are the real ones against a scripted teacher; the other services do nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from bench.idle import Before, idle
from orchestrator.client import RunClient
from orchestrator.local import hosted
from services.kit.settings import Settings
from tests.integration.conftest import NO_LLM, finished, stage
from tests.support.teacher import EMPTY, NONSENSE, TOY_PROMPT, WRONG_KEY, ScriptedTeacher

OPTIONS = run_pb2.RunOptions(number=20, skip_datasets=True)
WITH_DATA = run_pb2.RunOptions(number=20)


class Runs(Protocol):
    """What the fixture `runs` gives."""

    def __call__(self, url: str, before: Before | None = None) -> AbstractAsyncContextManager[RunClient]:
        """A client of a stack whose teacher is at `url`."""


@pytest.fixture
def runs(settings: Settings) -> Runs:
    @asynccontextmanager
    async def host(url: str, before: Before | None = None) -> AsyncIterator[RunClient]:
        own = {"openai_base_url": url, "openai_api_key": "a key", "grace_s": 2.0, "llm_patience_s": 1.0}
        mine = Settings.model_validate(settings.reveal() | own)
        async with idle(mine, before=before) as targets:
            for real in ("parser_target", "generator_target"):
                del targets[real]
            mine = mine.model_copy(update=targets)
            async with hosted(mine) as stack, RunClient(stack.run_target, stack.settings) as client:
                yield client

    return host


async def test_a_prompt_without_demonstrations_runs(runs: Runs) -> None:
    """No demonstrations is fine: the run goes through, and the stage says that there are none."""
    async with ScriptedTeacher() as teacher, runs(teacher.url) as client:
        await client.start("bare", "Name the colour in the words.", OPTIONS)
        run = await finished(client, "bare")
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    assert stage(run, "parse").message.startswith("0 demonstrations")


async def test_a_prompt_in_japanese_runs(runs: Runs) -> None:
    """A Japanese prompt goes through, and its language is known."""
    async with ScriptedTeacher() as teacher, runs(teacher.url) as client:
        await client.start("japanese", "文から日付を抜き出してください。日付だけを答えてください。", OPTIONS)
        run = await finished(client, "japanese")
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    assert "language ja" in stage(run, "parse").message


async def test_a_wrong_key_ends_the_run_and_the_right_one_goes_on(runs: Runs) -> None:
    """401: the run FAILS with UNAUTHENTICATED and what to do; with the right key the same Start goes on."""
    async with ScriptedTeacher(always=WRONG_KEY) as teacher, runs(teacher.url) as client:
        await client.start("keyed", TOY_PROMPT, OPTIONS)
        run = await finished(client, "keyed")
        assert (run.error.code, run.error.reason) == ("UNAUTHENTICATED", "WRONG_KEY")
        assert "OPENAI_API_KEY" in run.error.message
        teacher.always = None
        await client.start("keyed", TOY_PROMPT, OPTIONS)
        assert (await finished(client, "keyed")).state == run_pb2.RUN_STATE_SUCCEEDED


async def test_a_teacher_out_of_reach_ends_the_run_with_its_address(runs: Runs) -> None:
    """Nobody listens at the endpoint: the run FAILS and says where it asked in vain."""
    async with runs(NO_LLM) as client:
        await client.start("alone", TOY_PROMPT, OPTIONS)
        run = await finished(client, "alone")
    assert (run.state, run.error.reason) == (run_pb2.RUN_STATE_FAILED, "NO_DATA")
    assert "127.0.0.1:9" in run.error.message


@pytest.mark.parametrize("fault", [NONSENSE, EMPTY], ids=["nonsense", "nothing"])
async def test_a_teacher_of_no_use_leaves_what_was_found(runs: Runs, fault: Any) -> None:
    """It answers nonsense, or nothing: the rules parse, generation is SKIPPED with the reason, the found rows train."""
    async with ScriptedTeacher(always=fault) as teacher, runs(teacher.url) as client:
        await client.start("useless", TOY_PROMPT, WITH_DATA)
        run = await finished(client, "useless")
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    assert "parsed by rules" in stage(run, "parse").message
    assert stage(run, "generate").state == run_pb2.STAGE_STATE_SKIPPED
    assert stage(run, "generate").message


async def test_a_budget_of_nothing_asks_nobody(runs: Runs) -> None:
    """With a budget of 0 requests the teacher is never asked; without other data the run ends with what to do."""
    options = run_pb2.RunOptions(number=20, skip_datasets=True, budget=common_pb2.Allowance(requests=0))
    async with ScriptedTeacher() as teacher, runs(teacher.url) as client:
        await client.start("poor", TOY_PROMPT, options)
        run = await finished(client, "poor")
        assert teacher.count["requests"] == 0
        assert (run.error.code, run.error.reason) == ("FAILED_PRECONDITION", "NO_DATA")
        assert "budget" in run.error.message

        options.budget.requests = 100
        await client.start("poor", TOY_PROMPT, options)
        run = await finished(client, "poor")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error


async def test_the_budget_holds_over_all_stages(runs: Runs) -> None:
    """A run with a budget of ten requests asks at most ten, and says that the budget ended the generation."""
    options = run_pb2.RunOptions(number=500, skip_datasets=True, budget=common_pb2.Allowance(requests=10))
    async with ScriptedTeacher() as teacher, runs(teacher.url) as client:
        await client.start("thrifty", TOY_PROMPT, options)
        run = await finished(client, "thrifty")
        assert teacher.count["requests"] <= 10
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    assert run.ledger.requests == teacher.count["requests"]
    assert "budget" in stage(run, "generate").message


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]])
async def test_a_damaged_blob_is_data_loss(runs: Runs, settings: Settings, damage: Any) -> None:
    """A truncated or flipped blob under the run ends it with DATA_LOSS that names the object."""

    async def spoil(_: Any) -> None:
        for path in Path(settings.home_folder / "store" / "trainer" / "blobs").rglob("*"):
            if path.is_file():
                path.write_bytes(damage(path.read_bytes()))

    async with ScriptedTeacher() as teacher, runs(teacher.url, {"evaluator.EvaluateRequest": spoil}) as client:
        await client.start("spoilt", TOY_PROMPT, OPTIONS)
        run = await finished(client, "spoilt")
    assert (run.error.stage, run.error.code) == ("report", "DATA_LOSS")
    assert "p2m://trainer/blobs/" in run.error.message
