"""`p2m improve`: examples for what a run's model fails at, and the change on the same locked test rows.

The generator and the splitting are real, the LLM is scripted; what trains and measures is not, but tells what it was
asked and says that questions are answered wrongly.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
from p2m.common.v1 import common_pb2
from p2m.evaluator.v1 import evaluator_pb2
from p2m.run.v1 import run_pb2
from p2m.trainer.v1 import trainer_pb2

from bench.idle import (
    Before,
    IdleDatasetRetriever,
    IdleEvaluator,
    IdleModelRetriever,
    IdleParser,
    IdleTrainer,
)
from orchestrator.client import RunClient
from orchestrator.local import hosted
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, P2MError, Unavailable
from services.kit.server import Server
from services.kit.settings import Settings
from services.kit.values import Artifact, Row
from services.kit.wire import from_message, to_message
from services.kit.worker import WorkerContext
from services.trainer.calls import PrepareRequest
from services.trainer.prepare import prepare
from tests.integration.conftest import finished, read_record, stage, until
from tests.support.teacher import WORDS, ScriptedTeacher, prompt_of

PROMPT = "Give the first word, and of a question the last."
QUESTIONS = "inputs that are questions"
LONG = "inputs of more than 6 words"


def row(rng: random.Random, mark: str, asked: bool) -> Row:
    """Words, and a mark that no other row has."""
    words = rng.sample(WORDS, 4)
    return Row(f"{' '.join(words)} {mark}{' ?' if asked else ''}", words[-1] if asked else words[0], "mine")


def rows(number: int) -> list[Row]:
    """Every fifth is a question."""
    rng = random.Random(0)
    return [row(rng, f"given{n}", n % 5 == 0) for n in range(number)]


def written(body: dict[str, Any], rng: random.Random) -> Any:
    """Five examples; questions where they are asked for."""
    made = [row(rng, f"new{rng.randrange(10**9)}", QUESTIONS in prompt_of(body)) for _ in range(5)]
    return {"examples": [{"input": one.input, "output": one.output} for one in made]}


class Trainer(IdleTrainer):
    """Splits as the trainer does; its models are empty folders."""

    async def Prepare(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async def work(_: Any) -> Any:
            await self.count(request)
            asked, within = from_message(request, PrepareRequest), WorkerContext(House.settings)
            return to_message(await asyncio.to_thread(prepare, asked, within), trainer_pb2.PrepareResult)

        async for event in self.stage.stream(request, trainer_pb2.PrepareResponse, trainer_pb2.PrepareResult, work):
            yield event


class Evaluator(IdleEvaluator):
    """Says that what `slices` names is answered wrongly, with rows of the validation split as examples."""

    slices: tuple[str, ...] = (QUESTIONS, LONG)
    split = "validation"

    async def Evaluate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        rows = {
            name: self.artifacts.read_rows(from_message(getattr(request, name), Artifact))
            for name in ("validation", "test")
        }
        failed = [one for one in rows[self.split] if one.input.endswith("?")][:3]
        rate = {"value": 90, "low": 80, "high": 95}
        slices = [
            evaluator_pb2.ErrorSlice(
                name=name, kind="format", rows=20, error_rate=rate, rest_error_rate={"value": 10},
                difference={"value": 80, "low": 60, "high": 90},
                examples=[{"input": one.input, "output": one.output, "prediction": "nonsense"} for one in failed],
            )
            for name in self.slices
        ]  # fmt: skip
        better = {"value": 12, "low": 4, "high": 20}
        columns = [
            {"input": r.input, "output": r.output, "source": r.source, "real": True, "prediction_student": ""}
            for r in rows["test"]
        ]
        predictions = self.artifacts.put_table(pa.Table.from_pylist(columns))
        result = evaluator_pb2.EvaluateResult(
            predictions=to_message(predictions, common_pb2.Artifact), verdict=1, verdict_reason="Better.",
            slices=slices, slices_split=self.split,
            comparisons=[
                {"against": one.name, "metric": "exact_match", "difference": better, "rows": len(rows["test"])}
                for one in request.contestants
                if one.name != "student"
            ],
            slice_comparisons=[
                {"slice": name, "against": "before", "metric": "exact_match_normalised", "student": 60, "other": 10,
                 "difference": {"value": 50, "low": 30, "high": 70}, "rows": 25}
                for name in request.slices
            ],
        )  # fmt: skip
        async for event in self.stream(request, evaluator_pb2.EvaluateResponse, result):
            yield event


@dataclass
class House:
    """The services, the teacher, and what the trainer and the evaluator were asked."""

    settings = Settings()

    client: RunClient
    store: Artifacts
    teacher: ScriptedTeacher
    asked: dict[str, list[Any]] = field(default_factory=dict)

    async def start(self, name: str = "words", **options: Any) -> run_pb2.Run:
        """A run of 300 rows of its own, to its end."""
        data = to_message(self.store.put_rows(rows(300)), common_pb2.Artifact)
        given = run_pb2.RunOptions(data=[data], skip_datasets=True, skip_generation=True, teacher_rows=7, **options)
        await self.client.start(name, PROMPT, given)
        return await self.ended(name)

    async def improve(self, of: str = "words", number: int = 40, name: str = "", **options: Any) -> run_pb2.Run:
        return await self.client.start(name, "", run_pb2.RunOptions(improve=of, number=number, **options))

    async def ended(self, name: str) -> run_pb2.Run:
        run = await finished(self.client, name)
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        return run

    def record(self, run: run_pb2.Run) -> dict[str, Any]:
        return read_record(self.store, from_message(run.result, Artifact))

    def rows(self, record: dict[str, Any], name: str) -> list[Row]:
        return self.store.read_rows(Artifact(**record["artifacts"][name]))


@asynccontextmanager
async def house(
    settings: Settings, before: Before | None = None, evaluator: type[Evaluator] = Evaluator
) -> AsyncIterator[House]:
    """Everything on loopback; `before` as in `bench.idle`."""
    asked: dict[str, list[Any]] = {}

    def noting(name: str) -> Any:
        async def note(request: Any) -> None:
            asked.setdefault(name, []).append(request)
            if name in (before or {}):
                await (before or {})[name](request)

        return note

    notes = {
        name: noting(name) for name in ("trainer.PrepareRequest", "trainer.TrainRequest", "evaluator.EvaluateRequest")
    }
    async with AsyncExitStack() as stack:
        teacher = await stack.enter_async_context(ScriptedTeacher({"examples": written}))
        settings = House.settings = settings.model_copy(update={"openai_base_url": teacher.url, "grace_s": 2.0})
        targets = {}
        for kind in (IdleParser, IdleDatasetRetriever, IdleModelRetriever, Trainer, evaluator):
            server = Server(kind(settings, Counter(), notes), settings)
            stack.push_async_callback(server.stop)
            await server.start(0)
            targets[f"{kind.name}_target"] = f"{settings.host}:{server.port}"
        hosting = await stack.enter_async_context(hosted(settings.model_copy(update=targets)))
        client = await stack.enter_async_context(RunClient(hosting.run_target, hosting.settings))
        yield House(client, Artifacts.open(settings, "tests"), teacher, asked)


async def test_it_aims_at_the_worst_rows_and_measures_on_the_same(settings: Settings) -> None:
    """The new run has the old one's prompt, model, options and locked splits; each slice has its share of the examples;
    all of the old training rows and those new ones that repeat none of the splits are trained on; the student before
    is a contestant; the report tells the change over all and by slice.
    """
    async with house(settings) as one:
        before = one.record(await one.start(epochs=2, learning_rate=1e-3, seed=3))
        assert (await one.improve()).name == "words.2"
        run = await one.ended("words.2")
        after = one.record(run)
        train, measured = one.asked["trainer.TrainRequest"][1], one.asked["evaluator.EvaluateRequest"][1]
        old, new = (one.rows(record, "train") for record in (before, after))
    for split in ("validation", "test"):
        assert after["artifacts"][split] == before["artifacts"][split]
    assert new[: len(old)] == old
    assert len(new) == len(old) + 40 and all("new" in added.input for added in new[len(old) :])
    assert sum(added.input.endswith("?") for added in new[len(old) :]) == 20
    assert (train.hyper_parameters.epochs, train.hyper_parameters.learning_rate, train.seed) == (2, 1e-3, 3)
    assert train.model == one.asked["trainer.TrainRequest"][0].model
    assert [contestant.name for contestant in measured.contestants] == [
        "student",
        "before",
        "base",
        "nearest_neighbour",
    ]
    assert measured.contestants[1].model.uri == before["artifacts"]["model"]["uri"]
    assert [*measured.slices] == [QUESTIONS, LONG]
    assert after["prompt"] == PROMPT and after["options"]["improve"] == "words"
    improvement = after["improvement"]
    assert (improvement["of"], improvement["added"]) == ("words", 40)
    assert [(s["name"], s["asked"], s["generated"]) for s in improvement["slices"]] == [
        (QUESTIONS, 20, 20),
        (LONG, 20, 20),
    ]
    assert improvement["slices"][0]["change"]["difference"]["value"] == 50
    assert before["improvement"] is None
    page = _file(one, run, "report.html")
    assert "Better than words: +12.0 points of exact match" in page and "p2m improve words" in page
    assert "Inputs that are questions" in page and "+30.0 to +70.0" in page


async def test_the_llm_sees_no_test_row(settings: Settings) -> None:
    """Every request to the LLM names the kind of rows and shows validation rows; none holds a word of any test row that
    marks it, though the generator is told of test rows so as not to write them.
    """
    async with house(settings) as one:
        record = one.record(await one.start())
        assert one.teacher.requests == []
        await one.improve(number=200)
        await one.ended("words.2")
        asked = [prompt_of(body) for body in one.teacher.requests]
        marks = {name: {_mark(row) for row in one.rows(record, name)} for name in ("train", "validation", "test")}
    said = {mark for prompt in asked for mark in re.findall(r"given\d+", prompt)}
    assert len(marks["test"]) > 40 and not said & marks["test"]
    assert said and said <= marks["validation"]
    assert all(QUESTIONS in prompt or LONG in prompt for prompt in asked if "examples of the task" in prompt)
    assert 'It answered "nonsense" where' in asked[0]


async def test_it_goes_on_where_it_was(settings: Settings) -> None:
    """After a failure the same command goes on with the new run: nothing is asked of the LLM again, and a third command
    shows what is there. An improved run can be improved.
    """
    failures = [Unavailable("GONE", "The trainer is gone.")]

    async def fail_once(request: Any) -> None:
        if request.request_id.startswith("words.2/") and failures:
            raise failures.pop()

    async with house(settings, {"trainer.TrainRequest": fail_once}) as one:
        await one.start()
        await one.improve()
        failed = await finished(one.client, "words.2")
        assert (failed.state, failed.error.stage) == (run_pb2.RUN_STATE_FAILED, "train")
        asked = len(one.teacher.requests)
        await one.improve()
        await one.ended("words.2")
        assert (await one.improve()).state == run_pb2.RUN_STATE_SUCCEEDED
        assert len(one.teacher.requests) == asked > 0
        assert (await one.improve("words.2")).name == "words.3"
        third = one.record(await one.ended("words.3"))
    assert third["improvement"]["of"] == "words.2" and len(one.asked["trainer.TrainRequest"]) == 4


class Even(Evaluator):
    """No slice is worse."""

    slices = ()


class OnTest(Evaluator):
    """What an evaluation without validation rows says."""

    split = "test"


@pytest.mark.parametrize(("evaluator", "said"), [(Even, "nothing to aim at"), (OnTest, "must not be aimed at those")])
async def test_without_a_worse_kind_nothing_is_begun(settings: Settings, evaluator: type[Evaluator], said: str) -> None:
    """Where no kind of validation rows is worse, or errors were found on test rows, the answer says so; there is no new
    run and no request.
    """
    async with house(settings, evaluator=evaluator) as one:
        await one.start()
        await _refused(one, FailedPrecondition, said)


async def test_what_cannot_be_improved_is_refused(settings: Settings) -> None:
    """Nor can an unknown run be, one that has not ended, one whose rows are gone, nor one with senseless options."""
    release = asyncio.Event()

    async def hold(request: Any) -> None:
        if request.request_id.startswith("slow/"):
            await release.wait()

    async with house(settings, {"trainer.TrainRequest": hold}) as one:
        await _refused(one, NotFound, "no run 'words'")
        data = to_message(one.store.put_rows(rows(300)), common_pb2.Artifact)
        await one.client.start("slow", PROMPT, run_pb2.RunOptions(data=[data], skip_datasets=True, number=0))
        await until(one.client, "slow", lambda run: stage(run, "train").state == run_pb2.STAGE_STATE_RUNNING)
        await _refused(one, FailedPrecondition, "slow is running", of="slow")
        await one.client.cancel("slow")
        await _refused(one, FailedPrecondition, "slow is cancelled", of="slow")
        record = one.record(await one.start())
        await _refused(one, InvalidArgument, "number of at least 1", number=0)
        with pytest.raises(InvalidArgument, match="no prompt of its own"):
            await one.client.start("", PROMPT, run_pb2.RunOptions(improve="words"))
        one.store.store.delete(record["artifacts"]["train"]["uri"].removeprefix("p2m://"))
        await _refused(one, FailedPrecondition, "its train split is no longer in the store")


async def _refused(one: House, kind: type[P2MError], said: str, of: str = "words", **options: Any) -> None:
    with pytest.raises(kind, match=re.escape(said)):
        await one.improve(of, **options)
    with pytest.raises(NotFound):
        await one.client.get(f"{of}.2")
    assert one.teacher.requests == []


def _mark(row: Row) -> str:
    found = re.search(r"given\d+", row.input)
    assert found
    return found[0]


def _file(one: House, run: run_pb2.Run, path: str) -> str:
    from orchestrator import results

    return results.read(House.settings, run, path).decode()
