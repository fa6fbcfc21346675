"""Splitting: shares, repeats, caps, weights, labels, and what is done when there is too little."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.settings import Settings
from services.kit.text import model_input, normalise
from services.kit.values import PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer.calls import DatasetKind, LeakExample, PrepareRequest, PrepareResult, TrainingSource
from services.trainer.prepare import prepare
from tests.support.splits import Made, made_of

USER, RETRIEVED, GENERATED = DatasetKind.USER, DatasetKind.RETRIEVED, DatasetKind.GENERATED
LONG = " ".join(f"{name} goes on and on about one subject, and then" for name in "ABCDEFGHIJKLMNOP")


def _rows(number: int, source: str = "a", split: str = "", word: str = "item") -> list[Row]:
    """Rows that are no near duplicates of each other: their numbers differ."""
    return [Row(f"{word} number {n}", f"output {n}", source, split) for n in range(number)]


def _split(rows: Sequence[Row], own_test: Sequence[Row] | None = None, **options: Any) -> Made:
    return made_of((rows, RETRIEVED), own_test=own_test, **options)


def _inputs(rows: Sequence[Row]) -> list[str]:
    return [row.input for row in rows]


def _sizes(made: Made) -> tuple[int, int, int]:
    return len(made.train), len(made.validation), len(made.test)


def test_shares() -> None:
    """Rows are drawn 0.6 / 0.2 / 0.2, within what chance allows, and none is lost or in two splits."""
    made = _split(_rows(3_000))
    # Four standard deviations.
    assert all(
        abs(size - 3_000 * share) < 4 * (3_000 * share * (1 - share)) ** 0.5
        for size, share in zip(_sizes(made), (0.6, 0.2, 0.2), strict=True)
    )
    assert len(set(_inputs(made.all))) == 3_000 and not made.removed


def test_seed_draws_anew() -> None:
    """Another seed draws other rows for the test split."""
    assert set(_inputs(_split(_rows(100)).test)) != set(_inputs(_split(_rows(100), seed=1).test))


def test_own_test_split_stays_test() -> None:
    """A source's own test and validation splits stay what they are; its other rows are all for training."""
    rows = [*_rows(60, split="train"), *_rows(10, split="test", word="tested"), *_rows(8, split="dev", word="held")]
    made = _split(rows)
    assert sorted(_inputs(made.test)) == sorted(row.input for row in rows if row.split == "test")
    assert sorted(_inputs(made.validation)) == sorted(row.input for row in rows if row.split == "dev")
    assert len(made.train) == 60


def test_a_source_without_validation_gives_some() -> None:
    """A source with a test split of its own and no validation split has validation rows drawn from the others."""
    made = _split([*_rows(400, split="train"), *_rows(10, split="test", word="tested")])
    assert len(made.test) == 10 and 50 < len(made.validation) < 110


def test_users_test_set_is_the_whole_test_split() -> None:
    """With a test set of the user's own nothing else is in the test split, not even a source's own test rows."""
    own = _rows(12, "mine", word="mine")
    made = _split([*_rows(80), *_rows(20, split="test", word="tested")], own_test=own, limit=30, caps={"mine": 1})
    assert sorted(_inputs(made.test)) == sorted(row.input for row in own)
    assert len(made.train) == 18 and len(made.validation) == 6
    assert any("your own test set" in note for note in made.notes)


@pytest.mark.parametrize(
    ("copy", "near"),
    [
        ("Tested number 3!", False),
        ("the tested  number 3", False),
        (f"{LONG} here", True),
    ],
    ids=["punctuation and case", "an article and spaces", "a near duplicate"],
)
def test_nothing_of_the_test_split_is_trained_on(copy: str, near: bool) -> None:
    """A row that equals a test row but for its writing, or nearly equals it, is taken out of training, and the report
    says whose it was, what it repeated and how."""
    own = [*_rows(9, word="tested"), Row(LONG, "long")]
    made = _split([*_rows(50), Row(copy, "leaked", "b")], own_test=own)
    assert made.removed == {"in_test": 1}
    assert "leaked" not in {row.output for row in made.all}
    (leak,) = made.leaks
    assert (leak.source, leak.kind, leak.repeats, leak.near, leak.rows) == ("b", RETRIEVED, "test", near, 1)
    assert leak.split in ("train", "validation")
    other = LONG if near else "tested number 3"
    assert leak.examples == (
        LeakExample(copy[:499] + "…" if len(copy) > 500 else copy, other[:499] + "…" if near else other),
    )


def test_no_leak_between_any_two_splits() -> None:
    """After splitting rows full of repeats no normalised input is in two splits, and all rows are accounted for."""
    rng = random.Random(1)
    forms = ("Item number {}", "item number {}.", "the item number {}", "ITEM number {}!")
    rows = [
        Row(rng.choice(forms).format(rng.randrange(120)), "x", rng.choice("abc"), rng.choice(["", "test"]))
        for _ in range(600)
    ]
    made = made_of(*(([row for row in rows if row.source == name], USER) for name in "abc"))
    sets = [{normalise(text) for text in _inputs(part)} for part in (made.train, made.validation, made.test)]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert made.removed["in_test"] and made.removed["near_duplicate"] and made.removed["duplicate"]
    assert made.removed.total() + len(made.all) == 600


def test_near_duplicates_can_stay() -> None:
    """With `keep_near` equal rows go and near duplicates stay, in whichever split they were drawn for."""
    rows = [Row(f"{LONG} {letter * 2}", "same", "a") for letter in "abcdefghijklmnopqrstuvwxyz"]
    made = _split([*rows, rows[0]], keep_near=True)
    assert len(made.all) == 26 and made.removed == {"duplicate": 1}
    assert len(_split(rows).all) == 1
    assert any("near duplicates of others" in note for note in _split(rows).notes)


def test_another_question_about_one_passage_stays() -> None:
    """In a split, rows with near inputs and different outputs are different examples; across splits they leak."""
    rows = [Row(f"{LONG} {letter * 2}", letter, "a") for letter in "abcdefghijklmnopqrstuvwxyz"]
    made = _split(rows)
    assert len(made.test) > 1 and not made.train and not made.validation
    assert made.removed == {"in_test": 26 - len(made.test)}


def test_given_test_rows_stay_though_they_are_near() -> None:
    """A person's own test set, and a source's own test split, lose equal rows only."""
    rows = [Row(f"{LONG} {letter * 2}", "same", "a", "test") for letter in "abcdefghij"]
    given = [*rows, rows[0], Row(rows[1].input.upper(), "same", "a", "test")]
    for made in (_split(_rows(50), own_test=given), _split([*_rows(50), *given])):
        assert sum(row.input.lower().startswith(LONG.lower()) for row in made.test) == 11
        assert made.removed == {"duplicate": 1}


@pytest.mark.parametrize("shown", ["TESTED number 4", f"{LONG} and"], ids=["equal", "near"])
def test_demonstrations_are_not_tested(shown: str) -> None:
    """A test row that is a demonstration of the prompt, or near to one, is taken out and counted."""
    own = [*_rows(10, "", word="tested"), Row(LONG, "x")]
    made = _split(_rows(50), own_test=own, shown=(shown, "another"))
    assert len(made.test) == 10 and made.removed == {"demonstration": 1}
    (leak,) = made.leaks
    assert (leak.source, leak.split, leak.repeats) == ("own test set", "test", "demonstration")
    assert leak.examples[0].other[:20] == shown[:20]


def test_limit_of_rows_per_source() -> None:
    """Of a source at most `limit` rows are taken, in the shares of the splits, and the rest are counted."""
    made = _split(_rows(1_000), limit=100)
    assert _sizes(made) == (60, 20, 20) and made.removed == {"over_limit": 900}
    large = _split([*_rows(500, split="train"), *_rows(90, split="test", word="tested")], limit=100)
    assert _sizes(large) == (60, 20, 20)


@pytest.mark.parametrize("limit", range(1, 13))
def test_a_small_limit_is_one_too(limit: int) -> None:
    """However small a limit is, no more rows are taken, and one of them is for the test split."""
    made = _split(_rows(200), limit=limit)
    assert len(made.all) == limit and made.test


def test_caps_of_single_sources() -> None:
    """A cap by name goes before one by kind, and that before the common limit."""
    sources = [(_rows(500, name, word=name), kind) for name, kind in (("a", USER), ("b", USER), ("c", GENERATED))]
    made = made_of(*sources, limit=50, caps={"user": 100, "b": 200})
    assert Counter(row.source for row in made.all) == {"a": 100, "b": 200, "c": 50}


def test_a_cap_takes_the_same_rows_whatever_comes_beside() -> None:
    """What is taken under a cap does not depend on other sources, and a higher cap takes more, not others."""
    alone = _split(_rows(500), limit=100)
    beside = made_of((_rows(500), RETRIEVED), (_rows(500, "g", word="made"), GENERATED), limit=100)
    assert set(_inputs(alone.all)) == {row.input for row in beside.all if row.source == "a"}
    assert set(_inputs(alone.all)) < set(_inputs(_split(_rows(500), limit=200).all))


def test_weights_of_training_rows() -> None:
    """A weight of 0.5 takes half of a source's training rows, 2.5 each twice and half of them once more, 0 none; the
    other splits are as they were, and the notes say what was done."""
    sources = [
        (_rows(1_000, name, word=name), kind) for name, kind in (("a", USER), ("b", RETRIEVED), ("c", GENERATED))
    ]
    plain, made = made_of(*sources), made_of(*sources, mix={"user": 0.5, "b": 2.5, "retrieved": 0, "generated": 0})
    assert (plain.test, plain.validation) == (made.test, made.validation)
    before, after = (Counter(row.source for row in one.train) for one in (plain, made))
    assert after["a"] / before["a"] == pytest.approx(0.5, abs=0.08)
    assert after["b"] / before["b"] == pytest.approx(2.5, abs=0.08)
    assert after["c"] == 0
    assert set(Counter(row.input for row in made.train if row.source == "b").values()) == {2, 3}
    assert made.removed == {"mix": before["a"] - after["a"] + before["c"]}
    assert f"Mixing: 0 training rows from the {before['c']:,} of c (generated)." in made.notes


def test_a_weight_of_nothing_is_told() -> None:
    """A cap or a weight whose name no source has changes nothing and is named, with the sources that there are."""
    made = _split(_rows(100), mix={"generatd": 0.5, "generated": 0.5})
    assert made.split_of == _split(_rows(100)).split_of
    assert "--mix names 'generatd', which no source is called; there are: a (retrieved)." in made.notes


def _labelled(counts: dict[str, int]) -> list[Row]:
    return [Row(f"{label} number {n}", label, "a") for label, count in counts.items() for n in range(count)]


def test_labels_are_in_every_split_in_proportion() -> None:
    """Each label has its share of each split within what chance allows, and the counts say what it has."""
    counts = {"common": 4_000, "less": 1_000, "rare": 100}
    made = _split(_labelled(counts), limit=10_000)
    assert [one.label for one in made.labels] == ["common", "less", "rare"]
    for one in made.labels:
        total = counts[one.label]
        assert one.train + one.validation + one.test == total
        for rows, share in ((one.train, 0.6), (one.validation, 0.2), (one.test, 0.2)):
            assert abs(rows - share * total) < 4 * (total * share * (1 - share)) ** 0.5


def test_a_cap_keeps_the_proportions_of_labels() -> None:
    """Under a cap each label has its share of each split to the row, and a label that is rarer than that one row."""
    made = _split(_labelled({"common": 4_000, "less": 1_000, "rare": 40}), limit=500)
    for split, size in ((made.train, 300), (made.validation, 100), (made.test, 100)):
        counts = Counter(row.output for row in split)
        assert len(split) == size and counts["rare"] >= 1
        assert counts["less"] / size == pytest.approx(1_000 / 5_040, abs=0.02)


def test_labels_that_a_split_lacks_are_told() -> None:
    """A label that is too rare for the test split is named; free text has no labels."""
    made = _split(_labelled({"common": 500, "once": 1}))
    assert any("'once'" in note and "rare" in note for note in made.notes)
    assert not _split(_rows(400)).labels


def test_votes_decide_between_outputs() -> None:
    """Of rows with one input the most frequent output stays, at a tie the shortest; real rows go first."""
    votes = [
        Row("q 1", "yes", "a"),
        Row("q 1", "no", "a"),
        Row("q  1", "yes", "a"),
        Row("q 2", "long", "a"),
        Row("q 2", "b", "a"),
    ]
    outputs = {row.input: row.output for row in _split([*_rows(50), *votes]).all}
    assert (outputs.get("q 1") or outputs.get("q  1"), outputs["q 2"]) == ("yes", "b")
    mixed = made_of(([Row("q 3", "g", "g")] * 3, GENERATED), ([Row("q 3", "r", "r")], RETRIEVED))
    assert [row.output for row in mixed.all] == ["r"]


def test_few_test_rows_are_told() -> None:
    """A test split that is too small for a verdict is used all the same, and a note says so."""
    made = _split(_rows(30))
    assert 0 < len(made.test) < 20
    assert any(f"only {len(made.test)} test rows" in note for note in made.notes)


def test_what_the_student_reads() -> None:
    """The student reads the person's own instruction, in their language, a line break, and the input as it is."""
    spec = PromptSpec("Answer.", (), "de", "Beantworte die Frage.")
    assert model_input(spec, "Wer?\n Ich.") == "Beantworte die Frage.\nWer?\n Ich."
    assert model_input(PromptSpec("Answer."), "Who?") == "Answer.\nWho?"
    assert model_input(PromptSpec(), "Who?") == "Who?"


# -- the whole call


def _prepare(
    settings: Settings, artifacts: Artifacts, sources: Sequence[tuple[list[Row], DatasetKind]]
) -> PrepareResult:
    given = tuple(TrainingSource(artifacts.put_rows(rows), kind) for rows, kind in sources)
    return prepare(PrepareRequest("r/prepare", given, spec=PromptSpec("Do it.")), WorkerContext(settings))


def test_test_split_says_which_rows_are_real(settings: Settings, artifacts: Artifacts) -> None:
    """The stored test split has `real`, real rows first; all columns of the rows survive, `answers` too."""
    real = [Row(f"question {n}", "a", "found", "train", ("a", "b")) for n in range(40)]
    sources = [(real, DatasetKind.RETRIEVED), (_rows(40, "generated", word="made"), DatasetKind.GENERATED)]
    result = _prepare(settings, artifacts, sources)
    table = artifacts.read_table(result.test)
    counted = {(count.source, count.kind, count.split): count.rows for count in result.counts}
    found, generated = counted["found", RETRIEVED, "test"], counted["generated", GENERATED, "test"]
    assert found and generated and sum(counted.values()) == 80
    assert table["real"].to_pylist() == [True] * found + [False] * generated
    rows = artifacts.read_rows(result.test)
    assert [row.source for row in rows] == ["found"] * found + ["generated"] * generated
    assert all(row.split == "test" for row in rows) and rows[0].answers == ("a", "b")


def test_rewritten_rows_are_not_real(settings: Settings, artifacts: Artifacts) -> None:
    """Rows that the LLM rewrote are not called real, not even those of the source's own test split; a note says so."""
    adapted = [(_rows(40, "a+adapted") + _rows(10, "a+adapted", "test", "exam"), DatasetKind.ADAPTED)]
    result = _prepare(settings, artifacts, adapted)
    assert set(artifacts.read_table(result.test)["real"].to_pylist()) == {False}
    assert any("rewritten by the LLM" in note for note in result.notes)
    mixed = _prepare(settings, artifacts, [*adapted, (_rows(40, "u", word="mine"), DatasetKind.USER)])
    rows = artifacts.read_table(mixed.test).to_pylist()
    assert {row["source"] for row in rows if row["real"]} == {"u"}


def test_same_request_gives_same_artifacts(settings: Settings, artifacts: Artifacts) -> None:
    """The artifacts' digests do not depend on the order of the sources or of their rows."""
    one, other = (_rows(40), DatasetKind.USER), (_rows(30, "g", word="made"), DatasetKind.GENERATED)
    first = _prepare(settings, artifacts, [one, other])
    second = _prepare(settings, artifacts, [(other[0][::-1], other[1]), (one[0][::-1], one[1])])
    assert (first.train, first.validation, first.test) == (second.train, second.validation, second.test)


def test_too_few_rows(settings: Settings, artifacts: Artifacts) -> None:
    """Too little data is FAILED_PRECONDITION, with the counts and what to do."""
    with pytest.raises(FailedPrecondition) as caught:
        _prepare(settings, artifacts, [([*_rows(10), Row("", "x"), *_rows(10)], DatasetKind.USER)])
    assert caught.value.reason == "TOO_FEW_ROWS"
    for part in ("5 rows to train on", "2 to test on", "10 duplicate", "1 empty", "Generate more"):
        assert part in caught.value.message


def test_no_sources(settings: Settings, artifacts: Artifacts) -> None:
    """Without a source, or with one of no kind, the request is INVALID_ARGUMENT and names the field."""
    with pytest.raises(InvalidArgument) as none:
        _prepare(settings, artifacts, [])
    assert none.value.field == "sources"
    with pytest.raises(InvalidArgument) as kindless:
        _prepare(settings, artifacts, [(_rows(40), DatasetKind.UNSPECIFIED)])
    assert kindless.value.field == "sources[0].kind"
