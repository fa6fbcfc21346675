"""A run that asks a person: it waits, durably, and takes the answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from p2m.run.v1 import run_pb2

from services.kit.errors import FailedPrecondition, InvalidArgument
from tests.integration.conftest import PROMPT, IdleRuns, finished, stage, until

ASKING = run_pb2.RunOptions(number=4, ask=True)


def waits_for(question: str) -> Callable[[run_pb2.Run], bool]:
    """Whether a run waits for this question."""
    return lambda run: run.state == run_pb2.RUN_STATE_WAITING and run.question.id == question


async def test_a_person_chooses_dataset_columns_and_model(idle_runs: IdleRuns) -> None:
    """The run asks for the dataset, its columns and the model, offers its own choice first, and takes the answers."""
    async with idle_runs() as stack:
        await stack.client.start("asked", PROMPT, ASKING)
        run = await until(stack.client, "asked", waits_for("dataset"))
        assert [option.value for option in run.question.options] == ["idle/one", "idle/two", "none"]
        assert stage(run, "datasets").state == run_pb2.STAGE_STATE_WAITING
        await stack.client.choose("asked", "dataset", "idle/two")

        run = await until(stack.client, "asked", waits_for("columns"))
        assert run.question.options[0].value == "question -> answer"
        assert "none" in [option.value for option in run.question.options]
        await stack.client.choose("asked", "columns", "answer -> question")

        run = await until(stack.client, "asked", waits_for("model"))
        assert "none" not in [option.value for option in run.question.options]
        await stack.client.choose("asked", "model", "idle/model")

        run = await finished(stack.client, "asked")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert stage(run, "datasets").message.startswith("idle/two")
        assert "answer → question" in stage(run, "datasets").message


async def test_none_of_these_fit_is_an_answer(idle_runs: IdleRuns) -> None:
    """ "none" skips the dataset, and the run goes on with what was generated."""
    async with idle_runs() as stack:
        await stack.client.start("none", PROMPT, ASKING)
        await until(stack.client, "none", waits_for("dataset"))
        await stack.client.choose("none", "dataset", "none")
        await until(stack.client, "none", waits_for("model"))
        await stack.client.choose("none", "model", "idle/model")
        run = await finished(stack.client, "none")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert stage(run, "datasets").state == run_pb2.STAGE_STATE_SKIPPED


async def test_a_wrong_answer_is_refused_and_the_run_still_waits(idle_runs: IdleRuns) -> None:
    """An option that is not there is INVALID_ARGUMENT, a question that was not asked FAILED_PRECONDITION."""
    async with idle_runs() as stack:
        await stack.client.start("wrong", PROMPT, ASKING)
        await until(stack.client, "wrong", waits_for("dataset"))
        with pytest.raises(InvalidArgument, match="idle/one; idle/two; none"):
            await stack.client.choose("wrong", "dataset", "idle/three")
        with pytest.raises(FailedPrecondition, match="columns"):
            await stack.client.choose("wrong", "columns", "a -> b")
        run = await stack.client.get("wrong")
        assert run.state == run_pb2.RUN_STATE_WAITING


async def test_a_waiting_run_survives_its_process(idle_runs: IdleRuns) -> None:
    """A question that was open when the stack closed is open in the next one, and an answer given between counts."""
    async with idle_runs() as stack:
        await stack.client.start("later", PROMPT, ASKING)
        await until(stack.client, "later", waits_for("dataset"))
    async with idle_runs() as stack:
        run = await stack.client.get("later")
        assert run.question.id == "dataset"
        await stack.client.choose("later", "dataset", "idle/two")
        await stack.client.start("later", PROMPT, ASKING)
        await until(stack.client, "later", waits_for("columns"))
        await stack.client.choose("later", "columns", "question -> answer")
        await until(stack.client, "later", waits_for("model"))
        await stack.client.choose("later", "model", "idle/model")
        run = await finished(stack.client, "later")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        assert stage(run, "datasets").message.startswith("idle/two")
        assert not stack.calls["dataset_retriever.SearchRequest"]


async def test_without_asking_nobody_is_waited_for(idle_runs: IdleRuns) -> None:
    """By default the run chooses by itself and records the best ranked."""
    async with idle_runs() as stack:
        await stack.client.start("alone", PROMPT, run_pb2.RunOptions(number=4))
        run = await finished(stack.client, "alone")
        assert stage(run, "datasets").message.startswith("idle/one")
