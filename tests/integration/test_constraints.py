"""What a person asks of the model and of the dataset: it reaches both searches, and the record tells it."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from p2m.dataset_retriever.v1 import dataset_retriever_pb2
from p2m.run.v1 import run_pb2

from bench.idle import IdleDatasetRetriever
from orchestrator.constraints import asked_for
from orchestrator.service import identity
from services.kit.artifacts import Artifacts
from services.kit.errors import AlreadyExists, InvalidArgument
from services.kit.values import Artifact
from services.kit.wire import from_message
from tests.integration.conftest import PROMPT, IdleRuns, finished, read_record, stage

ASKED = run_pb2.RunOptions(
    number=4, licence="permissive", languages=["ja", "en"], max_model_bytes=300_000_000, max_cpu_latency_ms=50.0,
    max_dataset_bytes=2_000_000_000, dataset_task="summarization", include_gated=True,
)  # fmt: skip


async def test_they_reach_both_searches_and_the_record(idle_runs: IdleRuns) -> None:
    """Model and dataset search get what the run asks for; run.json says it in words."""
    requests: dict[str, Any] = {}

    async def keep(request: Any) -> None:
        requests[type(request).__module__.split(".")[1]] = request

    searches = {f"{name}_retriever.SearchRequest": keep for name in ("dataset", "model")}
    async with idle_runs(searches) as stack:
        await stack.client.start("asked", PROMPT, ASKED)
        run = await finished(stack.client, "asked")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        record = read_record(Artifacts.open(stack.settings, "tests"), from_message(run.result, Artifact))
    assert MessageToDict(requests["model_retriever"].constraints, preserving_proto_field_name=True) == {
        "max_size_bytes": "300000000", "cpu_latency_ms": 50.0, "licence": "permissive", "languages": ["ja", "en"],
    }  # fmt: skip
    assert MessageToDict(requests["dataset_retriever"].filters, preserving_proto_field_name=True) == {
        "languages": ["ja", "en"], "licence": "permissive", "max_size_bytes": "2000000000", "task": "summarization",
        "include_gated": True, "needs_train_split": True,
    }  # fmt: skip
    assert record["asked_for"] == asked_for(ASKED)
    assert set(record["search_notes"]) == {"datasets", "models"} and record["excluded_datasets"] == []


async def test_they_are_part_of_what_a_run_is(idle_runs: IdleRuns) -> None:
    """Other constraints are another run: under a finished run's name they are refused."""
    assert identity(PROMPT, ASKED) != identity(PROMPT, run_pb2.RunOptions(number=4))
    async with idle_runs() as stack:
        await stack.client.start("same", PROMPT, ASKED)
        await finished(stack.client, "same")
        with pytest.raises(AlreadyExists):
            await stack.client.start("same", PROMPT, run_pb2.RunOptions(number=4, licence="mit"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (run_pb2.RunOptions(licence="free"), "options.licence"),
        (run_pb2.RunOptions(languages=["klingon"]), "options.languages"),
        (run_pb2.RunOptions(languages=["en"] * 33), "options.languages"),
        (run_pb2.RunOptions(dataset_task="make it short"), "options.dataset_task"),
        (run_pb2.RunOptions(max_dataset_bytes=0), "options.max_dataset_bytes"),
        (run_pb2.RunOptions(max_cpu_latency_ms=float("nan")), "options.max_cpu_latency_ms"),
        (run_pb2.RunOptions(max_cpu_latency_ms=-1), "options.max_cpu_latency_ms"),
    ],
)
async def test_what_cannot_be_is_refused_at_the_start(
    idle_runs: IdleRuns, options: run_pb2.RunOptions, field: str
) -> None:
    """A licence, language, task, size or latency that is none is INVALID_ARGUMENT before a run is made."""
    async with idle_runs() as stack:
        with pytest.raises(InvalidArgument, match="wanted") as raised:
            await stack.client.start("wrong", PROMPT, options)
        assert raised.value.field == field


@pytest.mark.parametrize("named", [False, True])
async def test_a_licence_that_is_known_only_once_looked_into(
    idle_runs: IdleRuns, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """A dataset that turns out to have another licence is not used, unless it was named, which the record then says."""

    async def inspect(self: Any, request: Any, context: Any) -> Any:
        column = dataset_retriever_pb2.Column
        response = dataset_retriever_pb2.InspectResponse(
            columns=[column(name="question", type="string"), column(name="answer", type="string")],
            input_columns=["question"], output_column="answer", licence="cc-by-nc-4.0",
        )  # fmt: skip
        return await self.unary(request, dataset_retriever_pb2.InspectResponse, response)

    monkeypatch.setattr(IdleDatasetRetriever, "Inspect", inspect)
    options = run_pb2.RunOptions(number=4, licence="permissive", dataset="idle/one" if named else "")
    async with idle_runs() as stack:
        await stack.client.start("licence", PROMPT, options)
        run = await finished(stack.client, "licence")
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        record = read_record(Artifacts.open(stack.settings, "tests"), from_message(run.result, Artifact))
    said = "The licence of idle/one is cc-by-nc-4.0; wanted permissive."
    if named:
        assert any(note.startswith(said) for note in record["search_notes"]["datasets"])
    else:
        assert stage(run, "datasets").state == run_pb2.STAGE_STATE_SKIPPED
        assert record["chosen"]["dataset"] is None and any(said in one for one in record["search_notes"]["datasets"])
