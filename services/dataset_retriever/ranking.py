"""How well datasets fit a query: closeness, words, and what others build on.

    score    = z(cosine) + 0.1 z(BM25) + prior + mentions
    prior    how much a dataset is used, whatever the query: counted from the catalogue (catalogue/facts.py)
    mentions log(1 + how often the 50 entries nearest to the query mention it, the nearer the more)

Then once more with feedback: the query moves half way to the mean of the ten best (Rocchio's pseudo-relevance feedback)
and all is scored anew. z: to mean 0 and deviation 1 over the catalogue.

Why: what people train on is less what is described most like their task than what the descriptions near their task
name. The weights were chosen, one after the other and to one digit, on the 196 development queries of DataFinder
(Viswanathan et al., 2023); nothing is trained. bench/dataset_ablation.py says what each part adds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.kit.index import Index, Scores, highest

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float32]

_POOL = 200
_NEAREST, _TEMPERATURE = 50, 0.2
_BEST = 10
# In a small catalogue the 50 nearest are about anything: no more than this share of the entries has a say.
_NEAREST_SHARE, _BEST_SHARE = 1 / 60, 1 / 300


@dataclass(frozen=True)
class Weights:
    """How much each part counts; 0: not at all."""

    bm25: float = 0.1
    prior: float = 1.0
    mentions: float = 1.0
    feedback: float = 0.5


WEIGHTS = Weights()


@dataclass(frozen=True)
class Ranked:
    """One dataset: its number in the index, its score, the parts of that before they are weighted."""

    number: int
    score: float
    cosine: float
    bm25: float
    prior: float
    mentions: float


_OPENING = re.compile(
    r"^\s*(?:in this (?:paper|work),? )?"
    r"(?:(?:i|we)(?: would|'d|'m| am| are| need| want| aim)?"
    r"(?: (?:like|want|need|aim|going|plan|hope|propose|introduce|present|describe|explore|study|investigate|"
    r"design(?:ed)?|develop(?:ed)?|buil[dt](?:ing)?|train(?:ed)?|created?|produce|adapt|enhance|proposing))?"
    r"(?: to \w+)?"
    r"|(?:this|the) (?:paper|work|model|system|program) (?:\w+s|should \w+|shall \w+)"
    r"|please|your task is to \w+|you are \w+)\s+",
    re.IGNORECASE,
)


def without_opening(query: str) -> str:
    """The query without "I want to build", "we propose" and the like, which say nothing of the data; the whole query
    where nothing else is left."""
    return _OPENING.sub("", query, count=1).strip() or query


def query_vector(query: Sequence[float], bare: Sequence[float]) -> list[float]:
    """What is searched with: the mean of the query's embedding and of that `without_opening`, of length 1."""
    both: list[float] = _unit(np.asarray(query, np.float32) + np.asarray(bare, np.float32)).tolist()
    return both


def rank(
    index: Index,
    query: str,
    vector: Sequence[float],
    k: int,
    among: Mask | None = None,
    weights: Weights = WEIGHTS,
) -> list[Ranked]:
    """The `k` best entries for a query and its embedding (of length 1), best first, each once, ties by their numbers.

    `among`: [entries], which entries may be in the list; the others still tell what is much mentioned.
    Nothing that shares neither meaning nor words with the query is listed: the cosine or BM25 is above 0.
    """
    if not len(index) or k <= 0:
        return []
    task = np.asarray(vector, np.float32)
    words = _worded(index.bm25(query), max(_POOL, k), among)
    first = _scored(index, task, words, max(_POOL, k), among, weights)
    best = first.numbers[_order(first.scores, first.numbers)][: min(_BEST, int(len(index) * _BEST_SHARE))]
    if not weights.feedback or not len(best):
        return _listed(index, first, task, words, k)
    moved = _unit(task + weights.feedback * _unit(index.vectors(best).mean(0)))
    return _listed(index, _scored(index, moved, words, max(_POOL, k), among, weights), task, words, k)


@dataclass(frozen=True)
class _Words:
    """BM25 of every entry, and what is needed of it for as long as the query is the same."""

    scores: Scores
    best: Numbers
    mean: float
    deviation: float


@dataclass(frozen=True)
class _Scored:
    numbers: Numbers
    scores: Scores
    prior: Scores
    mentions: Scores


def _worded(scores: Scores, pool: int, among: Mask | None) -> _Words:
    mean, square = float(scores.mean()), float(np.square(scores).mean())
    best = highest(scores, pool, None if among is None else (scores > 0) & among)
    return _Words(scores, best, mean, max(0.0, square - mean * mean) ** 0.5)


def _scored(index: Index, vector: Vector, words: _Words, pool: int, among: Mask | None, weights: Weights) -> _Scored:
    """Those that may be among the best, and their scores."""
    near, cosines = index.nearest(vector.tolist(), max(pool, _NEAREST), among)
    mentioned = _mentioned(index, vector, near, cosines, among)
    numbers = np.union1d(np.union1d(near, words.best), [*mentioned]).astype(np.int64)
    if among is not None:
        numbers = numbers[among[numbers]]
    mean, deviation = index.moments(vector.tolist())
    prior = np.asarray(index.fact("prior")[numbers], np.float32)
    mentions = np.log1p(np.asarray([mentioned.get(number, 0.0) for number in numbers.tolist()], np.float32))
    scores = (index.cosines(vector.tolist(), numbers) - mean) / (deviation or 1.0)
    if words.deviation:
        scores = scores + weights.bm25 * (words.scores[numbers] - words.mean) / words.deviation
    total = np.asarray(scores + weights.prior * prior + weights.mentions * mentions, np.float32)
    return _Scored(numbers, total, prior, mentions)


def _mentioned(index: Index, vector: Vector, near: Numbers, cosines: Scores, among: Mask | None) -> dict[int, float]:
    """How often the nearest of all entries mention others; the weight falls with the distance from the nearest."""
    count = min(_NEAREST, int(len(index) * _NEAREST_SHARE))
    if not count:
        return {}
    if among is not None:
        near, cosines = index.nearest(vector.tolist(), count)
    near, cosines = near[:count], cosines[:count]
    named = np.asarray(index.fact("mentions")[near])
    by = np.broadcast_to(np.exp((cosines - cosines[0]) / _TEMPERATURE)[:, None], named.shape)
    others, place = np.unique(named[named >= 0], return_inverse=True)
    return dict(zip(others.tolist(), np.bincount(place, by[named >= 0]).tolist(), strict=True))


def _listed(index: Index, scored: _Scored, task: Vector, words: _Words, k: int) -> list[Ranked]:
    cosines = index.cosines(task.tolist(), scored.numbers)
    bm25 = words.scores[scored.numbers]
    order = _order(scored.scores, scored.numbers)
    fits = ((cosines > 0) | (bm25 > 0))[order]
    return [
        Ranked(
            int(scored.numbers[one]),
            float(scored.scores[one]),
            float(cosines[one]),
            float(bm25[one]),
            float(scored.prior[one]),
            float(scored.mentions[one]),
        )
        for one in order[fits][:k].tolist()
    ]


def _order(scores: Scores, numbers: Numbers) -> Numbers:
    return np.lexsort((numbers, -scores))


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector
