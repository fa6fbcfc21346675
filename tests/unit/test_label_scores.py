"""Where outputs are labels: what counts as that, accuracy and macro-F1."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from services.evaluator.labels import label_counts, labels_of, macro_f1
from services.evaluator.metrics import Accuracy, MacroF1
from services.kit.values import Row

LABELS = ("Negative", "Neutral", "Positive")


def rows(outputs: list[str]) -> list[Row]:
    return [Row(f"text {number}", output) for number, output in enumerate(outputs)]


def drawn(number: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Right outputs of unequal frequency, and predictions that are right about half the time."""
    rng = np.random.default_rng(seed)
    right = rng.choice(LABELS, size=number, p=[0.7, 0.05, 0.25])
    said = np.where(rng.random(number) < 0.5, right, rng.choice(LABELS, size=number))
    return list(map(str, said)), list(map(str, right))


def test_macro_f1_and_accuracy_are_scikit_learns() -> None:
    """On 300 rows both equal scikit-learn's numbers, and so does macro-F1 of every resample of rows."""
    said, right = drawn(300)
    found = MacroF1(LABELS).compute(predictions=said, references=[[one] for one in right])
    assert found["score"] == pytest.approx(100 * f1_score(right, said, average="macro"))
    exact = Accuracy().compute(predictions=said, references=[[one] for one in right])
    assert exact["score"] == pytest.approx(100 * accuracy_score(right, said))
    chosen = np.random.default_rng(1).integers(300, size=(5, 300))
    counts = label_counts(said, right, LABELS)
    resampled = macro_f1(np.stack([counts[one].sum(axis=0) for one in chosen]))
    wanted = [f1_score(np.array(right)[one], np.array(said)[one], average="macro") for one in chosen]
    assert resampled == pytest.approx([100 * one for one in wanted])


def test_a_prediction_that_is_no_label_is_wrong_and_nobodys_false_positive() -> None:
    """Case and a full stop are forgiven; another word or nothing counts against the right label alone."""
    said, right = ["positive.", "NEGATIVE", "fine", ""], ["Positive", "Negative", "Positive", "Negative"]
    found = MacroF1(LABELS).compute(predictions=said, references=[[one] for one in right])
    assert found["score"] == pytest.approx(100 * 2 / 3)  # each label: one right, one missed; Neutral does not occur
    assert Accuracy().compute(predictions=said, references=[[one] for one in right])["score"] == 50


@pytest.mark.parametrize(
    ("outputs", "are"),
    [
        (["yes", "no"] * 10, True),
        ([f"label {n % 7}" for n in range(70)], True),
        (["yes"] * 20, False),  # one output tells nothing
        ([f"answer {n}" for n in range(40)], False),  # nothing repeats
        (["yes", "no"] * 4, False),  # too few rows to tell
        (["a long answer of more than five words", "no"] * 10, False),
        (["yes", ""] * 10, False),
        (["Yes", "yes"] * 10, False),
    ],
)
def test_what_counts_as_labels(outputs: list[str], are: bool) -> None:
    """A small set of short outputs that repeat; anything else is text."""
    assert bool(labels_of(rows(outputs))) is are


def test_outputs_that_are_copied_or_have_several_answers_are_no_labels() -> None:
    """A name that stands in its input is extracted, not chosen; and a label is one answer."""
    names = [Row(f"{name} came home", name) for name in ("Ann", "Bob") * 10]
    assert labels_of(names) == ()
    assert labels_of([Row("x", name, answers=(name, "other")) for name in ("Ann", "Bob") * 10]) == ()
