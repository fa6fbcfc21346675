"""A found dataset that fits only in part: rewritten where that can be, else told why not; never called real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from p2m.common.v1 import common_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2 as pb
from p2m.run.v1 import run_pb2
from p2m.trainer.v1 import trainer_pb2

from bench.idle import IdleDatasetRetriever
from orchestrator.adaptation import BY_ITSELF
from orchestrator.report import render
from services.kit.artifacts import Artifacts
from services.kit.errors import BudgetExhausted, FailedPrecondition, P2MError
from services.kit.values import Artifact
from services.kit.wire import from_message
from tests.integration.conftest import PROMPT, IdleRuns, finished, read_record, stage

WHY = "Its outputs have about 20 words, the demonstrations' 1."


def _fits(monkeypatch: pytest.MonkeyPatch, fit: int) -> None:
    """Every dataset fits so."""

    async def inspect(self: Any, request: Any, context: Any) -> Any:
        response = pb.InspectResponse(
            columns=[pb.Column(name=name, type="string") for name in ("question", "answer")],
            input_columns=["question"], output_column="answer", fit=pb.Fit.ValueType(fit),
            fit_why=WHY if fit == pb.FIT_PART else "",
            flattened=[common_pb2.Demonstration(input="a found input", output="a found output")],
        )  # fmt: skip
        return await self.unary(request, pb.InspectResponse, response)

    monkeypatch.setattr(IdleDatasetRetriever, "Inspect", inspect)


def _rewrites(monkeypatch: pytest.MonkeyPatch, refused: P2MError | None = None) -> None:
    """Adapt answers, or refuses."""

    async def adapt(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        if refused:
            raise refused
        plan = pb.AdaptPlan(steps=["Cut the answer", "Keep the colour."], format="One word.")
        result = pb.AdaptResult(
            dataset=self.rows(), rows=4, dropped={"not derivable": 2}, plan=plan, complete=True,
            ledger=common_pb2.Ledger(requests=3),
        )  # fmt: skip
        async for event in self.stream(request, pb.AdaptResponse, result):
            yield event

    monkeypatch.setattr(IdleDatasetRetriever, "Adapt", adapt)


async def _ran(idle_runs: IdleRuns, options: run_pb2.RunOptions) -> tuple[run_pb2.Run, dict[str, Any], dict[str, Any]]:
    """The run, its record, and its requests to adapt and to prepare."""
    requests: dict[str, Any] = {}

    async def keep(request: Any) -> None:
        requests[type(request).__name__] = request

    async with idle_runs({"dataset_retriever.AdaptRequest": keep, "trainer.PrepareRequest": keep}) as stack:
        await stack.client.start("adapting", PROMPT, options)
        run = await finished(stack.client, "adapting")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        record = read_record(Artifacts.open(stack.settings, "tests"), from_message(run.result, Artifact))
    return run, record, requests


def _kinds(requests: dict[str, Any]) -> list[int]:
    return [source.kind for source in requests["PrepareRequest"].sources]


async def test_what_fits_in_part_is_rewritten(idle_runs: IdleRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, within a bound; the rows are no real ones; plan, counts and reason are in record and report."""
    _fits(monkeypatch, pb.FIT_PART)
    _rewrites(monkeypatch)
    run, record, requests = await _ran(idle_runs, run_pb2.RunOptions(number=4))
    assert requests["AdaptRequest"].max_rows == BY_ITSELF
    assert trainer_pb2.DATASET_KIND_ADAPTED in _kinds(requests)
    assert trainer_pb2.DATASET_KIND_RETRIEVED not in _kinds(requests)
    chosen = record["chosen"]["dataset"]
    assert chosen["fit"] == "part" and chosen["fit_why"] == WHY
    assert chosen["adapted"]["rows"] == 4 and chosen["adapted"]["dropped"] == {"not derivable": 2}
    assert chosen["adapted"]["plan"]["steps"] == ["Cut the answer", "Keep the colour."]
    assert "4 rows rewritten" in stage(run, "datasets").message and stage(run, "datasets").ledger.requests == 3
    page = render(record)
    assert "The plan was: Cut the answer. Keep the colour." in page and "a found output" in page


async def test_a_small_llm_does_not_rewrite_and_the_report_says_so(
    idle_runs: IdleRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an LLM that is too weak to rank, the rows are used as they are, and the report says why."""
    _fits(monkeypatch, pb.FIT_PART)
    _rewrites(monkeypatch)
    monkeypatch.setattr("orchestrator.adaptation.is_capable", lambda _: False)
    _, record, requests = await _ran(idle_runs, run_pb2.RunOptions(number=4, adapt=True))
    assert "AdaptRequest" not in requests and trainer_pb2.DATASET_KIND_RETRIEVED in _kinds(requests)
    told = " ".join(record["search_notes"]["datasets"])
    assert "only in part" in told and "was not adapted because the LLM is too small" in told
    assert "was not adapted because the LLM is too small" in render(record)


@pytest.mark.parametrize(
    "refused",
    [FailedPrecondition("NO_ROWS", "The LLM made no usable row."), BudgetExhausted("The allowance of 0 requests ...")],
)
async def test_rewriting_that_fails_leaves_the_rows_as_they_are(
    idle_runs: IdleRuns, monkeypatch: pytest.MonkeyPatch, refused: P2MError
) -> None:
    """Where the LLM makes nothing of the rows, or nothing can be paid for, the run goes on and says why."""
    _fits(monkeypatch, pb.FIT_PART)
    _rewrites(monkeypatch, refused)
    _, record, requests = await _ran(idle_runs, run_pb2.RunOptions(number=4))
    assert trainer_pb2.DATASET_KIND_RETRIEVED in _kinds(requests)
    assert record["chosen"]["dataset"]["adapted"]["rows"] == 0
    told = " ".join(record["search_notes"]["datasets"])
    assert f"The dataset was not adapted because {refused.message}" in told


@pytest.mark.parametrize(
    ("fit", "options", "asked"),
    [
        (pb.FIT_WHOLE, run_pb2.RunOptions(number=4), False),
        (pb.FIT_UNSPECIFIED, run_pb2.RunOptions(number=4), False),
        (pb.FIT_PART, run_pb2.RunOptions(number=4, adapt=False), False),
        (pb.FIT_WHOLE, run_pb2.RunOptions(number=4, adapt=True), True),
    ],
)
async def test_when_rows_are_rewritten(
    idle_runs: IdleRuns, monkeypatch: pytest.MonkeyPatch, fit: int, options: run_pb2.RunOptions, asked: bool
) -> None:
    """Not where they fit, not where nothing tells, not with --no-adapt; always with --adapt."""
    _fits(monkeypatch, fit)
    _rewrites(monkeypatch)
    _, record, requests = await _ran(idle_runs, options)
    assert ("AdaptRequest" in requests) == asked
    assert bool(record["chosen"]["dataset"]["adapted"]["rows"]) == asked
    assert record["chosen"]["dataset"]["adapted"]["why"]
