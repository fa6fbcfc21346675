"""What is chosen by default, and how a person is asked instead.

The system's own choice is a question's first option. "none" is an answer everywhere but for the model.
"""

from __future__ import annotations

from typing import Any

from p2m.dataset_retriever.v1 import dataset_retriever_pb2
from p2m.model_retriever.v1 import model_retriever_pb2
from p2m.run.v1 import run_pb2

from orchestrator import constraints
from orchestrator.amounts import bytes_text
from orchestrator.plain import plain
from services.kit.errors import InvalidArgument

# Without an LLM to judge, a dataset is taken only when its description is this close to the task.
LEAST_COSINE = 0.3
_TRIED = 3
_SHOWN = 10
_ROWS, _ROW_CHARACTERS = 10, 200


def fitting(search: dataset_retriever_pb2.SearchResponse) -> tuple[list[str], str]:
    """Ids to try in turn, and who chose: the LLM where it was asked, else the scores."""
    if search.HasField("chosen"):
        return ([search.chosen] if search.chosen else []), "llm" if search.chosen_by_llm else "score"
    close = [
        candidate.id for candidate in search.candidates if candidate.reachable and _cosine(candidate) >= LEAST_COSINE
    ]
    return close[:_TRIED], "score"


def dataset_question(search: dataset_retriever_pb2.SearchResponse, picks: list[str]) -> run_pb2.Question:
    """Which dataset."""
    ranked = sorted(search.candidates, key=lambda candidate: candidate.id not in picks)
    options = [
        run_pb2.Option(value=candidate.id, label=_label(candidate, "" if candidate.reachable else "out of reach"))
        for candidate in ranked[:_SHOWN]
    ]
    none = run_pb2.Option(value="none", label="None of these fit: go on without a dataset.")
    options = [*options, none] if picks else [none, *options]
    text = "Which dataset shall the model learn from?"
    return run_pb2.Question(id="dataset", text=text, options=options, details=_left_out(search))


def columns_question(dataset: str, look: dataset_retriever_pb2.InspectResponse) -> run_pb2.Question:
    """Which columns: the proposal, then every other column as the output of the rest."""
    names = [column.name for column in look.columns]
    proposed = columns_value([*look.input_columns], look.output_column) if look.output_column else ""
    values = [proposed] if proposed else []
    for output in names:
        rest = [name for name in names if name != output]
        values += [columns_value(rest, output)] if rest else []
        values += [columns_value([name], output) for name in rest]
    options = [run_pb2.Option(value=value, label=value) for value in dict.fromkeys(values)]
    options[0:0] = [] if proposed else [run_pb2.Option(value="none", label="None of these fit.")]
    if proposed:
        options.append(run_pb2.Option(value="none", label="None of these fit: go on without this dataset."))
        options[0].label = f"{proposed} ({look.why})" if look.why else proposed
    text = f"Which columns of {dataset} are the input and the output?"
    if look.licence:
        text += f" Its licence is {look.licence}."
    rows = [f"{row.input[:_ROW_CHARACTERS]} → {row.output[:_ROW_CHARACTERS]}" for row in look.flattened[:_ROWS]]
    return run_pb2.Question(id="columns", text=text, options=options, details=[*look.notes, *rows])


def model_question(search: model_retriever_pb2.SearchResponse) -> run_pb2.Question:
    """Which model."""
    options = [
        run_pb2.Option(
            value=candidate.id,
            label=_label(candidate, f"{candidate.cpu_latency_ms:.0f} ms" if candidate.cpu_latency_ms else ""),
        )
        for candidate in search.candidates
    ]
    text = "Which model shall be fine-tuned?"
    return run_pb2.Question(id="model", text=text, options=options, details=_left_out(search))


def columns_value(inputs: list[str], output: str) -> str:
    """Columns as one word of a question: "context, question -> answer"."""
    return f"{', '.join(inputs)} -> {output}"


def parse_columns(value: str) -> tuple[list[str], str]:
    """The columns of `columns_value`."""
    inputs, arrow, output = value.rpartition(" -> ")
    if not arrow or not inputs or not output:
        raise InvalidArgument(
            "BAD_COLUMNS", f"{value!r} names no columns; wanted: input, input -> output.", field="value"
        )
    return inputs.split(", "), output


def _label(candidate: Any, more: str) -> str:
    """One line: the id, what kind of thing it is, why it is here, what stands against it."""
    facts = [
        candidate.licence,
        ", ".join(candidate.languages[:5]),
        bytes_text(candidate.size_bytes) if candidate.size_bytes else "",
        more,
    ]
    known = "; ".join(fact for fact in facts if fact)
    said = " ".join([candidate.why or candidate.description[:100], *candidate.flags])
    return f"{candidate.id}{f' ({known})' if known else ''}: {said}".rstrip(": ")


def _left_out(search: Any) -> list[str]:
    """What the search has to say, and the best of those that it left out, each with the reason."""
    counts = f"Left out, of those that rank high: {constraints.counted(plain(search)['excluded'])}."
    told = any(note.startswith("Left out") for note in search.notes)
    said = [*([counts] if search.excluded and not told else []), *search.notes]
    return [*said, *(f"Left out: {one.id}. {one.reason}" for one in search.excluded[:3])]


def _cosine(candidate: dataset_retriever_pb2.DatasetCandidate) -> float:
    return next((part.value for part in candidate.parts if part.name == "cosine"), 1.0)
