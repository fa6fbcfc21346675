"""DatasetRetrieverService, by its proto."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from p2m.common.v1 import common_pb2 as common
from p2m.dataset_retriever.v1 import dataset_retriever_pb2 as pb
from p2m.dataset_retriever.v1 import dataset_retriever_pb2_grpc as rpc

from catalogue.dataset_cards import dataset_text
from catalogue.facts import facts
from services.kit import embed, licences, locations
from services.kit.artifacts import Artifacts
from services.kit.channel import stream, unary
from services.kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, P2MError
from services.kit.index import save
from services.kit.settings import Settings
from services.kit.values import Artifact, Progress, Row
from services.kit.wire import from_message, to_message
from tests.contract.conftest import Connect
from tests.support.teacher import ScriptedTeacher

DATES = common.PromptSpec(instruction="Find the date in a sentence and write it in digits: year, month, day.")


OWN = Settings(openai_base_url="", openai_api_key="", hub_offline=True)


async def _stub(connect: Connect, **changes: Any) -> rpc.DatasetRetrieverServiceStub:
    return rpc.DatasetRetrieverServiceStub(await connect("dataset_retriever", **changes))


async def test_search_ranks_and_chooses(connect: Connect, run_name: str) -> None:
    """Candidates come best first, each once, with the parts of their score; the choice is one that can be loaded."""
    stub = await _stub(connect)
    request = pb.SearchRequest(request_id=f"{run_name}/dataset_search", spec=DATES, k=8)
    found = await unary(stub.Search, request)
    scores = [candidate.score for candidate in found.candidates]
    assert 0 < len(scores) <= 8 and scores == sorted(scores, reverse=True)
    assert len({candidate.id for candidate in found.candidates}) == len(scores)
    assert all(candidate.parts and candidate.why for candidate in found.candidates)
    if found.HasField("chosen") and found.chosen:
        assert {candidate.id: candidate.reachable for candidate in found.candidates}[found.chosen]


async def test_the_same_request_has_the_same_answer(connect: Connect, run_name: str) -> None:
    """The same id with the same content gives the stored answer; with other content it is ALREADY_EXISTS."""
    stub = await _stub(connect)
    request = pb.SearchRequest(request_id=f"{run_name}/dataset_search", spec=DATES)
    first = await unary(stub.Search, request)
    assert await unary(stub.Search, request) == first
    request.k = 3
    with pytest.raises(AlreadyExists):
        await unary(stub.Search, request)


async def test_a_search_that_cannot_be(connect: Connect, run_name: str) -> None:
    """k out of bounds, and a spec with nothing in it, are INVALID_ARGUMENT with the field's name."""
    stub = await _stub(connect)
    for field, request in (
        ("k", pb.SearchRequest(request_id=f"{run_name}/low", spec=DATES, k=-1)),
        ("k", pb.SearchRequest(request_id=f"{run_name}/high", spec=DATES, k=1001)),
        ("spec", pb.SearchRequest(request_id=f"{run_name}/empty")),
    ):
        with pytest.raises(InvalidArgument) as raised:
            await unary(stub.Search, request)
        assert raised.value.field == field


async def test_what_is_asked_of_a_dataset_holds(connect: Connect, run_name: str) -> None:
    """Each candidate is known to satisfy every filter, or has a flag that says what is not known of it; what is left
    out has its reason, is in neither list twice, and is counted in a note."""
    stub = await _stub(connect)
    filters = pb.Filters(languages=["en"], licence="permissive", max_size_bytes=10**8, task="summarization")
    request = pb.SearchRequest(request_id=f"{run_name}/filtered", spec=DATES, k=1000, filters=filters)
    found = await unary(stub.Search, request)
    for candidate in found.candidates:
        known = (
            "en" in candidate.languages,
            bool(candidate.licence) and licences.allows(candidate.licence, "permissive"),
            0 < candidate.size_bytes <= 10**8,
            "summarization" in candidate.tasks,
        )
        assert sum(not one for one in known) <= len(candidate.flags), candidate.id
    kept, out = ([one.id for one in found.candidates], [one.id for one in found.excluded])
    assert len({*kept, *out}) == len(kept) + len(out) and len(out) <= 20
    assert all(one.reason for one in found.excluded)
    assert not out or any("Left out" in note for note in found.notes)


@pytest.mark.parametrize(
    ("field", "filters"),
    [
        ("filters.languages", pb.Filters(languages=["klingon"])),
        ("filters.licence", pb.Filters(licence="free")),
        ("filters.max_size_bytes", pb.Filters(max_size_bytes=-1)),
        ("filters.task", pb.Filters(task="make it short")),
    ],
)
async def test_filters_that_cannot_be(connect: Connect, run_name: str, field: str, filters: pb.Filters) -> None:
    """A language, licence, size or task that is none is INVALID_ARGUMENT with the field's name."""
    stub = await _stub(connect)
    with pytest.raises(InvalidArgument) as raised:
        await unary(stub.Search, pb.SearchRequest(request_id=f"{run_name}/wrong", spec=DATES, filters=filters))
    assert raised.value.field == field


async def test_an_unknown_dataset_is_not_found(connect: Connect, run_name: str) -> None:
    """Inspect and Retrieve of a dataset that the catalogue does not have are NOT_FOUND."""
    stub = await _stub(connect)
    with pytest.raises(NotFound):
        await unary(stub.Inspect, pb.InspectRequest(request_id=f"{run_name}/inspect", dataset="no/such", spec=DATES))
    request = pb.RetrieveRequest(
        request_id=f"{run_name}/retrieve", dataset="no/such", input_columns=["a"], output_column="b"
    )
    with pytest.raises(NotFound):
        await stream(stub.Retrieve, request)


async def test_a_chosen_dataset_is_inspected_and_brought_in(
    connect: Connect, run_name: str, settings: Settings
) -> None:
    """What Search chose, Inspect describes with usable columns, and Retrieve stores as a dataset artifact."""
    stub = await _stub(connect)
    found = await unary(stub.Search, pb.SearchRequest(request_id=f"{run_name}/dataset_search", spec=DATES))
    if not found.chosen:
        pytest.skip("the server's catalogue has no dataset for this task")
    look = await unary(
        stub.Inspect, pb.InspectRequest(request_id=f"{run_name}/inspect", dataset=found.chosen, spec=DATES)
    )
    names = {column.name for column in look.columns}
    assert look.output_column in names and names.issuperset(look.input_columns) and look.input_columns
    assert 0 < len(look.sample_rows) <= 10 and all(isinstance(json.loads(row), dict) for row in look.sample_rows)
    assert all(row.input and row.output for row in look.flattened)
    progress: list[Progress] = []
    result = await stream(
        stub.Retrieve,
        pb.RetrieveRequest(
            request_id=f"{run_name}/retrieve", dataset=found.chosen, config=look.config,
            input_columns=look.input_columns, output_column=look.output_column, max_rows=20,
        ),
        report=progress.append,
    )  # fmt: skip
    rows = Artifacts.open(settings, "dataset_retriever").read_rows(from_message(result.dataset, Artifact))
    assert {row.source for row in rows} == {found.chosen} and all(row.input and row.output for row in rows)
    assert {split.split: split.rows for split in result.splits} == {
        split: sum(row.split == split for row in rows) for split in {row.split for row in rows}
    }
    assert all(split.rows <= 20 for split in result.splits)


UNUSABLE: list[tuple[dict[str, Any], tuple[str, str], type[P2MError]]] = [
    ({"a": "x", "b": "y"}, ("a", "missing"), InvalidArgument),
    ({"a": "x", "b": None}, ("a", "b"), InvalidArgument),
    ({"a": "x", "b": {"c": "y"}}, ("a", "b"), InvalidArgument),
    ({"a": "x", "b": ""}, ("a", "b"), FailedPrecondition),
]


def _catalogue(folder: Path) -> Path:
    """The index of a catalogue with one dataset for each case of UNUSABLE, and with none of the starter's."""
    entries = []
    for number, (row, _, _) in enumerate(UNUSABLE):
        (folder / f"rows{number}").mkdir()
        (folder / f"rows{number}" / "train.jsonl").write_text(json.dumps(row) + "\n")
        entries.append({"id": f"mine{number}", "description": "Messages.", "location": f"folder:{folder}/rows{number}"})
    texts, digest = [dataset_text(entry) for entry in entries], embed.digest(locations.resolve(OWN.encoder, OWN))
    save(
        folder / "index" / "datasets", entries, texts, np.eye(384, dtype=np.float32)[: len(entries)],
        facts=facts("datasets", entries), source="given:tests", encoder=digest,
    )  # fmt: skip
    return folder / "index"


async def test_columns_that_cannot_be_loaded(connect: Connect, run_name: str, tmp_path: Path) -> None:
    """Missing, all None, nested and empty columns each have a clear error that names the dataset."""
    stub = await _stub(connect, catalogue=str(_catalogue(tmp_path)))
    for number, (_, (given, wanted), error) in enumerate(UNUSABLE):
        request = pb.RetrieveRequest(
            request_id=f"{run_name}/{number}", dataset=f"mine{number}", input_columns=[given], output_column=wanted
        )
        with pytest.raises(error, match=f"mine{number}"):
            await stream(stub.Retrieve, request)


async def test_the_llm_may_say_that_none_fits(connect: Connect, run_name: str) -> None:
    """With reranking the LLM's choice counts: one of the candidates, or none; what it cost is in the ledger."""
    async with ScriptedTeacher({"dataset_choice": {"dataset": "p2m/extract-names", "why": "It fits."}}) as teacher:
        stub = await _stub(connect, openai_base_url=teacher.url)
        request = pb.SearchRequest(request_id=f"{run_name}/one", spec=DATES, rerank=True)
        found = await unary(stub.Search, request)
        assert found.chosen == "p2m/extract-names" and found.chosen_by_llm
        assert found.expansion and found.ledger.requests == 2
        teacher.answers = {"dataset_choice": {"dataset": "None of these fit", "why": "No."}}
        request.request_id = f"{run_name}/none"
        found = await unary(stub.Search, request)
        assert found.HasField("chosen") and found.chosen == "" and found.candidates and found.chosen_by_llm


async def test_a_spent_budget_leaves_the_choice_to_the_scores(connect: Connect, run_name: str) -> None:
    """With an allowance of nothing the LLM is not asked, the scores choose, and a note says so."""
    async with ScriptedTeacher() as teacher:
        stub = await _stub(connect, openai_base_url=teacher.url)
        found = await unary(
            stub.Search,
            pb.SearchRequest(
                request_id=f"{run_name}/search", spec=DATES, rerank=True, allowance=common.Allowance(requests=0)
            ),
        )
        assert found.chosen == "p2m/normalise-dates" and found.notes and not teacher.requests
        assert not found.chosen_by_llm and not found.expansion


async def test_an_llm_out_of_reach_is_asked_once(connect: Connect, run_name: str) -> None:
    """Where the LLM cannot be reached the scores choose, a note says so, and it is not waited for a second time."""
    stub = await _stub(connect, openai_base_url="http://127.0.0.1:9/v1", llm_patience_s=1.0)
    request = pb.SearchRequest(request_id=f"{run_name}/search", spec=DATES, rerank=True)
    found = await unary(stub.Search, request)
    assert found.chosen == "p2m/normalise-dates" and not found.chosen_by_llm
    assert sum("LLM" in note for note in found.notes) == 1


ROWS = [Row(f"in {number}", f"out {number}", "theirs", "train") for number in range(5)]


async def test_rows_are_rewritten_and_those_that_fail_counted(
    connect: Connect, run_name: str, settings: Settings
) -> None:
    """Adapt: a plan, then the rows by it; what cannot be derived is dropped and counted; source and split are kept."""
    artifacts = Artifacts.open(settings, "dataset_retriever")
    dataset = to_message(artifacts.put_rows(ROWS), common.Artifact)

    def rewrite(body: dict[str, Any], _: Any) -> Any:
        told = re.findall(r'^(\d+): .*?in (\d)"', body["messages"][-1]["content"], re.MULTILINE)
        return {
            "rows": [
                {"row": int(place), "derivable": number != "3", "input": f"new {number}", "output": "x"}
                for place, number in told
            ]
        }

    plan = {"possible": True, "steps": ["Write the date."], "keep": "Dates.", "drop": "Others.", "format": "Digits."}
    async with ScriptedTeacher({"plan": plan, "rows": rewrite}) as teacher:
        stub = await _stub(connect, openai_base_url=teacher.url)
        result = await stream(
            stub.Adapt, pb.AdaptRequest(request_id=f"{run_name}/adapt", dataset=dataset, spec=DATES, max_rows=4)
        )
    rows = artifacts.read_rows(from_message(result.dataset, Artifact))
    assert result.rows == len(rows) and sum(result.dropped.values()) + len(rows) == 5
    assert all(row.source == "theirs+adapted" and row.split == "train" and row.input.startswith("new") for row in rows)
    assert [*result.plan.steps] == ["Write the date."] and result.complete and result.ledger.requests == 2


async def test_rewriting_needs_an_llm(connect: Connect, run_name: str, settings: Settings) -> None:
    """Without an LLM Adapt is FAILED_PRECONDITION, reason NO_LLM."""
    stub = await _stub(connect, openai_base_url="")
    dataset = to_message(Artifacts.open(settings, "dataset_retriever").put_rows(ROWS), common.Artifact)
    with pytest.raises(FailedPrecondition) as raised:
        await stream(stub.Adapt, pb.AdaptRequest(request_id=f"{run_name}/adapt", dataset=dataset, spec=DATES))
    assert raised.value.reason == "NO_LLM"
