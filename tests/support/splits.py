"""Rows, split: what `services.trainer.prepare.split` makes of lists of rows, as lists of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.kit.tables import rows_to_table
from services.kit.values import Row
from services.trainer.calls import DatasetKind, LabelCount, Leak
from services.trainer.prepare import split
from services.trainer.reading import TEST, TRAIN, VALIDATION, Columns, Dataset, read, texts_of

Given = tuple[Sequence[Row], DatasetKind]


@dataclass(frozen=True)
class Made:
    """The rows of each split, in order."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]
    removed: Counter[str]
    leaks: tuple[Leak, ...]
    labels: tuple[LabelCount, ...]
    notes: tuple[str, ...]

    @property
    def all(self) -> list[Row]:
        return [*self.train, *self.validation, *self.test]

    @property
    def split_of(self) -> dict[tuple[str, str], str]:
        """The split of each source's input."""
        return {
            (row.source, row.input): name for name in ("train", "validation", "test") for row in getattr(self, name)
        }


def made_of(
    *datasets: Given, own_test: Sequence[Row] | None = None, shown: Sequence[str] = (), seed: int = 0, **options: Any
) -> Made:
    """The splits of datasets, each a list of rows and its kind."""
    given = [Dataset(rows_to_table(rows), kind, kind.name.lower(), "A dataset") for rows, kind in datasets]
    if own_test is not None:
        given.append(Dataset(rows_to_table(own_test), DatasetKind.USER, "own test set", "Yours", own_test=True))
    columns = read(given)
    splits = split(columns, shown, seed, **options)
    train, validation, test = (_rows(columns, splits.taken[place]) for place in (TRAIN, VALIDATION, TEST))
    return Made(train, validation, test, splits.removed, splits.leaks, splits.labels, splits.notes)


def _rows(columns: Columns, numbers: Any) -> list[Row]:
    texts = (texts_of(column, numbers) for column in (columns.input, columns.output, columns.answers))
    names = [columns.sources[source].name for source in columns.source[numbers]]
    return [
        Row(one, output, name, "", tuple(answers))
        for one, output, answers, name in zip(*texts, names, strict=True)
    ]  # fmt: skip
