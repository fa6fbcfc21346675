"""Which split a row is for: a function of the row and the seed, of nothing else.

    keys(texts, seed) ── Keys(draw, same)     two hashes of the normalised input
    drawn(columns, draw) ── [rows]            TEST, VALIDATION or TRAIN
    capped(...), copies(...)                  which rows of a source are taken, and how often they are trained on

    input's hash, as a share of all hashes    0 ... 0.2: test    ... 0.4: validation    ... 1: train
    a row that its dataset gives to a split   is for that split; what was drawn for a split that a dataset gives itself
                                              is for training
    a person's own test set                   is the whole test split, and so given by every dataset

So a row can be left out when data is added, because of a cap or since another row repeats it, but it can never be in
another split than before. What is taken of a source are the rows of the least hashes, which others can only push out.
Where outputs are labels, each label gives the same share of its rows, so that a cap keeps the proportions; and the hash
knows nothing of labels, so that each label is in each split in proportion, up to chance. More cannot be had of a lock:
of four rows with one label two are drawn for the same split, so some three of them are not in three splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from services.kit.dedup import same_text
from services.kit.text import normalise
from services.trainer.calls import DatasetKind
from services.trainer.labels import LEAST_ROWS_A_LABEL, MOST_LABELS
from services.trainer.reading import TEST, TRAIN, VALIDATION, Columns, Source

SHARES = {TEST: 0.2, VALIDATION: 0.2, TRAIN: 0.6}

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Keys:
    """[rows] each."""

    draw: U64
    """Equal for inputs that are equal but for case, punctuation, articles and spaces: they are drawn for one split."""
    same: U64
    """Equal for two writings of one input."""


def keys(batches: Iterable[Iterable[str]], seed: int) -> Keys:
    """The keys of all inputs. 64 bits each: among a million inputs two are taken for one in 1 of 40 million jobs."""
    key = seed.to_bytes(8, "little", signed=True)
    hashed = bytearray()
    for batch in batches:
        hashed += b"".join(
            hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
            for one in batch
            for text in (normalise(one), same_text(one))
        )
    both = np.frombuffer(hashed, np.dtype("<u8")).astype(np.uint64).reshape(-1, 2)
    return Keys(np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1]))


def drawn(columns: Columns, draw: U64) -> npt.NDArray[np.int8]:
    """[rows]: the split that each row is for."""
    share = draw / 2.0**64
    split = np.select([share < SHARES[TEST], share < SHARES[TEST] + SHARES[VALIDATION]], [TEST, VALIDATION], TRAIN)
    own = columns.own_test
    for place in (TEST, VALIDATION):
        if place == TEST and own.any():
            rows, gives = own, np.ones(len(own), np.bool_)
        else:
            rows = columns.given == place
            # Of one dataset alone: that another gives a split says nothing of this one.
            gives = np.isin(columns.dataset, np.unique(columns.dataset[rows]))
        split = np.where(gives & (split == place), TRAIN, split)
        split = np.where(rows, place, split)
    return np.where(own, TEST, split).astype(np.int8)


def capped(
    rows: I64, source: npt.NDArray[np.int32], split: npt.NDArray[np.int8], limits: I64, labels: I64 | None, own: bool
) -> npt.NDArray[np.bool_]:
    """[rows]: whether each is taken. `rows` stand in their order; `limits`: [sources], the most rows of each.

    Of a source with more rows than its limit, each split has its share of the limit; a person's `own` test set is taken
    whole.
    """
    taken = np.ones(len(rows), np.bool_)
    test = np.maximum(1, np.rint(limits * SHARES[TEST])).astype(np.int64)
    validation = np.minimum(test, limits - test)
    most = np.stack([test, validation, limits - test - validation], axis=1).ravel()
    if own:
        most[TEST :: len(SHARES)] = len(rows)
    group = source[rows].astype(np.int64) * len(SHARES) + split[rows]
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=len(most))
    totals = sizes.reshape(-1, len(SHARES))[:, TEST + 1 if own else 0 :].sum(axis=1)
    over = (sizes > most) & np.repeat(totals > limits, len(SHARES))
    ends = np.cumsum(sizes)
    for number in np.flatnonzero(over):
        its = order[ends[number - 1] if number else 0 : ends[number]]
        # Of each label the same share, from the first on; without labels simply the first.
        turn = np.arange(len(its)) if labels is None else _turns(labels[rows[its]])
        taken[its[np.argsort(turn, kind="stable")[most[number] :]]] = False
    return taken


def limits(sources: Iterable[Source], caps: Mapping[str, int], most: int) -> I64:
    """[sources]: the cap by name, else by kind, else `most`."""
    return np.array([_of(source, caps, most) for source in sources], np.int64)


def copies(draw: U64, source: npt.NDArray[np.int32], sources: Iterable[Source], mix: Mapping[str, float]) -> I64:
    """[rows]: how often each training row is taken. 2.5: twice, and every second row once more, by its hash."""
    weight = np.array([_of(source, mix, 1.0) for source in sources], np.float64)[source]
    whole = np.floor(weight)
    # Other bits of the hash than those that drew the split.
    chance = (draw * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(11)) / 2.0**53
    return (whole + (chance < weight - whole)).astype(np.int64)


def label_numbers(output: pa.Array, rows: I64) -> tuple[I64, list[str]] | None:
    """[all rows]: the number of each of `rows`' outputs; and the outputs. None where they are no labels."""
    # A sample tells most free text at once.
    if len(rows) > 10_000 and len(output.take(pa.array(rows[:10_000])).unique()) > MOST_LABELS:
        return None
    coded = output.take(pa.array(rows)).dictionary_encode()
    names: dict[str, int] = {}
    number = np.array([names.setdefault(text.strip(), len(names)) for text in coded.dictionary.to_pylist()], np.int64)
    if not 2 <= len(names) <= MOST_LABELS or len(rows) < LEAST_ROWS_A_LABEL * len(names):
        return None
    labels = np.full(len(output), -1, np.int64)
    labels[rows] = number[np.asarray(coded.indices)]
    return labels, list(names)


def unused(names: Iterable[str], sources: Iterable[Source]) -> list[str]:
    """Those names that neither a kind nor a source of the data has."""
    known = {source.name for source in sources} | {kind_name(kind) for kind in DatasetKind}
    return sorted(set(names) - known)


def kind_name(kind: DatasetKind) -> str:
    return kind.name.lower()


def _of(source: Source, given: Mapping[str, float], otherwise: float) -> float:
    return given.get(source.name, given.get(kind_name(source.kind), otherwise))


def _turns(labels: I64) -> npt.NDArray[np.float64]:
    """[rows]: where each stands among the rows of its label, from 0 to 1."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels[order])
    begins = np.cumsum(counts) - counts
    turn = np.empty(len(labels), np.float64)
    turn[order] = (np.arange(len(labels)) - begins[labels[order]]) / counts[labels[order]]
    return turn
