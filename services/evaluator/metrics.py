"""The measures as `evaluate.Metric` classes, which need no network: `evaluate.load` by name asks the hub for code.

    ExactMatch, ExactMatchNormalised, TokenF1, ChrF, BERTScore     compute(predictions=[str], references=[[str, ...]])
    Accuracy, MacroF1                                              the same, where outputs are labels (`labels`)

`compute` gives {"score": percent, "rows": array (rows, k)}: `rows` is what a resample of rows is scored from, by the
class's `total`: the mean for all but chrF++ and macro-F1, which are ratios of sums. An empty prediction scores 0.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from services.evaluator.labels import label_counts, macro_f1
from services.kit import metrics

Floats = NDArray[np.float64]

# bert-score keeps the vectors of every token of what it is given: 1,000 pairs of 128 tokens at 3 KB are 0.8 GB.
_AT_ONCE = 1024


class _Rowwise(evaluate.Metric):  # type: ignore[misc,unused-ignore]
    """Predictions and, for each, one or more references; the score is that of the rows together."""

    description = ""
    citation = ""

    def __init__(self) -> None:
        # Metric makes a cache folder whatever it is told; this one goes with the object.
        self._cache = tempfile.TemporaryDirectory(prefix="p2m-metric-")
        super().__init__(keep_in_memory=True, cache_dir=self._cache.name)

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}
        return evaluate.MetricInfo(
            description=self.description, citation=self.citation, features=datasets.Features(features)
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        rows = self.rows(predictions, references)
        return {"score": float(self.total(rows.sum(axis=0), len(rows))), "rows": rows}

    def rows(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
        """An array (rows, k) of what the score is made of."""
        raise NotImplementedError

    @staticmethod
    def total(sums: Floats, number: int) -> Floats:
        """The score of `number` rows with these sums: an array (..., k) in, (...) out."""
        return np.asarray(sums[..., 0] / max(number, 1))


class ExactMatch(_Rowwise):
    """The share of predictions that are one of the references, character by character."""

    description = "Percentage of predictions that equal a reference character by character."

    def rows(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
        return _column(map(metrics.exact_match, predictions, references))


class ExactMatchNormalised(_Rowwise):
    """The same after lower-casing and without punctuation, articles and doubled spaces."""

    description = "Percentage of predictions that equal a reference but for case, punctuation, articles and spaces."
    citation = "Rajpurkar et al., 2016, SQuAD"

    def rows(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
        return _column(map(metrics.exact_match_normalised, predictions, references))


class TokenF1(_Rowwise):
    """The mean F1 of normalised words, against the closest reference."""

    description = "Mean F1 of the words shared with the closest reference, after normalising."
    citation = "Rajpurkar et al., 2016, SQuAD"

    def rows(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
        return _column(map(metrics.token_f1, predictions, references))


class Accuracy(ExactMatchNormalised):
    """The share of rows whose label was chosen."""

    description = "Percentage of rows whose label was chosen, whatever its case and punctuation."
    citation = ""


class MacroF1(_Rowwise):
    """The mean F1 of the labels, each weighing the same however rare it is."""

    description = "Unweighted mean of the labels' F1."

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self._labels = tuple(labels)

    def rows(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
        return label_counts(predictions, [right[0].strip() for right in references], self._labels)

    @staticmethod
    def total(sums: Floats, number: int) -> Floats:
        return macro_f1(sums)


class ChrF(_Rowwise):
    """chrF++ of the corpus: sacrebleu's, with word_order=2."""

    description = "chrF++: F-score of character n-grams up to 6 and word n-grams up to 2, of the corpus."
    citation = "Popović, 2017, chrF++: words helping character n-grams"

    def rows(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
        return metrics.chrf_statistics(predictions, references)

    @staticmethod
    def total(sums: Floats, number: int) -> Floats:
        return metrics.chrf(sums)


class BERTScore(_Rowwise):
    """The mean F1 of bert-score, not rescaled, by the encoder in `folder`.

    The layer is the one that bert-score's authors tuned for the encoder's name (`encoder`, "xlm-roberta-base"), else
    the last.
    """

    description = "Mean F1 of greedily matched contextual embeddings."
    citation = "Zhang et al., 2020, BERTScore: evaluating text generation with BERT"

    def __init__(self, folder: Path, encoder: str = "", batch_size: int = 64) -> None:
        super().__init__()
        self._scorer = _bert_scorer(folder, encoder, batch_size)

    def rows(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
        scores = np.zeros((len(predictions), 1))
        # Against an empty text bert-score has nothing to match; it would score the special tokens.
        kept = [
            (number, prediction, right)
            for number, prediction in enumerate(predictions)
            if prediction.strip() and (right := [answer for answer in references[number] if answer.strip()])
        ]
        for start in range(0, len(kept), _AT_ONCE):
            numbers, candidates, right_answers = zip(*kept[start : start + _AT_ONCE], strict=True)
            # Sorted by length and without repeats, by bert-score itself.
            _, _, f1 = self._scorer.score(list(candidates), list(right_answers), batch_size=self._scorer.batch_size)
            scores[list(numbers), 0] = 100.0 * f1.numpy()
        return scores


def _column(values: Any) -> Floats:
    return np.fromiter(values, dtype=np.float64).reshape(-1, 1)


def _bert_scorer(folder: Path, encoder: str, batch_size: int) -> Any:
    import torch
    from bert_score import BERTScorer
    from bert_score.utils import model2layers
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    layers = model2layers.get(encoder, model2layers.get(encoder.rpartition("/")[2], config.num_hidden_layers))
    with contextlib.redirect_stdout(None):
        scorer = BERTScorer(
            model_type=str(folder), num_layers=layers, batch_size=batch_size, idf=False, use_fast_tokenizer=True,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )  # fmt: skip
    # Some tokenizers name no limit, and bert-score cuts at the tokenizer's; RoBERTa's positions begin at 2.
    limit = config.max_position_embeddings - (2 if "roberta" in config.model_type else 0)
    scorer._tokenizer.model_max_length = min(scorer._tokenizer.model_max_length, limit)
    return scorer
