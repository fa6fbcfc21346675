"""Adding training rows to locked splits: what is trained on grows, what is measured on stays to the byte.

    enlarge(request, artifacts, step) ── PrepareResult      for a PrepareRequest with `locked`

A new row joins the training split where it repeats no row of the three splits and no other new one: `repeats.remove`,
with the locked rows in the splits they have and before all new ones. The earlier training rows all stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition
from services.trainer import leakage, repeats, splitting
from services.trainer.calls import DatasetKind, LockedSplits, PrepareRequest, PrepareResult, SourceCount
from services.trainer.reading import SPLITS, TEST, TRAIN, VALIDATION, Columns, Dataset, batches, read

I64 = npt.NDArray[np.int64]
# The splits are read first, in this order; what comes after them is new.
_PLACES = (TEST, VALIDATION, TRAIN)


def enlarge(
    request: PrepareRequest,
    artifacts: Artifacts,
    step: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> PrepareResult:
    """The locked splits with more training rows.

    Raises FailedPrecondition: NOTHING_NEW where no new row is left, and what `reading.read` raises.
    """
    locked = request.locked
    assert locked is not None
    before = artifacts.read_table(locked.train)
    columns = read(_datasets(request, locked, before, artifacts))
    rows = np.arange(len(columns))
    new = columns.dataset >= len(_PLACES)
    place = np.where(new, TRAIN, np.minimum(columns.dataset, TRAIN)).astype(np.int8)
    keys = splitting.keys(batches(columns.input, rows), request.seed)
    found = repeats.remove(
        columns, place, keys, (), keep_near=request.keep_near_duplicates,
        step=lambda done, of: step(done, of, "looking for near duplicates"),
    )  # fmt: skip
    added = found.order[new[found.order]]
    found.reason[~new] = repeats.KEPT  # what is locked stays, whatever it repeats
    reasons = found.reason[found.reason != repeats.KEPT]
    removed = columns.left_out + Counter(repeats.REASONS[reason] for reason in reasons.tolist())
    if not len(added):
        told = ", ".join(f"{count:,} {reason}" for reason, count in sorted(removed.items())) or "there was none"
        raise FailedPrecondition(
            "NOTHING_NEW",
            f"No new row is left to train on (taken out: {told}): each repeats one that the splits have. Ask for more "
            "examples (--number).",
        )
    step(0, 0, "storing the train split")
    taken = {one: rows[(place == one) & ~new] for one in _PLACES}
    taken[TRAIN] = np.concatenate([taken[TRAIN], added])
    labels = splitting.label_numbers(columns.output, np.concatenate([taken[one] for one in _PLACES]))
    return PrepareResult(
        train=artifacts.put_table(pa.concat_tables([before, _table(columns, added, before.schema)])),
        validation=locked.validation,
        test=locked.test,
        counts=_counts(locked, columns, added),
        removed=dict(sorted((+removed).items())),
        notes=(
            f"{len(added):,} new rows joined the {before.num_rows:,} training rows of the run before. Validation and "
            "test rows are those of that run.",
        ),
        leaks=leakage.leaks(columns, place, keys.same, found, ()),
        labels=leakage.label_counts(*labels, taken) if labels else (),
    )


def _datasets(
    request: PrepareRequest, locked: LockedSplits, train: pa.Table, artifacts: Artifacts
) -> Iterator[Dataset]:
    tables = {
        TEST: artifacts.read_table(locked.test),
        VALIDATION: artifacts.read_table(locked.validation),
        TRAIN: train,
    }
    for place in _PLACES:
        # As real rows they come before generated ones, so that of two equal rows the locked one stays.
        name = SPLITS[place]
        yield Dataset(tables[place], DatasetKind.USER, f"locked {name}", f"The locked {name} split")
    for number, source in enumerate(request.sources):
        kind = splitting.kind_name(source.kind)
        yield Dataset(artifacts.read_table(source.dataset), source.kind, kind, f"Dataset {number + 1} ({kind})")


def _table(columns: Columns, rows: I64, schema: pa.Schema) -> pa.Table:
    """The rows as the training split has them."""
    numbers = pa.array(rows)
    names = pa.array([source.name for source in columns.sources], pa.string())
    found = {
        "input": columns.input.take(numbers),
        "output": columns.output.take(numbers),
        "source": pa.DictionaryArray.from_arrays(pa.array(columns.source[rows]), names).cast(pa.string()),
        "split": pa.repeat(pa.scalar(SPLITS[TRAIN]), len(rows)),
        "answers": columns.answers.take(numbers),
    }
    return pa.table({name: found[name] for name in schema.names}).cast(schema)


def _counts(locked: LockedSplits, columns: Columns, added: I64) -> tuple[SourceCount, ...]:
    """The counts of the run before, and what came to them."""
    counts = {(one.kind, one.source, one.split): one for one in locked.counts}
    for number, rows in zip(
        *(found.tolist() for found in np.unique(columns.source[added], return_counts=True)), strict=True
    ):
        source = columns.sources[number]
        key = (source.kind, source.name, SPLITS[TRAIN])
        known = counts.get(key, SourceCount(source.name, source.kind, SPLITS[TRAIN], 0))
        counts[key] = replace(known, rows=known.rows + rows)
    return tuple(counts[key] for key in sorted(counts))
