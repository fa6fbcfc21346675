"""Scores for outputs that are labels: accuracy and macro-F1.

    labels_of(rows)          the labels, where the rows' outputs are a small set that repeats; () where they are text
    label_counts, macro_f1   what a row adds to each label's counts, and the score of many rows' summed counts

A model that writes text may write a label otherwise than it is spelt: case, punctuation and spaces are forgiven, as in
the normalised exact match. What is no label is wrong for the row's own label and no prediction of another one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.kit.text import normalise
from services.kit.values import Row

MOST_LABELS = 50
LEAST_ROWS_A_LABEL = 5
_MOST_WORDS = 5
# More outputs than this that stand in their own inputs are copied, not chosen.
_MOST_COPIED = 0.5

Floats = NDArray[np.float64]


def labels_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The distinct outputs in order, where there are 2 to 50, of at most 5 words, each in 5 rows on average."""
    outputs = [row.output.strip() for row in rows]
    labels = tuple(sorted(set(outputs)))
    if not 2 <= len(labels) <= MOST_LABELS or len(rows) < LEAST_ROWS_A_LABEL * len(labels):
        return ()
    if any(len(set(row.answers)) > 1 for row in rows) or not all(labels):
        return ()
    if max(len(label.split()) for label in labels) > _MOST_WORDS:
        return ()
    if len({normalise(label) for label in labels}) < len(labels):
        return ()  # they differ by case or punctuation alone, so that a prediction may mean several
    copied = sum(output in row.input for output, row in zip(outputs, rows, strict=True))
    return () if copied > _MOST_COPIED * len(rows) else labels


def label_counts(predictions: Sequence[str], outputs: Sequence[str], labels: Sequence[str]) -> Floats:
    """An array (rows, 3 * labels): for each label whether the row is a true positive, a false positive, a false
    negative of it."""
    numbers = {normalise(label): number for number, label in enumerate(labels)}
    counts = np.zeros((len(predictions), len(labels), 3))
    for row, (prediction, output) in enumerate(zip(predictions, outputs, strict=True)):
        said, right = numbers.get(normalise(prediction)), numbers[normalise(output)]
        if said == right:
            counts[row, right, 0] = 1
            continue
        counts[row, right, 2] = 1
        if said is not None:
            counts[row, said, 1] = 1
    return counts.reshape(len(predictions), -1)


def macro_f1(sums: Floats) -> Floats:
    """The mean F1, in percent, of the labels that occur in right outputs: an array (..., 3 * labels) in, (...) out.

    The same number as scikit-learn's `f1_score(average="macro", labels=those that occur)`.
    """
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    true, false, missed = counts[..., 0], counts[..., 1], counts[..., 2]
    occurs = true + missed > 0
    below = 2 * true + false + missed
    scores = np.where(occurs, 2 * true / np.where(below > 0, below, 1.0), 0.0)
    return np.asarray(100 * scores.sum(-1) / np.maximum(occurs.sum(-1), 1))
