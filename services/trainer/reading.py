"""Datasets as columns: every row of every source, as text, or counted as what it is instead.

    read(datasets) ── Columns          texts as Arrow arrays, the rest as numpy arrays of the same length
    Dataset                            a table, where it came from, its name

A table must have `input` and `output` as text; `source`, `split` and `answers` may be absent. A row is left out, and
counted, where its input or output is missing or has nothing to see ("empty"), holds a NUL or bytes that are no UTF-8
("not_text"), or is longer than MAX_BYTES ("too_long"). What no row could be read from raises FailedPrecondition.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from services.kit.tables import check_columns
from services.trainer.calls import DatasetKind

# No student reads so much: its inputs are cut at some hundred tokens.
MAX_BYTES = 400_000
# Texts that are looked at together; their words are all in memory.
BATCH, BATCH_BYTES = 50_000, 8 << 20

TEST, VALIDATION, TRAIN = 0, 1, 2
SPLITS = ("test", "validation", "train")
_GIVEN = {"test": TEST, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION}
_TEXT = ("input", "output", "source", "split")
_CHUNK = 4_096
_REASONS = ("", "empty", "too_long", "not_text")
_EMPTY, _TOO_LONG, _NOT_TEXT = 1, 2, 3


@dataclass(frozen=True)
class Dataset:
    """A table of rows. `name` is the source of rows that name none."""

    table: pa.Table
    kind: DatasetKind
    name: str
    label: str
    """What messages call it."""
    own_test: bool = False
    """Whether it is the person's own test set."""


@dataclass(frozen=True)
class Source:
    """Rows of one kind under one name; a cap and a weight hold for it."""

    kind: DatasetKind
    name: str

    @property
    def real(self) -> bool:
        """Written for people by people, as far as is known: not by the LLM, nor rewritten by it."""
        return self.kind not in (DatasetKind.GENERATED, DatasetKind.ADAPTED)


@dataclass
class Columns:
    """[rows] each."""

    input: pa.LargeStringArray
    output: pa.LargeStringArray
    answers: pa.LargeListArray
    source: npt.NDArray[np.int32]
    """Place in `sources`."""
    dataset: npt.NDArray[np.int32]
    """Place among the datasets that were read."""
    given: npt.NDArray[np.int8]
    """The split that the row's own dataset gives it: TEST, VALIDATION, or -1."""
    own_test: npt.NDArray[np.bool_]
    sources: tuple[Source, ...]
    """Sorted by kind and name."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that could not be read, by reason."""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.input)

    @property
    def real(self) -> npt.NDArray[np.bool_]:
        known = np.array([source.real for source in self.sources], np.bool_)
        return known[self.source] if len(self) else np.zeros(0, np.bool_)


def read(datasets: Iterable[Dataset]) -> Columns:
    """The rows of all datasets, one after another. FailedPrecondition: MISSING_COLUMN, REPEATED_COLUMN, NOT_TEXT."""
    left_out: Counter[str] = Counter()
    notes: list[str] = []
    parts: list[pa.Table] = []
    names: dict[tuple[DatasetKind, str], int] = {}
    sources, numbers, given, own_test = [], [], [], []
    for number, dataset in enumerate(datasets):
        table = _readable(dataset, left_out)
        if not dataset.table.num_rows:
            notes.append(f"{dataset.label} has no rows.")
        sources.append(_source_numbers(table, dataset, names))
        given.append(_given(table))
        numbers.append(np.full(table.num_rows, number, np.int32))
        own_test.append(np.full(table.num_rows, dataset.own_test, np.bool_))
        parts.append(table.select(["input", "output", "answers"]))
    whole = pa.concat_tables(parts) if parts else _nothing()
    del parts
    order = sorted(names)
    places = {name: place for place, name in enumerate(order)}
    place = np.array([places[name] for name in names], np.int32)
    source = np.concatenate(sources) if sources else np.zeros(0, np.int32)
    return Columns(
        whole["input"].combine_chunks(),
        whole["output"].combine_chunks(),
        whole["answers"].combine_chunks(),
        place[source] if len(source) else source.astype(np.int32),
        np.concatenate(numbers) if numbers else np.zeros(0, np.int32),
        np.concatenate(given) if given else np.zeros(0, np.int8),
        np.concatenate(own_test) if own_test else np.zeros(0, np.bool_),
        tuple(Source(*name) for name in order),
        left_out,
        notes,
    )


def batches(texts: pa.Array, rows: npt.NDArray[np.int64]) -> Iterator[list[str]]:
    """The texts of `rows`, at most BATCH and about BATCH_BYTES at a time."""
    ends = np.cumsum(np.asarray(pc.binary_length(texts), np.int64)[rows])
    begin = 0
    while begin < len(rows):
        read = int(ends[begin - 1]) if begin else 0
        end = min(begin + BATCH, max(begin + 1, int(np.searchsorted(ends, read + BATCH_BYTES))))
        yield texts.take(pa.array(rows[begin:end])).to_pylist()
        begin = end


def _readable(dataset: Dataset, left_out: Counter[str]) -> pa.Table:
    """The rows that are text, with all five columns; the others are counted."""
    table = _typed(dataset)
    reason = np.zeros(table.num_rows, np.int8)
    for name in ("input", "output"):
        column = table[name]
        reason[_flags(pc.equal(_visible(column), False))] = _EMPTY
        reason[_flags(pc.greater(pc.binary_length(column), MAX_BYTES))] = _TOO_LONG
    for name in _TEXT:
        reason[_no_text(table[name])] = _NOT_TEXT
    answers = table["answers"].combine_chunks()
    parents = np.asarray(pc.list_parent_indices(answers))
    values = pa.chunked_array([pc.list_flatten(answers)])
    reason[parents[_flags(pc.greater(pc.binary_length(values), MAX_BYTES))]] = _TOO_LONG
    reason[parents[_no_text(values)]] = _NOT_TEXT
    readable = reason == 0
    left_out.update(_REASONS[number] for number in reason[~readable].tolist())
    return table if readable.all() else table.filter(pa.array(readable))


def _typed(dataset: Dataset) -> pa.Table:
    table = dataset.table
    # A column of nothing is taken: its rows are empty, which is counted.
    check_columns(table, dataset.label, nothing=True)
    columns = {}
    for name, wanted in (*((name, pa.large_string()) for name in _TEXT), ("answers", pa.large_list(pa.large_string()))):
        column = table[name] if name in table.column_names else pa.chunked_array([pa.nulls(table.num_rows)])
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        columns[name] = column.cast(kind).cast(wanted)
    return pa.table({**columns, "answers": _whole_lists(columns["answers"].combine_chunks())})


def _whole_lists(lists: pa.Array) -> pa.LargeListArray:
    """No list for a missing one, and no missing items."""
    items, parents = pc.list_flatten(lists), np.asarray(pc.list_parent_indices(lists))
    kept = _flags(pc.is_valid(items))
    ends = np.cumsum(np.bincount(parents[kept], minlength=len(lists)))
    offsets = pa.array(np.concatenate(([0], ends)), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, items.filter(pa.array(kept)))


def _visible(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether there is a character that is neither space nor control nor of no width."""
    return pc.fill_null(pc.match_substring_regex(column, r"[^\s\p{Z}\p{C}]"), False)


def _no_text(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """[rows]: whether the bytes hold a NUL, or are no UTF-8: surrogates are not, either."""
    bad = _flags(pc.match_substring(column, "\0"))
    start = 0
    for chunk in column.chunks:
        for begin in range(0, len(chunk), _CHUNK):
            part = chunk.slice(begin, _CHUNK)
            if not _is_utf8(part):
                for place, value in enumerate(part.cast(pa.large_binary()).to_pylist()):
                    bad[start + begin + place] |= value is not None and not _decodes(value)
        start += len(chunk)
    return bad


def _is_utf8(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _source_numbers(
    table: pa.Table, dataset: Dataset, names: dict[tuple[DatasetKind, str], int]
) -> npt.NDArray[np.int32]:
    """The rows' sources as numbers into `names`, which grows."""
    coded = pc.fill_null(table["source"], "").combine_chunks().dictionary_encode()
    known = [(dataset.kind, name or dataset.name) for name in coded.dictionary.to_pylist()]
    number = np.array([names.setdefault(name, len(names)) for name in known], np.int32)
    return number[np.asarray(coded.indices)] if len(number) else np.zeros(0, np.int32)


def _given(table: pa.Table) -> npt.NDArray[np.int8]:
    coded = pc.fill_null(table["split"], "").combine_chunks().dictionary_encode()
    number = np.array([_GIVEN.get(name.strip().lower(), -1) for name in coded.dictionary.to_pylist()], np.int8)
    return number[np.asarray(coded.indices)] if len(number) else np.zeros(0, np.int8)


def _flags(column: Any) -> npt.NDArray[np.bool_]:
    flags = pc.fill_null(column, False)
    whole = flags.combine_chunks() if isinstance(flags, pa.ChunkedArray) else flags
    return np.array(whole.to_numpy(zero_copy_only=False), np.bool_)


def _nothing() -> pa.Table:
    texts = {name: pa.array([], pa.large_string()) for name in ("input", "output")}
    return pa.table({**texts, "answers": pa.array([], pa.large_list(pa.large_string()))})


def texts_of(array: pa.Array, rows: Sequence[int] | npt.NDArray[np.int64]) -> list[Any]:
    """The values of some rows, as Python has them."""
    return list(array.take(pa.array(np.asarray(rows, np.int64))).to_pylist())
