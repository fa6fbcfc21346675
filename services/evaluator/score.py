"""Scores every contestant by every metric on every slice, and the student against each other; runs in a child.

Slices: "all", "real", "generated" and each source. The student is compared on the rows that the verdict rests on: the
real ones where there are any, else all, and of these those that the other contestant answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.evaluator import intervals
from services.evaluator.agreement import LEAST_ROWS, agreement
from services.evaluator.labels import labels_of
from services.evaluator.values import STUDENT, Agreement, Comparison, Score
from services.kit.locations import resolve, split
from services.kit.values import Progress, Row
from services.kit.worker import WorkerContext

EXACT_MATCH = "exact_match"
SHARES = (EXACT_MATCH, "exact_match_normalised", "accuracy")


@dataclass(frozen=True)
class ScoreJob:
    """Test rows, whether each is real, and each contestant's predictions, None where it did not answer."""

    rows: tuple[Row, ...]
    real: tuple[bool, ...]
    predictions: dict[str, tuple[str | None, ...]]
    seed: int = 0


@dataclass(frozen=True)
class Scores:
    """All scores and comparisons, the encoder that BERTScore used, and how alike generated and real rows rank."""

    scores: tuple[Score, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    bertscore_encoder: str = ""
    agreements: tuple[Agreement, ...] = ()


def score(job: ScoreJob, context: WorkerContext) -> Scores:
    """Measures; takes seconds a thousand rows, most of them for BERTScore."""
    from services.evaluator.metrics import (
        Accuracy,
        BERTScore,
        ChrF,
        ExactMatch,
        ExactMatchNormalised,
        MacroF1,
        TokenF1,
    )

    location = context.settings.bertscore_encoder
    encoder = location if split(location)[0] != "hub" else split(location)[1].partition("@")[0]
    measures = {
        "exact_match": ExactMatch(),
        "exact_match_normalised": ExactMatchNormalised(),
        "token_f1": TokenF1(),
        "chrf": ChrF(),
        "bertscore": BERTScore(resolve(location, context.settings), encoder),
    }
    if labels := labels_of(job.rows):
        measures |= {"accuracy": Accuracy(), "macro_f1": MacroF1(labels)}
    references = [right_answers(row) for row in job.rows]
    everything = slices(job.rows, job.real)
    compared = everything["real"] or everything["all"]
    scores: list[Score] = []
    comparisons: list[Comparison] = []
    agreements: list[Agreement] = []
    for done, (metric, measure) in enumerate(measures.items()):
        context.raise_if_stopping()
        context.report(Progress(done, len(measures), "metrics", f"scoring by {metric}"))
        measured = _measured(measure, job.predictions, references)
        for where, numbers in everything.items():
            for name, by_row in measured.items():
                scores += _scores(name, where, metric, by_row, numbers, measure.total, job.seed)
        for name in measured:
            if name != STUDENT:
                comparisons += _comparison(name, metric, measured, compared, measure.total, job.seed)
        if found := _agreement(metric, measured, everything, measure.total, job.seed):
            agreements.append(found)
    return Scores(tuple(scores), tuple(comparisons), encoder, tuple(agreements))


def _measured(
    measure: Any, predictions: dict[str, tuple[str | None, ...]], references: Sequence[tuple[str, ...]]
) -> dict[str, dict[int, intervals.Floats]]:
    """What each row of each contestant adds to the score, by contestant and the row's number.

    All contestants at once and row by row, so that BERTScore encodes a right answer once for all of them.
    """
    asked = [
        (name, number, text)
        for number in range(len(references))
        for name, outputs in predictions.items()
        if (text := outputs[number]) is not None
    ]
    found: dict[str, dict[int, intervals.Floats]] = {}
    if asked:
        rows = measure.compute(
            predictions=[text for _, _, text in asked], references=[references[number] for _, number, _ in asked]
        )["rows"]
        for (name, number, _), row in zip(asked, rows, strict=True):
            found.setdefault(name, {})[number] = row
    return {name: found[name] for name in predictions if name in found}


def right_answers(row: Row) -> tuple[str, ...]:
    """All right outputs of a row."""
    return row.answers or (row.output,)


def slices(rows: Sequence[Row], real: Sequence[bool]) -> dict[str, list[int]]:
    """The numbers of the rows in each slice; a source that bears another slice's name is left to that."""
    found: dict[str, list[int]] = {
        "all": list(range(len(rows))),
        "real": [number for number, is_real in enumerate(real) if is_real],
        "generated": [number for number, is_real in enumerate(real) if not is_real],
    }
    for source in sorted({row.source for row in rows} - found.keys() - {""}):
        found[source] = [number for number, row in enumerate(rows) if row.source == source]
    return found


def _scores(
    name: str,
    where: str,
    metric: str,
    by_row: dict[int, intervals.Floats],
    numbers: list[int],
    total: intervals.Total,
    seed: int,
) -> list[Score]:
    import numpy as np

    chosen = [by_row[number] for number in numbers if number in by_row]
    if not chosen:
        return []
    rows = np.stack(chosen)
    if metric in SHARES:
        estimate = intervals.share(float(rows.mean()), len(rows))
    else:
        estimate = intervals.of_score(rows, total, intervals.resamples(len(rows), seed))
    return [Score(name, where, metric, estimate, len(rows))]


def _comparison(
    name: str,
    metric: str,
    measured: dict[str, dict[int, intervals.Floats]],
    numbers: list[int],
    total: intervals.Total,
    seed: int,
) -> list[Comparison]:
    import numpy as np

    student, other = measured[STUDENT], measured[name]
    both = [number for number in numbers if number in student and number in other]
    if not both:
        return []
    ours, theirs = (np.stack([by_row[number] for number in both]) for by_row in (student, other))
    if metric in SHARES:
        difference = intervals.of_share_difference(ours, theirs, seed)
    else:
        difference = intervals.of_difference(ours, theirs, total, intervals.resamples(len(both), seed))
    return [Comparison(name, metric, difference, len(both))]


def _agreement(
    metric: str,
    measured: dict[str, dict[int, intervals.Floats]],
    everything: dict[str, list[int]],
    total: intervals.Total,
    seed: int,
) -> Agreement | None:
    """Of the contestants who answered enough rows of both kinds, on the rows that all of them answered."""
    import numpy as np

    def enough(by_row: dict[int, intervals.Floats]) -> bool:
        return all(sum(number in by_row for number in everything[kind]) >= LEAST_ROWS for kind in ("generated", "real"))

    ranked = {name: by_row for name, by_row in measured.items() if enough(by_row)}
    kinds = []
    for kind in ("generated", "real"):
        both = [number for number in everything[kind] if all(number in by_row for by_row in ranked.values())]
        kinds.append({name: np.stack([by_row[n] for n in both]) for name, by_row in ranked.items()} if both else {})
    return agreement(metric, kinds[0], kinds[1], total, seed)
