"""Repeats: of rows that are equal or nearly so one stays, and no row is like one of another split.

    remove(columns, split, keys, shown, ...) ── Repeats(order, reason, by, near)

    the same input           one row stays: in the split that comes first (test, validation, train), a real row before
                             a generated one, then the most frequent output, the shortest, the first of the alphabet
    equal inputs             but for case, punctuation, articles and spaces: no two in different splits
    near duplicates          a row near to any row that was drawn for an earlier split goes, even where that one is gone
                             itself; within a split a row goes that is near to a kept one and has its output, real rows
                             and then the least hashes being kept first: inputs that share a long passage and differ in
                             the question are near, and different examples
    given rows               of a person's test set, and of the splits that a dataset gives, only equal rows go: scores
                             on them are to be comparable
    demonstrations           what is equal or near to one leaves the test split: the LLM that is measured has seen it

That the drawn rows count, not only the kept ones, is part of the lock: what was trained on after data was added is near
to nothing that was tested on before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from services.kit.dedup import are_near
from services.kit.text import normalise
from services.trainer import near
from services.trainer.reading import TEST, TRAIN, Columns, batches, texts_of
from services.trainer.splitting import Keys

I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]

REASONS = ("", "duplicate", "near_duplicate", "in_test", "in_validation", "demonstration")
KEPT, DUPLICATE, NEAR, IN_TEST, IN_VALIDATION, DEMONSTRATION = range(6)
_VOTED_AT_ONCE = 100_000
_PROGRESS_EVERY = 10_000


@dataclass
class Repeats:
    """What became of each row; [rows] but for `order`."""

    order: I64
    """The kept rows: by split, real ones first, then by hash."""
    reason: I8
    """Place in REASONS."""
    by: I64
    """The row that it repeats; -1: none, -2 - i: demonstration i."""
    near: npt.NDArray[np.bool_]
    """Whether it was removed as a near duplicate, not an equal one."""
    complete: bool = True
    """Whether all near duplicates were looked for."""


def remove(
    columns: Columns,
    split: I8,
    keys: Keys,
    shown: Sequence[str],
    *,
    keep_near: bool,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> Repeats:
    """Which rows stay. `shown`: the demonstrations' inputs; `step` is told how many rows of all were looked at."""
    count = len(columns)
    found = Repeats(np.zeros(0, np.int64), np.zeros(count, np.int8), np.full(count, -1), np.zeros(count, np.bool_))
    _same(columns, split, keys, found)
    _equal(split, keys, found)
    _equal_to_shown(columns, split, shown, found)
    alive = np.flatnonzero((found.reason == KEPT) | (found.reason == DEMONSTRATION))
    order = alive[np.lexsort((keys.same[alive], keys.draw[alive], ~columns.real[alive], split[alive]))]
    if not keep_near:
        _near(columns, order, split, shown, found, step)
    found.order = order[found.reason[order] == KEPT]
    return found


def _same(columns: Columns, split: I8, keys: Keys, found: Repeats) -> None:
    """Keeps one row of each input."""
    order = np.argsort(keys.same, kind="stable")
    sizes = _run_lengths(keys.same[order])
    repeated = order[np.repeat(sizes, sizes) > 1]
    same = keys.same[repeated]
    # Whole groups at a time: one that lies across two batches is of the second.
    edges = [*np.searchsorted(same, same[::_VOTED_AT_ONCE]).tolist(), len(repeated)]
    for begin, end in pairwise(edges):
        _vote(columns, split, keys, repeated[begin:end], found)


def _vote(columns: Columns, split: I8, keys: Keys, rows: I64, found: Repeats) -> None:
    """Of whole groups of rows with the same input, all but one are removed."""
    outputs, inputs, answers = (texts_of(c, rows) for c in (columns.output, columns.input, columns.answers))
    real = columns.real[rows].tolist()
    places, sources, same = split[rows].tolist(), columns.source[rows].tolist(), keys.same[rows].tolist()
    for _, members in groupby(range(len(rows)), same.__getitem__):
        group = list(members)
        first = min(places[i] for i in group)
        votes = Counter(outputs[i] for i in group if places[i] == first)
        winner = min(
            (i for i in group if places[i] == first),
            key=lambda i: (
                not real[i], -votes[outputs[i]], len(outputs[i]), outputs[i], sources[i], inputs[i], answers[i]
            ),
        )  # fmt: skip
        for i in group:
            if i != winner:
                found.reason[rows[i]] = DUPLICATE if places[i] == first else IN_TEST + first
                found.by[rows[i]] = rows[winner]


def _equal(split: I8, keys: Keys, found: Repeats) -> None:
    """Removes what equals a row of an earlier split."""
    alive = np.flatnonzero(found.reason == KEPT)
    order = alive[np.lexsort((keys.same[alive], split[alive], keys.draw[alive]))]
    sizes = _run_lengths(keys.draw[order])
    first = order[np.repeat(np.cumsum(sizes) - sizes, sizes)]
    leaks = split[order] > split[first]
    found.reason[order[leaks]] = IN_TEST + split[first[leaks]]
    found.by[order[leaks]] = first[leaks]


def _equal_to_shown(columns: Columns, split: I8, shown: Sequence[str], found: Repeats) -> None:
    if not shown:
        return
    place = {normalise(text): number for number, text in reversed([*enumerate(shown)])}
    tested = np.flatnonzero((split == TEST) & (found.reason == KEPT))
    row = iter(tested.tolist())
    for batch in batches(columns.input, tested):
        for text in batch:
            number, one = place.get(normalise(text)), next(row)
            if number is not None:
                found.reason[one], found.by[one] = DEMONSTRATION, -2 - number


def _near(
    columns: Columns, order: I64, split: I8, shown: Sequence[str], found: Repeats, step: Callable[[int, int], None]
) -> None:
    """Removes near duplicates among the rows in `order`, and of the demonstrations."""

    def all_texts() -> Iterator[list[str]]:
        for number, batch in enumerate(batches(columns.input, order)):
            step(number * len(batch), len(order))
            yield batch
        if shown:
            yield list(shown)

    def text(place: int) -> str:
        return str(columns.input[int(order[place])].as_py()) if place < len(order) else shown[place - len(order)]

    def output(place: int) -> str:
        return normalise(columns.output[int(order[place])].as_py())

    total = len(order) + len(shown)
    close = near.find(all_texts(), np.arange(total), asked=len(shown))
    found.complete = close.complete
    place_split = np.append(split[order], np.full(len(shown), TRAIN + 1)).astype(np.int64)
    reason, by, first = np.append(found.reason[order], np.zeros(len(shown), np.int8)), np.full(total, -1), close.first
    # Demonstrations first: a test row that leaves for one of them must not take another with it.
    asked = close.later >= len(order)
    for later, earlier in zip(close.later[asked].tolist(), close.earlier[asked].tolist(), strict=True):
        if place_split[earlier] == TEST and are_near(text(later), text(earlier)):
            _show(reason, by, earlier, later, order)
    for later in range(len(order), total):  # of the same set: near, and no candidate
        if first[later] < len(order) and place_split[first[later]] == TEST:
            _show(reason, by, int(first[later]), later, order)
    given = (columns.own_test | (columns.given == split))[order]
    twins = np.flatnonzero(first[: len(order)] < np.arange(len(order)))
    twins = twins[~given[twins] | (place_split[first[twins]] < place_split[twins])]
    _mark(reason, by, twins, first[twins], place_split)
    splits = place_split.tolist()
    pairs = zip(close.later[~asked].tolist(), close.earlier[~asked].tolist(), strict=True)
    for number, (later, candidates) in enumerate(groupby(pairs, lambda pair: pair[0])):
        if number % _PROGRESS_EVERY == 0:
            step(later, len(order))
        for _, earlier in candidates:
            across = splits[earlier] < splits[later]
            inside = not given[later] and reason[earlier] == KEPT
            if not (across or (inside and output(later) == output(earlier))):
                continue
            if reason[later] == KEPT and are_near(text(later), text(earlier)):
                _mark(reason, by, np.array([later]), np.array([earlier]), place_split)
                break
    changed = by[: len(order)] != -1
    rows, others = order[changed], by[: len(order)][changed]
    found.reason[rows] = reason[: len(order)][changed]
    found.near[rows] = True
    found.by[rows] = np.where(others >= 0, order[np.maximum(others, 0)], others)


def _mark(reason: I8, by: I64, rows: I64, others: I64, split: I64) -> None:
    """Removes rows that are near to others, unless they are gone already."""
    fresh = reason[rows] == KEPT
    rows, others = rows[fresh], others[fresh]
    reason[rows] = np.where(split[others] < split[rows], IN_TEST + split[others], NEAR)
    by[rows] = others


def _show(reason: I8, by: I64, row: int, demonstration: int, order: I64) -> None:
    if reason[row] == KEPT:
        reason[row], by[row] = DEMONSTRATION, -2 - (demonstration - len(order))


def _run_lengths(values: npt.NDArray[np.generic]) -> I64:
    """The lengths of the runs of equal values."""
    begins = np.flatnonzero(np.append(True, values[1:] != values[:-1])) if len(values) else np.zeros(0, np.int64)
    return np.diff(np.append(begins, len(values)))
