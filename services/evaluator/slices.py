"""Where the student fails: named slices of rows that it gets wrong more often than the others. Runs in a child.

find ─┬─ traits      what can be seen of a row: length, output, format, source
      ├─ topics      clusters of the inputs by meaning, named by the words that set them apart
      ├─ judged      those whose error rate is really above the rest's
      └─ compared    the student and the others on the test rows of slices that were asked for by name

Many slices are tried, and some look bad by chance: one is named only where the interval of its error rate less the
rest's lies above 0 with all that were tried taken into account (Bonferroni). Slices are chosen by the rows that they
are found on alone. Test rows are only counted into them afterwards, so that a slice found on validation rows tells the
generator nothing about the test split, and its error rate on test rows is an honest one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.evaluator import intervals
from services.evaluator.traits import Trait, traits
from services.evaluator.values import ErrorExample, ErrorSlice, Estimate, SliceComparison
from services.kit import metrics
from services.kit.text import words
from services.kit.values import Progress, Row
from services.kit.worker import WorkerContext

LEAST_ROWS = 10
MOST_SLICES = 6
COMPARED = "exact_match_normalised"
MOST_ROWS = 2000
EXAMPLES = 3
_MOST_TOPICS = 12
_ROWS_A_TOPIC = 25
# Below this share of right answers (percent) exact match says too little about where the student fails.
_HARDLY_RIGHT = 10.0
_MOST_CHARACTERS = 300
# What an input is about is seen from its beginning.
_TOKENS = 128
# Two slices of which the smaller lies in the larger by so much are one.
_SAME = 0.8

Numbers = frozenset[int]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class SliceJob:
    """Rows and the student's predictions for them; test rows to count into the slices, none where `rows` are those.

    `named` are slices to compare the student with the `others` on, by their predictions for the test rows.
    """

    rows: tuple[Row, ...]
    predictions: tuple[str, ...]
    test_rows: tuple[Row, ...] = ()
    test_predictions: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    others: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Slices:
    """The slices, the worst first, what counts as wrong, how many were tried, why none could be looked for, and the
    comparisons on those that were named."""

    slices: tuple[ErrorSlice, ...] = ()
    wrong: str = ""
    tried: int = 0
    failure: str = ""
    comparisons: tuple[SliceComparison, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A slice before it is judged: the numbers of its rows, and what finds those of its test rows."""

    name: str
    kind: str
    rows: Numbers
    test_rows: Callable[[], Numbers] = frozenset


def find(job: SliceJob, context: WorkerContext) -> Slices:
    """The slices of the job's rows; of more than 2,000 rows the first. Needs the settings' sentence encoder."""
    context.report(Progress(message="looking for what the student gets wrong"))
    rows, predictions = job.rows[:MOST_ROWS], job.predictions[:MOST_ROWS]
    wrong, meaning = failures(rows, predictions)
    telling = len(rows) >= LEAST_ROWS and 0 < sum(wrong) < len(rows)
    if not telling and not job.named:
        return Slices((), meaning, 0)
    candidates = by_trait(traits(rows), rows, job.test_rows)
    context.raise_if_stopping()
    if topics := topics_wanted(len(rows)):
        encode = _encoder(context)
        inputs = [row.input for row in job.test_rows]
        candidates += by_topic(rows, encode([row.input for row in rows]), lambda: encode(inputs), topics)
    found = compared(job, candidates)
    if not telling:
        return Slices((), meaning, 0, comparisons=found)
    test_wrong = failures(job.test_rows, job.test_predictions, meaning)[0] if job.test_rows else []
    return replace(judged(candidates, rows, predictions, wrong, test_wrong, meaning), comparisons=found)


_MISMATCH = "No right output is matched, whatever the case, punctuation and articles."
_FEW_WORDS = "Fewer than half of the words are shared with the closest right output (token F1 below 50)."


def failures(rows: Sequence[Row], predictions: Sequence[str], meaning: str = "") -> tuple[list[bool], str]:
    """Which rows are wrong, and what that means, where it is not given.

    Normalised exact match; where hardly any row has that, token F1 below 50.
    """
    answers = [row.answers or (row.output,) for row in rows]
    matched = list(map(metrics.exact_match_normalised, predictions, answers))
    if not meaning:
        share = sum(matched) / max(len(matched), 1)
        meaning = _MISMATCH if share >= _HARDLY_RIGHT else _FEW_WORDS
    if meaning == _MISMATCH:
        return [not one for one in matched], meaning
    return [metrics.token_f1(text, right) < 50 for text, right in zip(predictions, answers, strict=True)], meaning


def by_trait(found: Sequence[Trait], rows: Sequence[Row], test_rows: Sequence[Row]) -> list[Candidate]:
    """A candidate for each trait."""
    return [
        Candidate(one.name, one.kind, _numbers(rows, one.has), partial(_numbers, test_rows, one.has)) for one in found
    ]


def topics_wanted(rows: int) -> int:
    """How many clusters so many rows are cut into: 25 rows each on average, at most 12; none below 50 rows."""
    return min(_MOST_TOPICS, rows // _ROWS_A_TOPIC) if rows >= 2 * _ROWS_A_TOPIC else 0


def by_topic(
    rows: Sequence[Row], vectors: Vectors, test_vectors: Callable[[], Vectors], topics: int
) -> list[Candidate]:
    """k-means clusters of the inputs; a test row belongs to that of the nearest centre. Arrays (rows, dimension).

    Test rows are encoded only where one of the topics turns out to be worse.
    """
    from sklearn.cluster import KMeans

    clusters = KMeans(n_clusters=topics, n_init=4, random_state=0).fit(vectors)
    of_test: Callable[[], Any] = cache(lambda: clusters.predict(known) if len(known := test_vectors()) else [])

    def members(labels: Any, topic: int) -> Numbers:
        return frozenset(np.flatnonzero(np.asarray(labels) == topic).tolist())

    said = [set(words(row.input)) for row in rows]
    found = []
    for topic in range(topics):
        inside = members(clusters.labels_, topic)
        if terms := distinctive(said, inside):
            of_topic = partial(lambda topic: members(of_test(), topic), topic)
            found.append(Candidate(f"inputs about {', '.join(terms)}", "topic", inside, of_topic))
    return found


def distinctive(said: Sequence[set[str]], inside: Numbers, most: int = 3) -> list[str]:
    """The words that set the rows `inside` apart, the most telling first.

    By the z-score of the log-odds of a row holding the word, inside against outside, smoothed by the word's frequency
    over all rows (Monroe et al., 2008). A word counts from 3 rows and a fifth of the slice on.
    """
    everywhere = Counter(word for row in said for word in row)
    here = Counter(word for number in inside for word in said[number])
    outside, total = len(said) - len(inside), len(said)
    scores: dict[str, float] = {}
    for word, rows in here.items():
        if rows < max(3, len(inside) / 5) or everywhere[word] == total or len(word) < 2 or word.isdigit():
            continue
        prior = everywhere[word] / total
        inner, outer = rows + prior, everywhere[word] - rows + prior
        odds = math.log(inner / (len(inside) + 1 - inner)) - math.log(outer / (outside + 1 - outer))
        scores[word] = odds / math.sqrt(1 / inner + 1 / outer)
    best = sorted(scores, key=lambda word: (-scores[word], word))[:most]
    return [word for word in best if scores[word] > intervals.Z]


def judged(
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    predictions: Sequence[str],
    wrong: Sequence[bool],
    test_wrong: Sequence[bool],
    meaning: str,
) -> Slices:
    """Those that are clearly worse than the rest, the widest gap first, without those that say the same twice."""
    tried = [one for one in candidates if LEAST_ROWS <= len(one.rows) <= len(rows) - LEAST_ROWS]
    strict = NormalDist().inv_cdf(1 - 0.025 / max(len(tried), 1))
    worse = []
    for one in tried:
        rest = [number for number in range(len(rows)) if number not in one.rows]
        rate, other = _percent(wrong, one.rows), _percent(wrong, rest)
        if intervals.difference_of_shares(rate, len(one.rows), other, len(rest), strict).low > 0:
            difference = intervals.difference_of_shares(rate, len(one.rows), other, len(rest))
            worse.append((difference, one, rate, other))
    worse.sort(key=lambda found: (-found[0].low, found[1].name))
    kept: list[Candidate] = []
    slices: list[ErrorSlice] = []
    for difference, one, rate, other in worse:
        if len(slices) == MOST_SLICES:
            break
        if any(len(one.rows & known.rows) > _SAME * min(len(one.rows), len(known.rows)) for known in kept):
            continue
        kept.append(one)
        test_rows = one.test_rows()
        failed = [number for number in sorted(one.rows) if wrong[number]]
        slices.append(
            ErrorSlice(
                one.name, one.kind, len(one.rows), intervals.share(rate, len(one.rows)),
                intervals.share(other, len(rows) - len(one.rows)), difference,
                tuple(_example(rows[number], predictions[number]) for number in failed[:EXAMPLES]),
                len(test_rows), _test_rate(test_wrong, test_rows),
            )
        )  # fmt: skip
    return Slices(tuple(slices), meaning, len(tried))


def compared(job: SliceJob, candidates: Sequence[Candidate]) -> tuple[SliceComparison, ...]:
    """The student less each other on the test rows of each named slice; a slice that is not there is left out.

    The candidates are made of the validation rows alone, so the same rows give the same slices for every student.
    """
    known = {one.name: one for one in candidates}
    answers = [row.answers or (row.output,) for row in job.test_rows]
    ours = list(map(metrics.exact_match_normalised, job.test_predictions, answers))
    found = []
    for name in job.named:
        numbers = sorted(known[name].test_rows()) if name in known else []
        for other, said in job.others.items():
            both = [
                (ours[n], metrics.exact_match_normalised(text, answers[n]))
                for n in numbers
                if (text := said[n]) is not None
            ]
            if not both:
                continue
            one, two = (np.array(column, dtype=np.float64)[:, None] for column in zip(*both, strict=True))
            difference = intervals.of_share_difference(one, two, job.seed)
            found.append(
                SliceComparison(name, other, COMPARED, float(one.mean()), float(two.mean()), difference, len(both))
            )
    return tuple(found)


def _test_rate(wrong: Sequence[bool], numbers: Numbers) -> Estimate | None:
    return intervals.share(_percent(wrong, numbers), len(numbers)) if numbers else None


def _percent(wrong: Sequence[bool], numbers: Sequence[int] | Numbers) -> float:
    return 100.0 * sum(wrong[number] for number in numbers) / len(numbers)


def _numbers(rows: Sequence[Row], has: Callable[[Row], bool]) -> Numbers:
    return frozenset(number for number, row in enumerate(rows) if has(row))


def _example(row: Row, prediction: str) -> ErrorExample:
    return ErrorExample(*(_cut(text) for text in (row.input, row.output, prediction)))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


def _encoder(context: WorkerContext) -> Callable[[Sequence[str]], Vectors]:
    """The settings' sentence encoder: vectors of length 1."""
    import os

    import torch
    from sentence_transformers import SentenceTransformer

    from services.kit.locations import resolve

    torch.set_num_threads(context.settings.threads or os.cpu_count() or 1)
    model = SentenceTransformer(
        str(resolve(context.settings.encoder, context.settings)), trust_remote_code=False, local_files_only=True
    )
    model.max_seq_length = min(model.max_seq_length or _TOKENS, _TOKENS)

    def encode(texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        context.raise_if_stopping()
        found: Any = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    return encode
