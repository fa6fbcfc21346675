"""95 % intervals of scores and of differences of scores, by resampling rows.

resamples                    how often each row is drawn, the same for every contestant
share                        Wilson's interval: a bootstrap of rows that are all right has no width
difference_of_shares         Newcombe's interval (1998, method 10) of two shares of different rows, from Wilson's
of_score, of_difference      percentiles of the bootstrap (Efron & Tibshirani, 1993)
of_share_difference          the same with two pseudo-rows, one won and one lost (Bonett & Price, 2012): without them
                             a handful of rows that all go one way, or rows of which none differs, would give an
                             interval that claims more than they can show
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from services.evaluator.values import Estimate

Floats = NDArray[np.float64]
Total = Callable[[Floats, int], Floats]
"""The score of sums over a number of rows: an array (..., k) in, (...) out."""

RESAMPLES = 2000
Z = 1.959963984540054  # of a two-sided 95 % interval


def resamples(rows: int, seed: int) -> Floats:
    """An array (RESAMPLES, rows): how often each row is drawn when as many rows are drawn with replacement."""
    rng = np.random.default_rng([seed, rows])
    return rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES).astype(np.float64)


def share(percent: float, rows: int, z: float = Z) -> Estimate:
    """A share in percent with Wilson's (1927) interval."""
    p, n = percent / 100, rows
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return _estimate(percent, max(0.0, 100 * (middle - half)), min(100.0, 100 * (middle + half)))


def difference_of_shares(one: float, rows: int, other: float, other_rows: int, z: float = Z) -> Estimate:
    """A share in percent less another one, of other rows."""
    first, second = share(one, rows, z), share(other, other_rows, z)
    low = math.hypot(one - first.low, second.high - other)
    high = math.hypot(first.high - one, other - second.low)
    return _estimate(one - other, one - other - low, one - other + high)


def of_score(rows: Floats, total: Total, drawn: Floats) -> Estimate:
    """A score with its interval; `rows` is an array (rows, k) of what `total` sums."""
    return _percentiles(float(total(rows.sum(axis=0), len(rows))), total(drawn @ rows, len(rows)))


def of_difference(ours: Floats, theirs: Floats, total: Total, drawn: Floats) -> Estimate:
    """Our score less theirs on the same rows, resampled together."""
    number = len(ours)
    value = float(total(ours.sum(axis=0), number) - total(theirs.sum(axis=0), number))
    return _percentiles(value, total(drawn @ ours, number) - total(drawn @ theirs, number))


def of_share_difference(ours: Floats, theirs: Floats, seed: int) -> Estimate:
    """The same for shares, arrays (rows, 1) of 0 and 100, with a pseudo-row won and one lost.

    A row is won, lost or neither, so resampling rows is drawing how many there are of each.
    """
    differences = (ours - theirs)[:, 0]
    won, lost, number = int((differences > 0).sum()) + 1, int((differences < 0).sum()) + 1, len(differences) + 2
    rng = np.random.default_rng([seed, number])
    chances = np.array([won, lost, number - won - lost]) / number
    drawn = rng.multinomial(number, chances, size=RESAMPLES).astype(np.float64)
    return _percentiles(float(differences.mean()), 100 * (drawn[:, 0] - drawn[:, 1]) / number)


def _percentiles(value: float, resampled: Floats) -> Estimate:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return _estimate(value, float(low), float(high))


def _estimate(value: float, low: float, high: float) -> Estimate:
    # Pseudo-rows and rounding may move an end past the value itself.
    return Estimate(value, min(low, value), max(high, value))
