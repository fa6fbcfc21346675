"""Scores of predictions against right answers, row by row. Several answers may be right; the best one counts.

    exact_match               the same characters
    exact_match_normalised    the same after `text.normalise`
    token_f1                  shared words (Rajpurkar et al., 2016)
    chrf_statistics, chrf     chrF++ (Popović, 2017): counts of a row, and the score of many rows' summed counts

All scores are percentages, 0 to 100. An empty prediction scores 0, even where the right answer is empty: a model that
says nothing has not answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from services.kit.text import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Orders of n-grams in chrF++: 6 of characters, 2 of words; each has three counts.
CHRF_ORDERS = 8
_BETA_SQUARED = 4.0


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """100 where the prediction is one of the answers, character by character."""
    return 100.0 if prediction.strip() and prediction in answers else 0.0


def exact_match_normalised(prediction: str, answers: Sequence[str]) -> float:
    """100 where the prediction is one of the answers but for case, punctuation, articles and white space."""
    if not prediction.strip():
        return 0.0
    plain = normalise(prediction)
    return 100.0 if any(plain == normalise(answer) for answer in answers) else 0.0


def token_f1(prediction: str, answers: Sequence[str]) -> float:
    """The F1 of the normalised words, against the closest answer."""
    words = Counter(normalise(prediction).split())
    return max((_f1(words, Counter(normalise(answer).split())) for answer in answers), default=0.0)


def chrf_statistics(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """The n-gram counts of each row: an array (rows, 24) of (prediction's, answer's, shared) for each order.

    Of several answers the one that scores best. Summed over rows they give the corpus's chrF++, see `chrf`.
    """
    import numpy as np

    counts = np.zeros((len(predictions), 3 * CHRF_ORDERS))
    for number, (prediction, right) in enumerate(zip(predictions, answers, strict=True)):
        counts[number] = _sacrebleu_chrf()._extract_corpus_statistics([prediction], [[answer] for answer in right])[0]
    return counts


def chrf(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """chrF++ of summed counts: an array (..., 24) in, (...) out. The same number as sacrebleu's CHRF(word_order=2)."""
    import numpy as np

    counts = sums.reshape(*sums.shape[:-1], CHRF_ORDERS, 3)
    predicted, right, shared = counts[..., 0], counts[..., 1], counts[..., 2]
    # sacrebleu averages over the orders that both sides have n-grams of.
    present = (predicted > 0) & (right > 0)
    orders = np.maximum(present.sum(-1), 1)
    precision = np.where(present, shared / np.maximum(predicted, 1), 0.0).sum(-1) / orders
    recall = np.where(present, shared / np.maximum(right, 1), 0.0).sum(-1) / orders
    below = _BETA_SQUARED * precision + recall
    above = (1 + _BETA_SQUARED) * precision * recall
    return np.asarray(100 * above / np.where(below > 0, below, 1.0))


def _f1(words: Counter[str], right: Counter[str]) -> float:
    shared = (words & right).total()
    return 200.0 * shared / (words.total() + right.total()) if shared else 0.0


@lru_cache(maxsize=1)
def _sacrebleu_chrf() -> Any:
    from sacrebleu.metrics import CHRF  # type: ignore[attr-defined,unused-ignore]

    return CHRF(word_order=2)
