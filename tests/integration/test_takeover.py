"""Several processes on one database: who owns a run, and who takes it over."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from p2m.run.v1 import run_pb2

from orchestrator import summary
from orchestrator.database import open_engine
from orchestrator.runs import Runs
from services.kit.errors import Aborted
from services.kit.settings import Settings
from tests.conftest import ROOT
from tests.integration.conftest import NO_LLM, PROMPT, IdleRuns, finished, until
from tests.support.cli import Cli

OPTIONS = run_pb2.RunOptions(number=4)


@asynccontextmanager
async def other_process(home: Path, name: str, request: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process whose run hangs in a stage; killed at the latest when the block ends."""
    environment = os.environ | {"P2M_HOME": str(home), "OPENAI_BASE_URL": NO_LLM, "P2M_GRACE_S": "2"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.orchestrate", name, request,
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = {await asyncio.wait_for(process.stdout.readline(), 60) for _ in range(2)}
        assert said == {b"ready\n", b"hangs\n"}
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()


async def test_a_run_of_a_live_process_is_not_started_twice(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """Start of a run that another live process is at is ABORTED and names `p2m watch`; Get and Watch see it."""
    async with other_process(idle_settings.home_folder, "busy", "trainer.TrainRequest"), idle_runs() as stack:
        with pytest.raises(Aborted, match="p2m watch busy"):
            await stack.client.start("busy", PROMPT, OPTIONS)
        assert (await stack.client.get("busy")).state == run_pb2.RUN_STATE_RUNNING


async def test_processes_that_start_at_once_share_a_new_database(tmp_path: Path) -> None:
    """Several commands in a home that is not there yet all make it, and none trips over another."""
    ended = await asyncio.gather(*(Cli(tmp_path)("list") for _ in range(4)))
    assert [one.status for one in ended] == [0] * 4, [one.err for one in ended]


async def test_cancel_reaches_a_run_of_another_process(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """Cancel through another process ends the run; after it this process may go on with it."""
    async with other_process(idle_settings.home_folder, "far", "trainer.TrainRequest"), idle_runs() as stack:
        run = await stack.client.cancel("far")
        assert run.state == run_pb2.RUN_STATE_CANCELLED
        await stack.client.start("far", PROMPT, OPTIONS)
        run = await finished(stack.client, "far")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error


async def test_the_run_of_a_killed_process_goes_on_where_it_was(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """After kill -9 the same Start, in another process, goes on at once; finished stages are not run again."""
    async with other_process(idle_settings.home_folder, "killed", "trainer.TrainRequest") as process:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        async with idle_runs() as stack:
            await stack.client.start("killed", PROMPT, OPTIONS)
            run = await finished(stack.client, "killed")
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    left = {"trainer.TrainRequest": 1, "evaluator.EvaluateRequest": 1}
    assert dict(stack.calls) == left | {"trainer.ExportRequest": 1, "evaluator.MeasureRequest": 2}


async def test_a_serving_orchestrator_takes_over_a_dead_ones_run(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """One that adopts goes on with a killed process's run without any Start."""
    dying = other_process(idle_settings.home_folder, "orphan", "generator.GenerateRequest")
    async with dying as process, idle_runs(adopt=True) as stack:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        run = await until(stack.client, "orphan", lambda run: run.state == run_pb2.RUN_STATE_SUCCEEDED)
    assert run.verdict


async def test_a_stopped_orchestrators_run_is_taken_over(idle_runs: IdleRuns) -> None:
    """One that is stopped, as in a rolling restart, leaves its unfinished run to the next without any Start."""
    reached = asyncio.Event()

    async def hang(_: object) -> None:
        reached.set()
        await asyncio.sleep(3600)

    async with idle_runs({"generator.GenerateRequest": hang}, adopt=True) as stopped:
        await stopped.client.start("handed", PROMPT, OPTIONS)
        await asyncio.wait_for(reached.wait(), 60)
    async with idle_runs(adopt=True) as stack:
        run = await until(stack.client, "handed", lambda run: run.state == run_pb2.RUN_STATE_SUCCEEDED)
    assert run.verdict


async def test_a_run_that_nobody_is_at_goes_on(
    idle_runs: IdleRuns, idle_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose row is a live process's, and that this process is not at, is begun by it after a while."""
    monkeypatch.setattr("orchestrator.service._LOOK_INTERVAL_S", 0.1)
    monkeypatch.setattr("orchestrator.service._IDLE_S", 0.5)
    engine = open_engine(idle_settings)
    async with idle_runs() as stack:
        with engine.connect() as connection:
            executor = connection.execute(sa.text("SELECT id FROM p2m_executors")).scalar_one()
        assert Runs(engine, executor).add("lost", "digest", PROMPT, OPTIONS)
        run = await until(stack.client, "lost", lambda run: run.state == run_pb2.RUN_STATE_SUCCEEDED)
    engine.dispose()
    assert run.verdict


async def test_one_that_was_taken_for_dead_goes_on(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """A process whose row and queue another has removed takes what is queued for it again."""
    engine = open_engine(idle_settings)
    async with idle_runs({"trainer.TrainRequest": _sleep}) as stack:
        await stack.client.start("buried", PROMPT, OPTIONS)
        await until(stack.client, "buried", lambda run: run.stages[5].state == run_pb2.STAGE_STATE_RUNNING)
        with engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM p2m_executors"))
            connection.execute(sa.text("DELETE FROM queues WHERE name LIKE 'p2m-%'"))
        await stack.client.cancel("buried")
        await stack.client.start("buried", PROMPT, OPTIONS)
        run = await finished(stack.client, "buried")
    engine.dispose()
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error


async def _sleep(_: object) -> None:
    await asyncio.sleep(1.0)


async def test_the_run_of_a_killed_process_is_shown_as_interrupted(
    idle_runs: IdleRuns, idle_settings: Settings
) -> None:
    """Get and List say so, and what is printed says what to do; while its process lives, and later, they do not."""
    async with (
        other_process(idle_settings.home_folder, "shown", "trainer.TrainRequest") as process,
        idle_runs() as stack,
    ):
        assert not (await stack.client.get("shown")).interrupted
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert (await stack.client.get("shown")).interrupted
        [listed], _ = await stack.client.list()
        printed = io.StringIO()
        summary.table(printed, [listed])
        assert "interrupted" in printed.getvalue() and "the same p2m run goes on" in printed.getvalue()
        await stack.client.start("shown", PROMPT, OPTIONS)
        assert not (await finished(stack.client, "shown")).interrupted


async def test_one_that_does_not_adopt_leaves_a_dead_ones_run(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """A process that was started for one run does not take up another's."""
    async with other_process(idle_settings.home_folder, "alone", "parser.ParseRequest") as process:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with idle_runs() as stack:
        await asyncio.sleep(3)
        assert not stack.calls
