"""Whether generated test rows rank the contestants as real rows do: Kendall's tau, with an interval.

    agreement(generated, real, total, seed)      one metric
    tau                                          Kendall's tau-b (1945) of many pairs of rankings at once

The paper whose pipeline this is claims that generated test sets rank models (Viswanathan et al., 2023, section 5); with
3 or 4 contestants tau takes few values, so its interval is wide, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.evaluator.intervals import Floats, Total, resamples
from services.evaluator.values import Agreement, Estimate

LEAST_CONTESTANTS = 3
LEAST_ROWS = 20


def agreement(
    metric: str, generated: Mapping[str, Floats], real: Mapping[str, Floats], total: Total, seed: int
) -> Agreement | None:
    """The tau of the scores of those who answered both; None for fewer than 3, or fewer than 20 rows of either kind.

    Arrays (rows, k) of what `total` sums, by contestant; the rows of a kind are the same for all.
    """
    names = sorted(generated.keys() & real.keys())
    if len(names) < LEAST_CONTESTANTS or min(len(generated[names[0]]), len(real[names[0]])) < LEAST_ROWS:
        return None
    made, given = ([kind[name] for name in names] for kind in (generated, real))
    value = float(tau(_scores(made, total), _scores(given, total)))
    # Other draws for each kind: their rows are not paired.
    drawn = tau(
        _scores(made, total, resamples(len(made[0]), seed)), _scores(given, total, resamples(len(given[0]), seed + 1))
    )
    low, high = (float(end) for end in np.percentile(drawn, [2.5, 97.5]))
    estimate = Estimate(value, min(low, value), max(high, value))
    return Agreement(metric, estimate, len(names), len(made[0]), len(given[0]))


def tau(one: Floats, other: Floats) -> Floats:
    """Arrays (..., contestants) of scores in, (...) out; 0 where a ranking has nothing but ties."""
    first, second = np.triu_indices(one.shape[-1], k=1)
    ours, theirs = (np.sign(scores[..., first] - scores[..., second]) for scores in (one, other))
    ties = np.sqrt((ours**2).sum(-1) * (theirs**2).sum(-1))
    return np.asarray((ours * theirs).sum(-1) / np.where(ties > 0, ties, 1.0))


def _scores(rows: Sequence[Floats], total: Total, drawn: Floats | None = None) -> Floats:
    """The contestants' scores: an array (contestants), or (resamples, contestants)."""
    sums = [one.sum(axis=0) if drawn is None else drawn @ one for one in rows]
    return np.stack([total(one, len(rows[0])) for one in sums], axis=-1).round(6)
