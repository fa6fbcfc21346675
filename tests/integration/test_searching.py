"""`--search` and `--attribution`: what reaches the services, what the record keeps, what stays the same without."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from p2m.evaluator.v1 import evaluator_pb2
from p2m.model_retriever.v1 import model_retriever_pb2
from p2m.run.v1 import run_pb2
from p2m.trainer.v1 import trainer_pb2

from bench.idle import IdleEvaluator, IdleModelRetriever, IdleTrainer
from orchestrator.report import render
from orchestrator.service import identity
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.values import Artifact
from services.kit.wire import from_message
from tests.integration.conftest import PROMPT, Idle, IdleRuns, finished, read_record, stage
from tests.integration.test_runs import raising

BEST = trainer_pb2.HyperParameters(learning_rate=2e-4, epochs=5.0, batch_tokens=2048)


@pytest.fixture(autouse=True)
def services(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Three models, two sources, a search that the second candidate wins, and 8 points for each source.

    Gives the requests to train and to measure, in order.
    """
    asked: list[Any] = []

    async def models(self: Any, request: Any, context: Any) -> Any:
        candidates = [
            model_retriever_pb2.ModelCandidate(
                id=f"idle/{name}", score=3 - place, location=f"folder:/{name}", cpu_latency_ms=latency,
                size_bytes=1000, learning_rate=1e-4 if place == 0 else 0.0, architecture="encoder",
            )
            for place, (name, latency) in enumerate((("first", 9.0), ("slow", 50.0), ("quick", 2.0)))
        ]  # fmt: skip
        named = [one for one in candidates if one.id == request.constraints.model] or candidates
        response = model_retriever_pb2.SearchResponse(candidates=named)
        return await self.unary(request, model_retriever_pb2.SearchResponse, response)

    async def prepare(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        rows = self.rows()
        counts = [
            trainer_pb2.SourceCount(source="squad", kind=trainer_pb2.DATASET_KIND_RETRIEVED, split="train", rows=300),
            trainer_pb2.SourceCount(
                source="generated", kind=trainer_pb2.DATASET_KIND_GENERATED, split="train", rows=100
            ),
            trainer_pb2.SourceCount(source="generated", kind=trainer_pb2.DATASET_KIND_GENERATED, split="test", rows=50),
        ]
        result = trainer_pb2.PrepareResult(train=rows, validation=rows, test=rows, counts=counts)
        async for event in self.stream(request, trainer_pb2.PrepareResponse, result):
            yield event

    async def search(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        asked.append(request)
        trials = [
            trainer_pb2.Trial(
                number=number, model=one.model, hyper_parameters=BEST, state=trainer_pb2.TRIAL_STATE_COMPLETE,
                validation_exact_match=50 + number,
                validation_loss=0.5, seconds=2, parameters=10, size_bytes=40, cpu_latency_ms=one.cpu_latency_ms,
            )
            for number, one in enumerate(request.candidates)
        ]  # fmt: skip
        best = min(1, len(trials) - 1)
        result = trainer_pb2.SearchResult(trials=trials, best=best, pareto=[0, best], seconds=6)
        async for event in self.stream(request, trainer_pb2.SearchResponse, result):
            yield event

    train_of_old, measure_of_old = IdleTrainer.Train, IdleEvaluator.Measure

    async def train(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        asked.append(request)
        async for event in train_of_old(self, request, context):
            if event.HasField("result"):
                event.result.seconds = 4.0
            yield event

    async def measure(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        if not request.name.startswith("without_"):
            async for event in measure_of_old(self, request, context):
                yield event
            return
        asked.append(request)
        difference = evaluator_pb2.Estimate(value=-8, low=-12, high=-4)
        if request.name == "without_generated":
            difference = evaluator_pb2.Estimate(value=0, low=-4, high=4)
        compared = evaluator_pb2.Comparison(against="student", metric="exact_match", difference=difference, rows=50)
        result = evaluator_pb2.MeasureResult(comparisons=[compared])
        async for event in self.stream(request, evaluator_pb2.MeasureResponse, result):
            yield event

    monkeypatch.setattr(IdleModelRetriever, "Search", models)
    monkeypatch.setattr(IdleTrainer, "Prepare", prepare)
    monkeypatch.setattr(IdleTrainer, "Search", search, raising=False)
    monkeypatch.setattr(IdleTrainer, "Train", train)
    monkeypatch.setattr(IdleEvaluator, "Measure", measure)
    return asked


async def _ended(idle: Idle, **options: Any) -> tuple[run_pb2.Run, dict[str, Any]]:
    run = await idle.client.start("tried", PROMPT, run_pb2.RunOptions(number=4, **options))
    run = await finished(idle.client, run.name)
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    return run, read_record(Artifacts.open(idle.settings, "tests"), from_message(run.result, Artifact))


async def test_the_winner_is_trained(idle_runs: IdleRuns, services: list[Any]) -> None:
    """The chosen model is tried first, then the others, the cheapest first; the winner is trained as it won, and the
    record and the report name it."""
    async with idle_runs() as idle:
        run, record = await _ended(idle, search_seconds=60, checkpoint_steps=7, seed=5)
    search, train = services
    assert [one.model for one in search.candidates] == ["folder:/first", "folder:/quick", "folder:/slow"]
    assert MessageToDict(search.candidates[0].start) == {"learningRate": 1e-4}
    assert (search.budget_seconds, search.seed, search.request_id) == (60, 5, "tried/search")
    assert search.hyper_parameters.checkpoint_steps == 7 and not search.hyper_parameters.HasField("learning_rate")
    assert train.model == "folder:/quick"
    trained = train.hyper_parameters
    assert (trained.learning_rate, trained.epochs, trained.batch_tokens, trained.checkpoint_steps) == (2e-4, 5, 2048, 7)
    assert "idle/quick the best of 3 trials" in stage(run, "train").message
    assert record["chosen"]["model"]["id"] == "idle/quick" and record["chosen"]["model"]["by"] == "search"
    assert [trial["model"] for trial in record["search"]["trials"]] == ["idle/first", "idle/quick", "idle/slow"]
    page = render(record)
    assert "Trial 2 was the best" in page and '<svg class="front"' in page and page.count("trained to its end") == 1


async def test_what_is_named_or_set_is_kept(idle_runs: IdleRuns, services: list[Any]) -> None:
    """A model that was named is the only candidate; a rate that was typed is in every trial."""
    async with idle_runs() as idle:
        await _ended(idle, search_seconds=60, model="idle/slow", learning_rate=3e-3)
    search = services[0]
    assert [one.model for one in search.candidates] == ["folder:/slow"]
    assert search.hyper_parameters.learning_rate == 3e-3


async def test_without_them_nothing_changes(idle_runs: IdleRuns, services: list[Any]) -> None:
    """A run that asks for neither searches nothing, trains once, and its report has no such section."""
    async with idle_runs() as idle:
        _, record = await _ended(idle)
    [train] = services
    assert train.model == "folder:/first" and not train.leave_out
    assert record["search"] is None and record["attribution"] is None
    page = render(record)
    assert 'id="search"' not in page and 'id="attribution"' not in page


async def test_a_search_that_cannot_be_is_gone_without(
    idle_runs: IdleRuns, services: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without validation rows the run's own choice is trained as usual, and the report tells why."""
    refused = raising(FailedPrecondition("NO_ROWS", "The validation split has no rows."))

    async def search(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        await refused(request)
        yield trainer_pb2.SearchResponse()

    monkeypatch.setattr(IdleTrainer, "Search", search)
    async with idle_runs() as idle:
        _, record = await _ended(idle, search_seconds=60)
    assert services[0].model == "folder:/first" and services[0].hyper_parameters.learning_rate == 1e-4
    assert record["search"]["notes"] == ["The validation split has no rows."]
    assert "The validation split has no rows." in render(record)


async def test_each_source_is_left_out_once(idle_runs: IdleRuns, services: list[Any]) -> None:
    """For each source one training without its rows, otherwise the student's, on the same splits; and one measurement
    beside the student's recorded answers. What it contributed is the student less that one."""
    async with idle_runs() as idle:
        _, record = await _ended(idle, attribution_seconds=600)
    full, *rest = services
    assert [type(one).__name__ for one in rest] == ["TrainRequest", "MeasureRequest"] * 2
    for request, kind, names in zip(rest[::2], ("retrieved", "generated"), (["squad"], ["generated"]), strict=True):
        assert request.request_id == f"tried/attribution/{kind}/train" and [*request.leave_out] == names
        request.request_id, request.leave_out[:] = full.request_id, []
        assert request == full
    assert [one.request_id for one in rest[1::2]] == [
        f"tried/attribution/{kind}/measure" for kind in ("retrieved", "generated")
    ]
    assert all(one.HasField("predictions") for one in rest[1::2])
    found = record["attribution"]
    assert [(one["source"], one["rows"]) for one in found["sources"]] == [("retrieved", 300), ("generated", 100)]
    assert found["sources"][0]["difference"] == {"value": 8, "low": 4, "high": 12}
    page = render(record)
    assert "What each source contributed" in page and "+8.0" in page
    assert "generated: +0.0 points" in page and "-0.0" not in page


async def test_the_time_leaves_sources_out(idle_runs: IdleRuns, services: list[Any]) -> None:
    """A source whose training would take longer than the time that is left is not begun and is told."""
    async with idle_runs() as idle:
        _, record = await _ended(idle, attribution_seconds=4.5)
    assert len(services) == 3
    found = record["attribution"]
    assert [one["source"] for one in found["sources"]] == ["retrieved"]
    assert [one["source"] for one in found["left_out"]] == ["generated"]
    assert "does not allow" in found["left_out"][0]["why"]
    assert "does not allow" in render(record)


async def test_a_training_over_time_is_cut(idle_runs: IdleRuns) -> None:
    """A training that is still under way when the time is up is stopped, and its source is left out."""

    async def slow(request: Any) -> None:
        if request.leave_out:
            await asyncio.sleep(3600)

    async with idle_runs({"trainer.TrainRequest": slow}) as idle:
        _, record = await _ended(idle, attribution_seconds=1.1)
    assert record["attribution"]["sources"] == []
    assert {one["source"]: one["why"] for one in record["attribution"]["left_out"]}["retrieved"] == "the time was up"


@pytest.mark.parametrize("name", ["search_seconds", "attribution_seconds"])
@pytest.mark.parametrize("value", [0.0, -5.0, float("nan"), float("inf"), 1e9])
async def test_times_that_cannot_be(idle_runs: IdleRuns, name: str, value: float) -> None:
    """A time out of its range is INVALID_ARGUMENT and names the option; a time is part of what a run is."""
    options = run_pb2.RunOptions(number=4)
    setattr(options, name, value)
    async with idle_runs() as idle:
        with pytest.raises(InvalidArgument) as caught:
            await idle.client.start("wrong", PROMPT, options)
    assert caught.value.field == f"options.{name}"
    setattr(options, name, 60.0)
    assert identity(PROMPT, options) != identity(PROMPT, run_pb2.RunOptions(number=4))
