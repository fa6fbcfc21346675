"""Splitting: shares, leakage, determinism, and what is done when there is too little."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.settings import Settings
from services.kit.text import normalise
from services.kit.values import Demonstration, PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer.calls import DatasetKind, PrepareRequest, PrepareResult, TrainingSource
from services.trainer.prepare import Candidate, Splits, prepare, split

LONG = " ".join(f"{name} goes on and on about one subject, and then" for name in "ABCDEFGHIJKLMNOP")


def _rows(number: int, source: str = "a", split: str = "", word: str = "item") -> list[Row]:
    """Rows that are no near duplicates of each other: their numbers differ."""
    return [Row(f"{word} number {n}", f"output {n}", source, split) for n in range(number)]


def _split(
    rows: Iterable[Row],
    kind: DatasetKind = DatasetKind.RETRIEVED,
    own_test: Sequence[Row] | None = None,
    demonstrations: tuple[Demonstration, ...] = (),
    seed: int = 0,
    limit: int = 3000,
) -> Splits:
    test = None if own_test is None else [Candidate(row, DatasetKind.USER) for row in own_test]
    spec = PromptSpec("Do it.", demonstrations)
    return split([Candidate(row, kind) for row in rows], test, spec, seed, limit)


def _inputs(candidates: Iterable[Candidate]) -> list[str]:
    return [candidate.row.input for candidate in candidates]


def test_shares() -> None:
    """A source without a test split of its own is split 0.6 / 0.2 / 0.2, and no row is lost or in two splits."""
    splits = _split(_rows(100))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (60, 20, 20)
    assert len({*_inputs(splits.train), *_inputs(splits.validation), *_inputs(splits.test)}) == 100
    assert not +splits.removed


def test_every_source_is_split_by_itself() -> None:
    """A small source has its share of the test split beside a large one."""
    splits = _split([*_rows(500, "large"), *_rows(50, "small", word="other")])
    assert Counter(candidate.row.source for candidate in splits.test) == {"large": 100, "small": 10}


def test_order_of_arrival_does_not_matter() -> None:
    """The splits are a function of the rows and the seed: shuffling the input changes nothing, another seed does."""
    rows = [*_rows(80), *_rows(40, "b"), Row("item number 3", "another output", "b"), Row("", "x", "a")]
    shuffled = rows[:]
    random.Random(7).shuffle(shuffled)
    one, other, seeded = _split(rows), _split(shuffled), _split(rows, seed=1)
    for name in ("train", "validation", "test"):
        assert getattr(one, name) == getattr(other, name)
    assert one.removed == other.removed
    assert _inputs(one.test) != _inputs(seeded.test)


def test_own_test_split_stays_test() -> None:
    """A source's own test and validation splits stay what they are; its other rows are all for training."""
    rows = [*_rows(60, split="train"), *_rows(10, split="test", word="tested"), *_rows(8, split="dev", word="held")]
    splits = _split(rows)
    assert sorted(_inputs(splits.test)) == sorted(row.input for row in rows if row.split == "test")
    assert sorted(_inputs(splits.validation)) == sorted(row.input for row in rows if row.split == "dev")
    assert len(splits.train) == 60


def test_users_test_set_is_the_whole_test_split() -> None:
    """With a test set of the user's own nothing else is in the test split, not even a source's own test rows."""
    own = _rows(12, "mine", word="mine")
    splits = _split([*_rows(80), *_rows(20, split="test", word="tested")], own_test=own)
    assert sorted(_inputs(splits.test)) == sorted(row.input for row in own)
    assert (len(splits.train), len(splits.validation)) == (75, 25)


@pytest.mark.parametrize(
    "copy",
    [
        "Tested number 3!",
        "the tested  number 3",
        f"{LONG} here",
    ],
    ids=["punctuation and case", "an article and spaces", "a near duplicate"],
)
def test_nothing_of_the_test_split_is_trained_on(copy: str) -> None:
    """A row that equals a test row but for its writing, or nearly equals it, is taken out of training and counted."""
    own = [*_rows(9, word="tested"), Row(LONG, "long")]
    splits = _split([*_rows(50), Row(copy, "leaked", "a")], own_test=own)
    assert splits.removed["in_test"] == 1
    assert "leaked" not in {candidate.row.output for candidate in (*splits.train, *splits.validation)}


def test_no_leak_between_any_two_splits() -> None:
    """After splitting rows full of repeats no normalised input is in two splits."""
    rng = random.Random(1)
    forms = ("Item number {}", "item number {}.", "the item number {}", "ITEM number {}!")
    rows = [Row(rng.choice(forms).format(rng.randrange(120)), "x", rng.choice("abc")) for _ in range(600)]
    splits = _split(rows)
    sets = [{normalise(text) for text in _inputs(part)} for part in (splits.train, splits.validation, splits.test)]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert splits.removed["in_test"] and splits.removed["in_validation"] and splits.removed["duplicate"]
    assert sum(splits.removed.values()) + sum(map(len, (splits.train, splits.validation, splits.test))) == 600


def test_demonstrations_are_not_tested() -> None:
    """A test row that is a demonstration of the prompt is taken out and counted."""
    own = _rows(10, word="tested")
    splits = _split(_rows(50), own_test=own, demonstrations=(Demonstration("Tested number 4", "?"),))
    assert "tested number 4" not in _inputs(splits.test)
    assert splits.removed["demonstration"] == 1


def test_limit_of_rows_per_source() -> None:
    """Of a source at most `limit` rows are taken, in the same shares, and the rest are counted."""
    splits = _split(_rows(500), limit=100)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (60, 20, 20)
    assert splits.removed["over_limit"] == 400
    large = _split([*_rows(500, split="train"), *_rows(90, split="test", word="tested")], limit=100)
    assert (len(large.train), len(large.validation), len(large.test)) == (60, 20, 20)


def test_votes_decide_between_outputs() -> None:
    """Of rows with one input the most frequent output stays, at a tie the shortest; real rows go first."""
    votes = [
        Row("q 1", "yes", "a"),
        Row("q 1", "no", "a"),
        Row("q 1", "yes", "a"),
        Row("q 2", "long", "a"),
        Row("q 2", "b", "a"),
    ]
    splits = _split([*_rows(50), *votes])
    outputs = {c.row.input: c.row.output for c in (*splits.train, *splits.validation, *splits.test)}
    assert (outputs["q 1"], outputs["q 2"]) == ("yes", "b")
    generated = [Candidate(Row("q 3", "g", "g"), DatasetKind.GENERATED)] * 3
    mixed = split([*generated, Candidate(Row("q 3", "r", "r"), DatasetKind.RETRIEVED)], None, PromptSpec(), 0, 3000)
    assert [c.row.output for c in (*mixed.train, *mixed.validation, *mixed.test)] == ["r"]


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
    assert table["real"].to_pylist() == [True] * 8 + [False] * 8
    rows = artifacts.read_rows(result.test)
    assert {row.source for row in rows[:8]} == {"found"} and {row.source for row in rows[8:]} == {"generated"}
    assert all(row.split == "test" for row in rows) and rows[0].answers == ("a", "b")
    counted = {(count.source, count.kind, count.split): count.rows for count in result.counts}
    assert counted["found", DatasetKind.RETRIEVED, "train"] == 24
    assert counted["generated", DatasetKind.GENERATED, "test"] == 8


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
    for part in ("6 rows to train on", "2 to test on", "10 duplicate", "1 empty", "Generate more"):
        assert part in caught.value.message


def test_no_sources(settings: Settings, artifacts: Artifacts) -> None:
    """Without a source, or with one of no kind, the request is INVALID_ARGUMENT and names the field."""
    with pytest.raises(InvalidArgument) as none:
        _prepare(settings, artifacts, [])
    assert none.value.field == "sources"
    with pytest.raises(InvalidArgument) as kindless:
        _prepare(settings, artifacts, [(_rows(40), DatasetKind.UNSPECIFIED)])
    assert kindless.value.field == "sources[0].kind"
