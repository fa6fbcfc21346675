"""Splitting: many datasets become one training, one validation and one locked test split, with nothing in two of them.

    prepare(request, context) ── PrepareResult
    ├── reading        tables to columns; rows that are no text are counted
    ├── splitting      which split a row is for, by its content alone; caps, weights
    ├── repeats        equal rows and near duplicates (near), inside and across the splits
    ├── leakage        what was removed and why
    └── enlarge        instead, where splits are locked already: more training rows for them

    split(columns, shown, seed, ...) ── Splits    the same on columns, without a store

The rows are drawn for a split first, then repeats are removed, then caps take the rows of the least hashes, then
training rows are weighed. Nothing depends on the order in which rows arrive. What the student reads of a row, the
instruction before the input, is `kit.text.model_input`: the splits hold the plain input.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.values import Progress
from services.kit.worker import WorkerContext
from services.trainer import leakage, repeats, splitting
from services.trainer.calls import DatasetKind, LabelCount, Leak, PrepareRequest, PrepareResult, SourceCount
from services.trainer.enlarge import enlarge
from services.trainer.reading import SPLITS, TEST, TRAIN, VALIDATION, Columns, Dataset, Source, batches, read

MAX_ROWS_PER_SOURCE = 3_000
LEAST_TRAIN, LEAST_TEST = 10, 1
MOST_COPIES = 10.0

I64 = npt.NDArray[np.int64]
Step = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Splits:
    """The rows of each split, by their numbers, in order; a training row with a weight may stand there twice."""

    taken: dict[int, I64]
    """By TEST, VALIDATION, TRAIN."""
    removed: Counter[str]
    leaks: tuple[Leak, ...]
    labels: tuple[LabelCount, ...]
    notes: tuple[str, ...]


def prepare(request: PrepareRequest, context: WorkerContext) -> PrepareResult:
    """Reads the sources, splits them and stores the splits.

    Raises InvalidArgument where a source is missing or of no kind, or a cap or a weight cannot be meant;
    FailedPrecondition: TOO_FEW_ROWS, and what `reading.read` raises.
    """
    _check(request)
    artifacts = Artifacts.open(context.settings, "trainer")

    def step(done: int, total: int, what: str) -> None:
        context.raise_if_stopping()
        context.report(Progress(done, total, "rows", what))

    if request.locked is not None:
        return enlarge(request, artifacts, step)
    columns = read(_datasets(request, artifacts, context))
    pa.default_memory_pool().release_unused()
    shown = [demonstration.input for demonstration in request.spec.demonstrations]
    splits = split(
        columns, shown, request.seed, limit=request.max_rows_per_source or MAX_ROWS_PER_SOURCE, caps=request.caps,
        mix=request.mix, keep_near=request.keep_near_duplicates, step=step,
    )  # fmt: skip
    _check_size(splits)
    stored = {}
    for place, rows in splits.taken.items():
        step(0, 0, f"storing the {SPLITS[place]} split")
        stored[SPLITS[place]] = artifacts.put_table(_table(columns, rows, place))
    return PrepareResult(
        **stored, counts=_counts(columns, splits.taken), removed=dict(sorted(splits.removed.items())),
        notes=splits.notes, leaks=splits.leaks, labels=splits.labels,
    )  # fmt: skip


def split(
    columns: Columns,
    shown: Sequence[str] = (),
    seed: int = 0,
    *,
    limit: int = MAX_ROWS_PER_SOURCE,
    caps: Mapping[str, int] | None = None,
    mix: Mapping[str, float] | None = None,
    keep_near: bool = False,
    step: Step = lambda done, total, what: None,
) -> Splits:
    """Splits rows. `shown`: the demonstrations' inputs; `limit`, `caps`, `mix`, `keep_near`: see PrepareRequest."""
    total = len(columns)
    keys = splitting.keys(_told(batches(columns.input, np.arange(total)), total, step), seed)
    place = splitting.drawn(columns, keys.draw)
    found = repeats.remove(
        columns, place, keys, shown, keep_near=keep_near,
        step=lambda done, of: step(done, of, "looking for near duplicates"),
    )  # fmt: skip
    removed = columns.left_out + Counter(repeats.REASONS[reason] for reason in found.reason.tolist() if reason)
    labels = splitting.label_numbers(columns.output, found.order)
    limits = splitting.limits(columns.sources, caps or {}, limit)
    kept = splitting.capped(
        found.order, columns.source, place, limits, labels[0] if labels else None, bool(columns.own_test.any())
    )
    removed["over_limit"] = int((~kept).sum())
    rows = found.order[kept]
    taken = {place_: rows[place[rows] == place_] for place_ in (TEST, VALIDATION, TRAIN)}
    # Real and other rows train together.
    for one in (VALIDATION, TRAIN):
        taken[one] = taken[one][np.lexsort((keys.same[taken[one]], keys.draw[taken[one]]))]
    train = taken[TRAIN]
    copies = splitting.copies(keys.draw[train], columns.source[train], columns.sources, mix or {})
    removed["mix"] = int((copies == 0).sum())
    taken[TRAIN] = np.repeat(train, copies)
    counts = leakage.label_counts(*labels, taken) if labels else ()
    notes = (
        *leakage.notes(columns, found, removed, taken, counts),
        *leakage.mixing_notes(columns.sources, caps or {}, mix or {}, _weighed(columns, train, taken[TRAIN])),
    )
    leaks = leakage.leaks(columns, place, keys.same, found, shown)
    return Splits(taken, +removed, leaks, counts, notes)


def _datasets(request: PrepareRequest, artifacts: Artifacts, context: WorkerContext) -> Iterator[Dataset]:
    count = len(request.sources)
    for number, source in enumerate(request.sources):
        context.raise_if_stopping()
        context.report(Progress(number, count, "datasets", "reading the datasets"))
        kind = splitting.kind_name(source.kind)
        yield Dataset(artifacts.read_table(source.dataset), source.kind, kind, f"Dataset {number + 1} ({kind})")
    if request.test is not None:
        table = artifacts.read_table(request.test)
        yield Dataset(table, DatasetKind.USER, "own test set", "Your own test set", own_test=True)


def _told(batched: Iterator[list[str]], total: int, step: Step) -> Iterator[list[str]]:
    done = 0
    for batch in batched:
        step(done, total, "drawing the splits")
        done += len(batch)
        yield batch


def _table(columns: Columns, rows: I64, place: int) -> pa.Table:
    numbers = pa.array(rows)
    names = pa.array([source.name for source in columns.sources], pa.string())
    table = pa.table(
        {
            "input": columns.input.take(numbers),
            "output": columns.output.take(numbers),
            "source": pa.DictionaryArray.from_arrays(pa.array(columns.source[rows]), names).cast(pa.string()),
            "split": pa.repeat(pa.scalar(SPLITS[place]), len(rows)),
            "answers": columns.answers.take(numbers),
        }
    )
    return table.append_column("real", pa.array(columns.real[rows])) if place == TEST else table


def _counts(columns: Columns, taken: Mapping[int, I64]) -> tuple[SourceCount, ...]:
    counted = [
        SourceCount(source.name, source.kind, SPLITS[place], int(rows))
        for place, its in taken.items()
        for source, rows in zip(
            columns.sources, np.bincount(columns.source[its], minlength=len(columns.sources)), strict=True
        )
        if rows
    ]
    return tuple(sorted(counted, key=lambda count: (count.kind, count.source, count.split)))


def _weighed(columns: Columns, before: I64, after: I64) -> dict[Source, tuple[int, int]]:
    counts = (np.bincount(columns.source[rows], minlength=len(columns.sources)).tolist() for rows in (before, after))
    return dict(zip(columns.sources, zip(*counts, strict=True), strict=True))


def _check(request: PrepareRequest) -> None:
    """InvalidArgument where what is asked for cannot be meant."""
    if not request.sources:
        raise InvalidArgument("NO_SOURCES", "There is no dataset to split; wanted at least one.", field="sources")
    for number, source in enumerate(request.sources):
        if source.kind == DatasetKind.UNSPECIFIED:
            raise InvalidArgument(
                "NO_KIND",
                f"Source {number} has no kind; wanted retrieved, adapted, generated or user.",
                field=f"sources[{number}].kind",
            )
    if request.max_rows_per_source < 0:
        raise InvalidArgument(
            "BAD_CAP",
            f"max_rows_per_source is {request.max_rows_per_source}; wanted at least 1, or 0 for the default.",
            field="max_rows_per_source",
        )
    for name, most in request.caps.items():
        if not name or most < 1:
            raise InvalidArgument(
                "BAD_CAP", f"The cap of {name[:60]!r} is {most}; wanted at least 1 row.", field=f"caps[{name[:60]}]"
            )
    for name, weight in request.mix.items():
        if not name or not (math.isfinite(weight) and 0 <= weight <= MOST_COPIES):
            raise InvalidArgument(
                "BAD_MIX",
                f"The weight of {name[:60]!r} is {weight:g}; wanted 0 to {MOST_COPIES:g}: how often a row is seen.",
                field=f"mix[{name[:60]}]",
            )


def _check_size(splits: Splits) -> None:
    train, test = len(splits.taken[TRAIN]), len(splits.taken[TEST])
    if train >= LEAST_TRAIN and test >= LEAST_TEST:
        return
    removed = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(splits.removed.items())) or "none"
    raise FailedPrecondition(
        "TOO_FEW_ROWS",
        f"There are {train:,} rows to train on and {test:,} to test on; wanted at least {LEAST_TRAIN} and {LEAST_TEST} "
        f"(taken out: {removed}). Generate more examples or give more data.",
    )
