"""RunService: what a run is, how it ends, and how the same Start goes on with it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import Any

import pytest
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2
from pydantic import SecretStr

from bench.idle import IdleTrainer, idle
from orchestrator.client import RunClient
from orchestrator.local import hosted
from orchestrator.runs import Runs
from orchestrator.service import identity
from services.kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    P2MError,
    Unauthenticated,
    Unavailable,
)
from services.kit.server import Server
from services.kit.settings import Settings
from tests.integration.conftest import PROMPT, IdleRuns, finished, stage, until

OPTIONS = run_pb2.RunOptions(number=4)


def raising(error: P2MError, times: int = 1_000_000) -> Any:
    """Fails the first `times` times."""
    left = [times]

    async def fail(_: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return fail


async def forever(_: Any) -> None:
    await asyncio.sleep(3600)


async def test_a_burst_of_calls_does_not_fill_the_process_with_threads(
    idle_runs: IdleRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two hundred calls at once some wait for a thread; all are answered."""
    look = Runs.get

    def slow(runs: Runs, name: str) -> run_pb2.Run:
        time.sleep(0.1)
        return look(runs, name)

    monkeypatch.setattr(Runs, "get", slow)
    async with idle_runs() as stack:
        await stack.client.start("colours", PROMPT, OPTIONS)
        before = threading.active_count()
        answers = await asyncio.gather(*(stack.client.get("colours") for _ in range(200)))
        assert {run.name for run in answers} == {"colours"}
        assert threading.active_count() - before <= 64
        await finished(stack.client, "colours")


async def test_a_run_leaves_a_result_and_every_stage_done(idle_runs: IdleRuns) -> None:
    """A run whose services answer ends well: every stage is DONE and there is a result folder."""
    async with idle_runs() as stack:
        run = await stack.client.start("colours", PROMPT, OPTIONS)
        run = await finished(stack.client, run.name)
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    assert [one.name for one in run.stages if one.state == run_pb2.STAGE_STATE_DONE] == [
        "parse", "datasets", "generate", "models", "prepare", "train", "evaluate", "export", "report",
    ]  # fmt: skip
    assert run.result.media_type == "application/vnd.p2m.folder+json"
    assert run.verdict.startswith("Not enough evidence")


async def test_a_finished_run_is_shown_and_nothing_is_done_again(idle_runs: IdleRuns) -> None:
    """Start of a finished run returns it as it stands; no stage is called a second time."""
    async with idle_runs() as stack:
        run = await finished(stack.client, (await stack.client.start("", PROMPT, OPTIONS)).name)
        before = dict(stack.calls)
        again = await stack.client.start("", PROMPT, OPTIONS)
        assert again.state == run_pb2.RUN_STATE_SUCCEEDED
        assert again.name == run.name
        assert dict(stack.calls) == before


async def test_without_a_name_a_run_is_named_by_its_content() -> None:
    """The identity depends on prompt and options, not on the budget nor on whether a person is asked."""
    same = run_pb2.RunOptions(number=4, ask=True, budget=common_pb2.Allowance(requests=3))
    assert identity(PROMPT, OPTIONS) == identity(PROMPT, same)
    assert identity(PROMPT, OPTIONS) != identity(PROMPT, run_pb2.RunOptions(number=5))
    assert identity(PROMPT, OPTIONS) != identity(PROMPT + " ", OPTIONS)


async def test_a_name_belongs_to_one_content(idle_runs: IdleRuns) -> None:
    """A taken name with another prompt is ALREADY_EXISTS, and the message says what to do."""
    async with idle_runs() as stack:
        await finished(stack.client, (await stack.client.start("mine", PROMPT, OPTIONS)).name)
        with pytest.raises(AlreadyExists, match="--name") as refused:
            await stack.client.start("mine", "Another prompt.", OPTIONS)
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    ("name", "prompt", "options", "field"),
    [
        ("", "", OPTIONS, "prompt"),
        ("", "nul \0 byte", OPTIONS, "prompt"),
        ("", "x" * 1_000_000, OPTIONS, "prompt"),
        ("no/slash", PROMPT, OPTIONS, "name"),
        ("n" * 101, PROMPT, OPTIONS, "name"),
        ("", PROMPT, run_pb2.RunOptions(number=-1), "options.number"),
        ("", PROMPT, run_pb2.RunOptions(epochs=0), "options.epochs"),
        ("", PROMPT, run_pb2.RunOptions(skip_datasets=True, skip_generation=True), "options"),
        ("", PROMPT, run_pb2.RunOptions(skip_datasets=True, dataset="a/b"), "options.dataset"),
    ],
)
async def test_what_cannot_be_a_run_is_refused_at_once(
    idle_runs: IdleRuns, name: str, prompt: str, options: run_pb2.RunOptions, field: str
) -> None:
    """Start refuses with INVALID_ARGUMENT that names the field, and no run is left behind."""
    async with idle_runs() as stack:
        with pytest.raises(InvalidArgument) as refused:
            await stack.client.start(name, prompt, options)
        assert refused.value.field == field
        assert await stack.client.list() == ([], "")


async def test_an_unknown_run_is_not_found(idle_runs: IdleRuns) -> None:
    """Get, Watch, Cancel and Choose of a run that does not exist are NOT_FOUND."""
    async with idle_runs() as stack:
        with pytest.raises(NotFound, match="nobody"):
            await stack.client.get("nobody")
        with pytest.raises(NotFound):
            await stack.client.cancel("nobody")
        with pytest.raises(NotFound):
            await stack.client.choose("nobody", "model", "x")
        with pytest.raises(NotFound):
            async for _ in stack.client.watch("nobody"):
                pass


async def test_runs_are_listed_newest_first_page_by_page(idle_runs: IdleRuns) -> None:
    """List gives pages without overlap or gap."""
    async with idle_runs() as stack:
        for name in ("one", "two", "three"):
            await finished(stack.client, (await stack.client.start(name, PROMPT, OPTIONS)).name)
        first, token = await stack.client.list(2)
        rest, end = await stack.client.list(2, token)
    assert [run.name for run in (*first, *rest)] == ["three", "two", "one"]
    assert end == ""
    assert not first[0].stages


async def test_watch_goes_on_after_what_was_seen(idle_runs: IdleRuns) -> None:
    """Watch numbers its changes upwards; `after` leaves out what was seen; the last one has the final state."""
    async with idle_runs() as stack:
        await finished(stack.client, (await stack.client.start("seen", PROMPT, OPTIONS)).name)
        changes = [change async for change in stack.client.watch("seen")]
        later = [change async for change in stack.client.watch("seen", after=changes[4].sequence)]
    numbers = [change.sequence for change in changes]
    assert numbers == sorted(set(numbers))
    assert [change.sequence for change in later] == numbers[5:]
    assert changes[-1].run.state == run_pb2.RUN_STATE_SUCCEEDED


async def test_cancel_stops_the_work_and_start_goes_on(idle_runs: IdleRuns) -> None:
    """Cancel ends the stream of the stage under way; the next Start takes up there, and runs no other again."""
    ended = asyncio.Event()
    hang = [True]

    async def train(_: Any) -> None:
        if hang[0]:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

    async with idle_runs({"trainer.TrainRequest": train}) as stack:
        await stack.client.start("stopped", PROMPT, OPTIONS)
        await until(stack.client, "stopped", lambda run: stack.calls["trainer.TrainRequest"] == 1)
        began = time.monotonic()
        run = await stack.client.cancel("stopped")
        await asyncio.wait_for(ended.wait(), 2.0)
        assert time.monotonic() - began < 2.0
        assert run.state == run_pb2.RUN_STATE_CANCELLED
        assert stage(run, "train").state == run_pb2.STAGE_STATE_PENDING
        assert (await finished(stack.client, "stopped")).state == run_pb2.RUN_STATE_CANCELLED

        hang[0] = False
        await stack.client.start("stopped", PROMPT, OPTIONS)
        run = await finished(stack.client, "stopped")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert stack.calls["trainer.TrainRequest"] == 2
        del stack.calls["trainer.TrainRequest"]
        assert stack.calls.pop("evaluator.MeasureRequest") == 2  # the export and the student
        assert set(stack.calls.values()) == {1}


async def test_a_wrong_key_fails_the_run_and_nothing_is_lost(idle_runs: IdleRuns) -> None:
    """UNAUTHENTICATED in generation fails the run with the cause; Start goes on with all else that was done."""
    wrong = raising(Unauthenticated("WRONG_KEY", "The LLM refused the key. Set OPENAI_API_KEY."), times=1)
    async with idle_runs({"generator.GenerateRequest": wrong}) as stack:
        await stack.client.start("keyed", PROMPT, OPTIONS)
        run = await finished(stack.client, "keyed")
        assert run.state == run_pb2.RUN_STATE_FAILED
        assert (run.error.stage, run.error.code, run.error.reason) == ("generate", "UNAUTHENTICATED", "WRONG_KEY")
        assert "OPENAI_API_KEY" in run.error.message

        await stack.client.start("keyed", PROMPT, OPTIONS)
        run = await finished(stack.client, "keyed")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert stack.calls["parser.ParseRequest"] == 1
        assert stack.calls["generator.GenerateRequest"] == 2


async def test_a_teacher_out_of_reach_leaves_what_was_found(idle_runs: IdleRuns) -> None:
    """Where the LLM cannot be reached and a dataset was found, the run goes on and says so."""
    gone = raising(Unavailable("LLM_UNREACHABLE", "The LLM cannot be reached."))
    async with idle_runs({"generator.GenerateRequest": gone}) as stack:
        await stack.client.start("found", PROMPT, OPTIONS)
        run = await finished(stack.client, "found")
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    assert stage(run, "generate").state == run_pb2.STAGE_STATE_SKIPPED
    assert "cannot be reached" in stage(run, "generate").message


async def test_no_data_at_all_fails_with_what_was_tried_and_is_tried_again(idle_runs: IdleRuns) -> None:
    """Neither a dataset nor an example: NO_DATA names both causes; the next Start asks both again."""
    gone = raising(Unavailable("LLM_UNREACHABLE", "The LLM cannot be reached."), times=1)
    no_hub = raising(FailedPrecondition("NO_HUB", "There is no hub."), times=1)
    behaviour = {"generator.GenerateRequest": gone, "dataset_retriever.SearchRequest": no_hub}
    async with idle_runs(behaviour) as stack:
        await stack.client.start("bare", PROMPT, OPTIONS)
        run = await finished(stack.client, "bare")
        assert (run.error.stage, run.error.code, run.error.reason) == ("prepare", "FAILED_PRECONDITION", "NO_DATA")
        assert "There is no hub" in run.error.message
        assert "cannot be reached" in run.error.message

        await stack.client.start("bare", PROMPT, OPTIONS)
        run = await finished(stack.client, "bare")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert stack.calls["parser.ParseRequest"] == 1


async def test_a_failed_run_that_has_other_data_now_goes_on(idle_runs: IdleRuns) -> None:
    """Where preparing failed and the next Start finds more data, preparing is asked for that and not refused."""
    gone = raising(Unavailable("LLM_UNREACHABLE", "The LLM cannot be reached."), times=1)
    too_few = raising(FailedPrecondition("TOO_FEW_ROWS", "4 rows; wanted 10."), times=1)
    behaviour = {"generator.GenerateRequest": gone, "trainer.PrepareRequest": too_few}
    async with idle_runs(behaviour) as stack:
        await stack.client.start("more", PROMPT, OPTIONS)
        run = await finished(stack.client, "more")
        assert (run.error.stage, run.error.reason) == ("prepare", "TOO_FEW_ROWS")

        await stack.client.start("more", PROMPT, OPTIONS)
        run = await finished(stack.client, "more")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert stage(run, "generate").state == run_pb2.STAGE_STATE_DONE


async def test_a_fault_ends_the_run_as_a_bug_with_its_stage(idle_runs: IdleRuns) -> None:
    """What nobody foresaw in a service fails the run with INTERNAL and the stage's name; the orchestrator lives on."""

    async def fault(_: Any) -> None:
        raise RuntimeError("boom")

    async with idle_runs({"trainer.PrepareRequest": fault}) as stack:
        await stack.client.start("faulty", PROMPT, OPTIONS)
        run = await finished(stack.client, "faulty")
        assert (run.error.stage, run.error.code) == ("prepare", "INTERNAL")
        assert (await stack.client.get("faulty")).state == run_pb2.RUN_STATE_FAILED


async def test_a_service_that_restarts_is_asked_again(idle_settings: Settings) -> None:
    """A trainer that goes away in the middle of a training and comes back is asked again; the run goes on."""
    calls: Counter[str] = Counter()
    async with idle(idle_settings) as targets:
        first = Server(IdleTrainer(idle_settings, calls, {"trainer.TrainRequest": forever}), idle_settings)
        await first.start(0)
        targets["trainer_target"] = f"127.0.0.1:{first.port}"
        settings = idle_settings.model_copy(update=targets)
        async with hosted(settings) as stack, RunClient(stack.run_target, stack.settings) as client:
            await client.start("patient", PROMPT, OPTIONS)
            await until(client, "patient", lambda _: calls["trainer.TrainRequest"] == 1)
            await first.stop()
            second = Server(IdleTrainer(idle_settings, calls, {}), idle_settings)
            await second.start(first.port)
            run = await finished(client, "patient")
            await second.stop()
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    assert calls["trainer.TrainRequest"] == 2


async def test_switched_off_stages_are_skipped(idle_runs: IdleRuns) -> None:
    """Without datasets only generated rows are used, and the stage says that it was switched off."""
    async with idle_runs() as stack:
        await stack.client.start("off", PROMPT, run_pb2.RunOptions(number=4, skip_datasets=True))
        run = await finished(stack.client, "off")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert stage(run, "datasets").state == run_pb2.STAGE_STATE_SKIPPED
        assert stage(run, "datasets").message == "switched off"
        assert not stack.calls["dataset_retriever.SearchRequest"]


async def test_leaving_the_stack_stops_a_run_that_the_same_start_goes_on_with(idle_runs: IdleRuns) -> None:
    """A stack that is closed in the middle of a run ends its streams; another one goes on where it was."""
    async with idle_runs({"trainer.TrainRequest": forever}) as stack:
        await stack.client.start("left", PROMPT, OPTIONS)
        await until(stack.client, "left", lambda _: stack.calls["trainer.TrainRequest"] == 1)
    async with idle_runs() as stack:
        assert (await stack.client.get("left")).state == run_pb2.RUN_STATE_RUNNING
        await stack.client.start("left", PROMPT, OPTIONS)
        run = await finished(stack.client, "left")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert dict(stack.calls) == {
            "trainer.TrainRequest": 1, "evaluator.EvaluateRequest": 1, "trainer.ExportRequest": 1,
            "evaluator.MeasureRequest": 2,
        }  # fmt: skip


async def test_only_the_bearer_of_the_token_is_served(idle_settings: Settings) -> None:
    """With a token set, a client without it is UNAUTHENTICATED and one with it is served."""
    secured = idle_settings.model_copy(update={"token": SecretStr("open sesame")})
    async with idle(secured) as targets, hosted(secured.model_copy(update=targets)) as stack:
        async with RunClient(stack.run_target, idle_settings) as stranger:
            with pytest.raises(Unauthenticated):
                await stranger.list()
        async with RunClient(stack.run_target, secured) as known:
            assert await known.list() == ([], "")


async def test_the_same_start_twice_at_one_orchestrator_is_one_run(idle_runs: IdleRuns) -> None:
    """Two Starts of the same run at the same time do its work once."""
    async with idle_runs() as stack:
        async with RunClient(stack.stack.run_target, stack.settings) as other:
            first, second = await asyncio.gather(
                stack.client.start("twin", PROMPT, OPTIONS), other.start("twin", PROMPT, OPTIONS)
            )
        assert first.name == second.name == "twin"
        assert (await finished(stack.client, "twin")).state == run_pb2.RUN_STATE_SUCCEEDED
        assert stack.calls["parser.ParseRequest"] == 1
