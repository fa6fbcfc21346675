"""Scores of all entries, and the best of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Scores: TypeAlias = npt.NDArray[np.float32]
Numbers: TypeAlias = npt.NDArray[np.int64]

_BLOCK = 256


@dataclass(frozen=True)
class Hit:
    """One ranked entry: its number in the index, its score."""

    number: int
    score: float


def ranked(scores: Scores, k: int, matches: npt.NDArray[np.bool_] | None = None) -> list[Hit]:
    """The `k` best entries, best first, ties in the entries' order: of those in `matches`, or with a score above 0."""
    numbers = highest(scores, k, matches)
    return [Hit(number, score) for number, score in zip(numbers.tolist(), scores[numbers].tolist(), strict=True)]


def highest(scores: Scores, k: int, matches: npt.NDArray[np.bool_] | None = None) -> Numbers:
    """The numbers of the `k` best entries, as `ranked`."""
    if k <= 0:
        return np.zeros(0, np.int64)
    if matches is None:
        bound = _bound(scores, k)
        matches = scores >= bound if bound > 0 else scores > 0
    kept = np.flatnonzero(matches)
    found = scores[kept]
    if len(kept) > k:
        worst = np.partition(found, len(found) - k)[len(found) - k]
        better, equal = found > worst, np.flatnonzero(found == worst)
        better[equal[: k - int(better.sum())]] = True
        kept, found = kept[better], found[better]
    return kept[np.argsort(-found, kind="stable")]


def standardised(scores: Scores) -> Scores:
    """Scores with mean 0 and deviation 1 over all entries; all 0 where they are all the same."""
    deviation = float(scores.std()) if len(scores) else 0.0
    return np.zeros_like(scores) if deviation == 0 else (scores - scores.mean()) / deviation


def _bound(scores: Scores, k: int) -> float:
    """A score that at least `k` entries reach, from the best of each block: what is below need not be sorted."""
    blocks = len(scores) // _BLOCK
    if blocks <= k:
        return 0.0
    best = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return float(np.partition(best, blocks - k)[blocks - k])
