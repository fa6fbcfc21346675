"""What a run takes by default, and what a person is shown who is asked."""

from __future__ import annotations

import io

from p2m.common.v1 import common_pb2 as common
from p2m.dataset_retriever.v1 import dataset_retriever_pb2 as datasets
from p2m.model_retriever.v1 import model_retriever_pb2 as models

from orchestrator import display
from orchestrator.choices import columns_question, dataset_question, fitting, model_question

SEARCH = datasets.SearchResponse(
    candidates=[
        datasets.DatasetCandidate(
            id="far/one", why="Its description fits.", flags=["It is gated: accept its terms on the hub."]
        ),
        datasets.DatasetCandidate(
            id="near/one", why="Both say dates.", reachable=True, licence="mit", languages=["en", "ja"],
            size_bytes=12_000_000,
        ),
    ],
    excluded=[datasets.ExcludedDataset(id=f"out/{number}", reason="Its licence is gpl-3.0.") for number in range(9)],
    notes=["Left out 9 of 11 datasets: 9 not permissive."], chosen="near/one",
)  # fmt: skip


def _shown(question: object) -> str:
    stream = io.StringIO()
    display.question(stream, question, "dates")  # type: ignore[arg-type]
    return stream.getvalue()


def test_each_dataset_says_what_it_is_and_why() -> None:
    """A person sees id, licence, languages, size, why and what stands against it, and what was left out and why."""
    question = dataset_question(SEARCH, ["near/one"])
    assert [option.value for option in question.options] == ["near/one", "far/one", "none"]
    shown = _shown(question)
    assert " 1  near/one (mit; en, ja; 12 MB): Both say dates.  (what p2m would take)" in shown
    assert " 2  far/one (out of reach): Its description fits. It is gated: accept its terms on the hub." in shown
    assert "Left out 9 of 11 datasets: 9 not permissive." in shown
    assert shown.count("Left out: out/") == 3 and "Its licence is gpl-3.0." in shown


def test_each_model_says_what_it_is_and_why() -> None:
    """A person sees id, licence, size, latency and why."""
    search = models.SearchResponse(
        candidates=[
            models.ModelCandidate(
                id="t5", why="Its card fits.", size_bytes=240_000_000, cpu_latency_ms=41.6, licence="mit"
            )
        ],
        excluded=[
            models.ExcludedModel(id="big", reason="Its weights take 5 GB; the limit is 3 GB."),
            models.ExcludedModel(id="bigger", reason="Its weights take 9 GB; the limit is 3 GB."),
            models.ExcludedModel(id="de", reason="It is for de; wanted ja."),
        ],
    )
    shown = _shown(model_question(search))
    assert (
        "t5 (mit; 240 MB; 42 ms): Its card fits." in shown
        and "Left out: big. Its weights take 5 GB; the limit is 3 GB." in shown
    )
    assert "Left out, of those that rank high: 2 (the limit is 3 GB), 1 (wanted ja)." in shown


def test_ten_rows_are_shown_before_the_columns_are_chosen() -> None:
    """The question for the columns shows ten rows as the model would see them, each cut to a line, and the licence."""
    rows = [common.Demonstration(input=f"in {number}\n{'x' * 999}", output="out\x1b[2J") for number in range(12)]
    look = datasets.InspectResponse(
        columns=[datasets.Column(name="text"), datasets.Column(name="label")], input_columns=["text"],
        output_column="label", why="By their names.", licence="cc-by-4.0", flattened=rows, notes=["Two configs."],
    )  # fmt: skip
    question = columns_question("near/one", look)
    shown = _shown(question)
    assert "Its licence is cc-by-4.0." in shown and "Two configs." in shown
    lines = [line for line in shown.splitlines() if " → " in line]
    assert len(lines) == 10 and lines[0].strip().startswith("in 0 xxx") and lines[0].endswith("out\ufffd[2J")
    assert max(map(len, lines)) < 450


def test_who_chose() -> None:
    """The choice is the LLM's where the search says so, else the scores'; "" is none."""
    assert fitting(SEARCH) == (["near/one"], "score")
    assert fitting(datasets.SearchResponse(chosen="", chosen_by_llm=True)) == ([], "llm")
