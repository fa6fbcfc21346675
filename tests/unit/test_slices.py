"""Slices of errors: only what is really worse is named, by what a person can see, and never by test rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from services.evaluator import intervals, slices
from services.evaluator.slices import SliceJob, find
from services.evaluator.traits import traits
from services.kit.settings import Settings
from services.kit.values import Row
from services.kit.worker import WorkerContext

TOPICS = {
    "travel": ["the train leaves the platform", "a ticket for the train", "the platform of the morning train"],
    "food": ["bread with butter and soup", "a bowl of soup and bread", "butter on warm bread"],
    "weather": ["rain and wind from the west", "the wind brings cold rain", "a storm of rain and wind"],
}


def drawn(number: int, seed: int = 0) -> list[Row]:
    """Rows of three topics, each answered with its name."""
    rng = random.Random(seed)
    names = list(TOPICS)
    return [
        Row(f"{rng.choice(TOPICS[name])} {n}", name, ("web", "llm")[n % 2])
        for n, name in enumerate(rng.choice(names) for _ in range(number))
    ]


def vectors(rows: Sequence[Row]) -> np.ndarray[Any, Any]:
    """What a sentence encoder would give: a corner for each topic, and some noise."""
    corners = np.array([[row.output == name for name in TOPICS] for row in rows], dtype=np.float32)
    return corners + np.random.default_rng(0).normal(0, 0.05, corners.shape).astype(np.float32)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Stands in for the encoder; holds the texts of each call."""
    calls: list[Sequence[str]] = []

    def encoder(_: WorkerContext) -> Any:
        def encode(texts: Sequence[str]) -> Any:
            calls.append(texts)
            topic = [next(name for name, known in TOPICS.items() if text.rpartition(" ")[0] in known) for text in texts]
            return vectors([Row("", name) for name in topic])

        return encode

    monkeypatch.setattr(slices, "_encoder", encoder)
    return calls


def test_a_topic_that_fails_is_found_and_named_by_its_words(settings: Settings, encoded: list[Sequence[str]]) -> None:
    """Two thirds of the rows about travel are wrong and a tenth of the others: one topic is named, by words of its rows
    that others lack, with both rates, the gap's interval, and examples that are wrong."""
    rows = drawn(240)
    rng = random.Random(1)
    said = ["nonsense" if rng.random() < (0.66 if row.output == "travel" else 0.1) else row.output for row in rows]
    found = find(SliceJob(tuple(rows), tuple(said)), WorkerContext(settings))
    worst = found.slices[0]
    topics = [one for one in found.slices if one.kind in ("topic", "output")]
    assert len(topics) == 1  # the label and the topic are the same rows: told once
    assert set(topics[0].name.replace(",", "").replace('"', "").split()) & {"train", "platform", "travel"}
    assert worst.rows == sum(row.output == "travel" for row in rows)
    assert worst.error_rate.value > 50 > 20 > worst.rest_error_rate.value
    assert worst.difference.low > 20
    assert worst.difference.value == pytest.approx(worst.error_rate.value - worst.rest_error_rate.value)
    assert len(worst.examples) == 3
    assert all(one.prediction == "nonsense" and one.output == "travel" for one in worst.examples)


def test_errors_without_a_pattern_give_no_slice(settings: Settings, encoded: list[Sequence[str]]) -> None:
    """Of 20 students that are wrong on random rows, at most one has a slice named: many are tried, and each is held to
    what all of them together could show by chance."""
    rows = tuple(drawn(240))
    named = tried = 0
    for seed in range(20):
        rng = random.Random(seed)
        said = tuple("nonsense" if rng.random() < 0.4 else row.output for row in rows)
        found = find(SliceJob(rows, said), WorkerContext(settings))
        named += bool(found.slices)
        tried += found.tried
    assert tried / 20 > 5
    assert named <= 1


def test_test_rows_have_no_part_in_choosing(settings: Settings, encoded: list[Sequence[str]]) -> None:
    """With other test rows and predictions the same slices are found, with the same names, rates and examples; the test
    rows that belong to each are counted, and their error rate is theirs alone."""
    rows, test = tuple(drawn(240)), tuple(drawn(120, seed=7))
    said = tuple("nonsense" if row.output == "travel" else row.output for row in rows)
    wrong, right = tuple("nonsense" for _ in test), tuple(row.output for row in test)
    without = find(SliceJob(rows, said), WorkerContext(settings))
    bad = find(SliceJob(rows, said, test, wrong), WorkerContext(settings))
    good = find(SliceJob(rows, said, test, right), WorkerContext(settings))

    def chosen(found: slices.Slices) -> list[Any]:
        return [(one.name, one.kind, one.error_rate, one.difference, one.examples) for one in found.slices]

    assert chosen(without) == chosen(bad) == chosen(good)
    travel = sum(row.output == "travel" for row in test)
    assert [one.test_rows for one in bad.slices][:1] == [travel]
    assert bad.slices[0].test_error_rate == intervals.share(100.0, travel)
    assert good.slices[0].test_error_rate == intervals.share(0.0, travel)
    assert without.slices[0].test_error_rate is None
    texts = {row.input for row in test}
    assert not any(example.input in texts for one in good.slices for example in one.examples)


def test_test_rows_are_encoded_only_for_a_topic_that_is_worse(settings: Settings, encoded: list[Sequence[str]]) -> None:
    """Where every topic does equally well, the test split is not encoded at all."""
    rows, test = tuple(drawn(240)), tuple(drawn(60, seed=7))
    said = tuple("nonsense" if n % 3 == 0 else row.output for n, row in enumerate(rows))
    find(SliceJob(rows, said, test, tuple(row.output for row in test)), WorkerContext(settings))
    assert [len(texts) for texts in encoded] == [240]


def test_plain_traits_are_tried_on_any_row() -> None:
    """Length, output, format and source tell rows apart; a trait of all rows or of none is not tried."""
    rows = [Row(f"word {'and ' * (n % 9)}{n}", "N/A" if n % 2 else f"12{n}", ("a", "b")[n % 3 == 0]) for n in range(60)]
    found = {one.name: one for one in traits(rows)}
    assert found['rows whose output is "N/A"'].has(Row("x", "N/A"))
    assert found["outputs that are a number or a date"].has(Row("x", "2024-01-02"))
    assert not found["outputs that are a number or a date"].has(Row("x", "May 2"))
    assert {one.kind for one in found.values()} == {"length", "output", "format", "source"}
    assert "inputs with digits" not in found  # all have them
    assert "outputs of several lines" not in found  # none has
    longer = next(one for name, one in found.items() if name.startswith("inputs of more than"))
    assert longer.has(Row("one " * 50, "")) and not longer.has(Row("one", ""))


def test_where_hardly_an_answer_is_exact_shared_words_count() -> None:
    """A student of whom 1 in 20 answers matches exactly is judged by token F1, and the result says so."""
    rows = [Row("x", f"alpha beta gamma {n}") for n in range(40)]
    said = [
        row.output if n % 20 == 0 else f"alpha beta gamma no{n}" if n % 2 else "other" for n, row in enumerate(rows)
    ]
    wrong, meaning = slices.failures(rows, said)
    assert "token F1 below 50" in meaning
    assert wrong == [n % 2 == 0 and n % 20 != 0 for n in range(40)]


def test_few_rows_or_no_errors_give_no_slice(settings: Settings) -> None:
    """Nothing is claimed of 9 rows, of a student without a mistake, or of one without a right answer."""
    rows = tuple(drawn(60))
    for chosen, said in ((rows[:9], ("x",) * 9), (rows, tuple(row.output for row in rows)), (rows, ("",) * 60)):
        assert find(SliceJob(chosen, said), WorkerContext(settings)).slices == ()


def test_the_difference_of_two_shares_is_newcombes() -> None:
    """56 of 70 against 48 of 80: Newcombe (1998, method 10) gives 5.24 to 33.39 points."""
    found = intervals.difference_of_shares(100 * 56 / 70, 70, 100 * 48 / 80, 80)
    assert (round(found.low, 2), round(found.high, 2)) == (5.24, 33.39)


def test_a_named_slice_is_compared_on_its_test_rows(settings: Settings, encoded: list[Sequence[str]]) -> None:
    """Of slices asked for by name the student and another one are compared on the test rows that belong to them, also
    where this student makes no mistake; a name that no slice has is left out.
    """
    rows, test = tuple(drawn(120)), tuple(drawn(60, seed=1))
    right = tuple(row.output for row in test)
    before = tuple("" if row.output == "travel" else row.output for row in test)
    said = tuple(row.output for row in rows)
    bad = tuple("" if row.output == "travel" and n % 3 else row.output for n, row in enumerate(rows))
    first = find(SliceJob(rows, bad, test, before), WorkerContext(settings))
    topic = next(one.name for one in first.slices if one.kind == "topic" or "travel" in one.name)
    job = SliceJob(rows, said, test, right, (topic, "inputs about nothing"), {"before": before, "base": right})
    found = find(job, WorkerContext(settings)).comparisons
    assert [(one.slice, one.against) for one in found] == [(topic, "before"), (topic, "base")]
    travel = sum(row.output == "travel" for row in test)
    assert (found[0].student, found[0].other, found[0].rows) == (100.0, 0.0, travel)
    assert found[0].difference.low > 0
    assert found[1].difference.value == 0 and found[1].difference.low < 0
