"""The lock: a row's split is its content's, whatever else is in the data; and no split is like another."""

from __future__ import annotations

import random
from itertools import combinations, product

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.kit.dedup import are_near, same_text
from services.kit.text import normalise
from services.kit.values import Row
from services.trainer.calls import DatasetKind
from tests.support.splits import Given, Made, made_of

_WORDS = [f"{a}{b}{c}" for a in "bdkm" for b in "aeo" for c in "lnrs"]


def _text(base: int, change: int) -> str:
    """One of many texts: near to others of its base by another word, writing or end; not near by another number."""
    words = random.Random(base).choices(_WORDS, k=(4, 12, 30, 45)[base % 4])
    if change == 8:
        words.insert(0, "the")
    elif change % 4 == 1:
        words[change % len(words)] = words[change % len(words)].upper() + ","
    elif change % 4 == 2:
        words.append(_WORDS[change % len(_WORDS)])
    elif change % 4 == 3:
        words[change % len(words)] = str(change)
    return " ".join(words)


def _rows(source: str, splits: tuple[str, ...] = ("", "train")) -> st.SearchStrategy[list[Row]]:
    row = st.builds(
        lambda base, change, output, split: Row(_text(base, change), output, source, split),
        st.integers(0, 15), st.integers(0, 12), st.sampled_from("xyz"), st.sampled_from(splits),
    )  # fmt: skip
    return st.lists(row, max_size=60)


def _near(one: Row, other: Row) -> bool:
    return normalise(one.input) == normalise(other.input) or are_near(one.input, other.input)


_KINDS = st.sampled_from([DatasetKind.USER, DatasetKind.RETRIEVED, DatasetKind.GENERATED, DatasetKind.ADAPTED])
_LIMITS = st.sampled_from([5, 20, 3_000])
_MANY = hypothesis_settings(max_examples=80, deadline=None)


def _moved(before: Made, after: Made, *, by_source: bool) -> set[object]:
    """The rows that are in both, in different splits."""
    one, other = before.split_of, after.split_of
    if by_source:
        return {key for key in one.keys() & other.keys() if one[key] != other[key]}
    first, second = ({(same_text(text), split) for (_, text), split in made.items()} for made in (one, other))
    return {text for text, split in first if any(text == t and split != s for t, s in second)}


@_MANY
@given(_rows("a"), _rows("a"), _rows("b"), _KINDS, _KINDS, _LIMITS, st.integers(-3, 3), st.floats(0, 3))
def test_added_rows_and_sources_move_nothing(
    old: list[Row], added: list[Row], other: list[Row], kind: DatasetKind, new: DatasetKind, limit: int, seed: int,
    weight: float,
) -> None:  # fmt: skip
    """Rows added to a source, and another source beside it, move no row to another split, under any cap and weight; and
    nothing is trained on that is near to what was tested on before, while that is still among the data."""
    before = made_of((old, kind), seed=seed, limit=limit)
    options = {"limit": limit, "mix": {"a": weight}, "caps": {"b": 7}}
    after = made_of(([*old, *added], kind), (other, new), seed=seed, **options)
    assert not _moved(before, after, by_source=False)
    assert not [pair for pair in product(before.test, after.train) if _near(*pair)]


@_MANY
@given(
    _rows("a", ("", "train", "test")), _rows("b", ("train", "validation", "test", "dev")), _rows("c"), _LIMITS
)  # fmt: skip
def test_a_source_that_gives_splits_moves_no_other(
    one: list[Row], other: list[Row], third: list[Row], limit: int
) -> None:
    """A source whose rows are given to splits keeps them there, and moves no row of another source."""
    before = made_of((one, DatasetKind.RETRIEVED), limit=limit)
    sources: list[Given] = [(one, DatasetKind.RETRIEVED), (third, DatasetKind.GENERATED), (other, DatasetKind.USER)]
    after = made_of(*sources, limit=limit)
    assert not _moved(before, after, by_source=True)
    tested = {row.input for row in after.test if row.source == "b"}
    if any(row.split == "test" for row in other):
        assert tested <= {row.input for row in other if row.split == "test"}


@_MANY
@given(_rows("a", ("", "train", "test", "validation")), _rows("b"), _rows("t"), st.booleans())
def test_no_split_is_like_another(one: list[Row], other: list[Row], own: list[Row], has_own: bool) -> None:
    """No two rows of different splits are near, or equal but for case, punctuation and articles; in a split none that
    were drawn for it are near and have one output; and every row is either kept or counted as removed."""
    shown = [_text(3, 0), "a demonstration"]
    made = made_of(
        (one, DatasetKind.USER), (other, DatasetKind.GENERATED), own_test=own if has_own else None, shown=shown
    )
    for a, b in ((made.train, made.test), (made.validation, made.test), (made.train, made.validation)):
        assert not [pair for pair in product(a, b) if _near(*pair)]
    given = {row.input for row in (*one, *own) if row.split or row in own}
    for split in (made.train, made.validation, made.test):
        drawn = [row for row in split if row.input not in given]
        alike = [pair for pair in combinations(drawn, 2) if are_near(pair[0].input, pair[1].input)]
        assert not [pair for pair in alike if pair[0].output == pair[1].output]
    assert not [row for row in made.test for text in shown if _near(row, Row(text))]
    rows = len(one) + len(other) + (len(own) if has_own else 0)
    assert len(made.all) + made.removed.total() == rows
    leaked = sum(made.removed[reason] for reason in ("in_test", "in_validation", "demonstration"))
    assert sum(leak.rows for leak in made.leaks) == leaked


@_MANY
@given(_rows("a", ("", "test")), _rows("b"), st.randoms(use_true_random=False), _LIMITS)
def test_order_of_arrival_does_not_matter(one: list[Row], other: list[Row], rng: random.Random, limit: int) -> None:
    """The same rows and sources in any order give the same splits in the same order, and the same report."""
    sources: list[Given] = [(one, DatasetKind.USER), (other, DatasetKind.GENERATED)]
    first = made_of(*sources, limit=limit)
    shuffled = [(rng.sample(rows, len(rows)), kind) for rows, kind in reversed(sources)]
    assert made_of(*shuffled, limit=limit) == first


def test_what_was_tested_is_not_trained_on_when_it_is_gone() -> None:
    """A test row that leaves for a near duplicate still keeps from training what is near to it and not to the other."""
    rng = random.Random(5)
    words = rng.choices(_WORDS, k=60)
    rows = [
        Row(" ".join([*words[:i], f"new{'abcdefghij'[i % 10]}", *words[i + 1 :]]), "x", "a") for i in range(0, 60, 2)
    ]
    base = Row(" ".join(words), "x", "a")
    seed = next(n for n in range(100) if made_of(([base], DatasetKind.USER), seed=n).test)
    split_of = {row: next(iter(made_of(([row], DatasetKind.USER), seed=seed).split_of.values())) for row in rows}
    first = next(
        row for row in rows
        if split_of[row] == "test" and made_of(([base, row], DatasetKind.USER), seed=seed).test == [row]
    )  # fmt: skip
    trained = [row for row in rows if split_of[row] == "train"]
    assert trained and not any(are_near(row.input, first.input) for row in trained)
    assert made_of(([first, *trained], DatasetKind.USER), seed=seed).train
    assert not made_of(([base, first, *trained], DatasetKind.USER), seed=seed).train
