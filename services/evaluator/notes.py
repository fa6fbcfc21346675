"""What a person should know about an evaluation beside its figures, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from services.evaluator.agreement import LEAST_CONTESTANTS, LEAST_ROWS
from services.evaluator.score import EXACT_MATCH, Scores, right_answers
from services.evaluator.slices import Slices
from services.evaluator.teacher import TeacherAnswers
from services.evaluator.values import EvaluateRequest
from services.evaluator.verdict import ENOUGH_ROWS
from services.kit.metrics import exact_match
from services.kit.values import Row

Predictions = tuple[str | None, ...]


def notes(
    request: EvaluateRequest,
    rows: Sequence[Row],
    real: Sequence[bool],
    predictions: Mapping[str, Predictions],
    scored: Scores,
    ceiling: float,
    taught: TeacherAnswers,
    found: Slices,
) -> list[str]:
    """The notes in the order in which they matter."""
    return [
        *_on_the_teacher(request, rows, scored, taught),
        *_on_the_rows(real, scored, predictions),
        *_on_the_scores(predictions, scored, ceiling, taught),
        *_on_the_slices(found),
    ]


def _on_the_teacher(
    request: EvaluateRequest, rows: Sequence[Row], scored: Scores, taught: TeacherAnswers
) -> Iterator[str]:
    if taught.note:
        yield taught.note
    said = {number: text for number, text in enumerate(taught.outputs) if text is not None}
    if taught.unusable:
        right = {number: exact_match(text, right_answers(rows[number])) for number, text in said.items()}
        kept = [score for number, score in right.items() if number not in taught.unusable]
        over = f"over the {len(kept)} that it answered {sum(kept) / len(kept):.1f}" if kept else "it answered no other"
        yield (
            f"{len(taught.unusable)} answers of the teacher could not be used and count as wrong: its exact match is "
            f"{sum(right.values()) / len(right):.1f} so, and {over}."
        )
    for one in scored.comparisons:
        is_teacher = any(other.name == one.against and other.teacher for other in request.contestants)
        if is_teacher and one.metric == EXACT_MATCH and one.rows < ENOUGH_ROWS:
            yield f"The teacher was measured on {one.rows} rows, fewer than {ENOUGH_ROWS}: the verdict leaves it out."


def _on_the_rows(real: Sequence[bool], scored: Scores, predictions: Mapping[str, Predictions]) -> Iterator[str]:
    if not any(real):
        yield "No test row is real: the verdict rests on rows that the LLM wrote, which may be wrong or too easy."
        return
    if all(real):
        return
    for one in scored.agreements:
        if one.metric == EXACT_MATCH:
            yield (
                f"Generated and real test rows rank the {one.contestants} contestants by exact match with a Kendall's "
                f"tau of {one.tau.value:.2f} (95 % interval {one.tau.low:.2f} to {one.tau.high:.2f}; 1: same order)."
            )
            return
    yield (
        "Whether generated and real test rows rank models alike cannot be told here: it takes "
        f"{LEAST_CONTESTANTS} contestants and {LEAST_ROWS} rows of each kind; there are {len(predictions)} "
        f"contestants, {len(real) - sum(real)} generated and {sum(real)} real rows."
    )


def _on_the_scores(
    predictions: Mapping[str, Predictions], scored: Scores, ceiling: float, taught: TeacherAnswers
) -> Iterator[str]:
    if ceiling < 100:
        yield (
            f"The student cannot give {100 - ceiling:.1f} % of the right outputs as they stand: its tokenizer changes "
            f"them, or they are too long or no label of its own. Its exact match can be at most {ceiling:.1f}."
        )
    if "xlm-roberta" not in scored.bertscore_encoder:
        yield (
            f"BERTScore is by {scored.bertscore_encoder}; its values cannot be compared with those by xlm-roberta-base."
        )
    for name, outputs in predictions.items():
        unusable = set(taught.unusable) if outputs == taught.outputs else set[int]()
        empty = sum(
            text is not None and not text.strip() and number not in unusable for number, text in enumerate(outputs)
        )
        if empty:
            yield f"{empty} predictions of {name.replace('_', ' ')} are empty and score 0."


def _on_the_slices(found: Slices) -> Iterator[str]:
    if found.failure:
        yield f"Where the student fails was not looked for: {found.failure}"
    elif found.tried and not found.slices:
        yield f"Of {found.tried} slices of the rows none has clearly more errors than the rest."
