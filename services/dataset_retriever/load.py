"""Looks into a dataset and loads it, in a child process, so that a cancel stops it at once.

    look    configurations, columns, splits, sample rows
    load    its rows as text, sampled, into a Parquet file

Of a split with more usable rows than wanted a sample is kept, the same each time (Vitter's reservoir, seed 0): many
datasets are sorted by their labels. Of a hub dataset at most 50,000 rows of a split are read.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from services.dataset_retriever.flatten import Column, columns_of, flatten, has_text
from services.dataset_retriever.folder import open_folder
from services.dataset_retriever.search import location_of
from services.dataset_retriever.source import Source
from services.kit.artifacts import rows_to_table
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.rows import split_of
from services.kit.settings import Settings
from services.kit.values import Progress, Row
from services.kit.worker import WorkerContext

MAX_ROWS = 3_000
SAMPLE_ROWS = 10
_SCANNED_ON_HUB = 50_000
_SHOWN_CHARACTERS = 500
_REPORT_EVERY = 500


@dataclass(frozen=True)
class Wanted:
    """A dataset: its catalogue entry, the configuration ("": the one that fits best), the task's instruction."""

    entry: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    instruction: str = ""


@dataclass(frozen=True)
class Contents:
    """What is in a dataset. `rows` are JSON objects, cut for showing."""

    configs: tuple[str, ...] = ()
    config: str = ""
    columns: tuple[Column, ...] = ()
    splits: dict[str, int] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    licence: str = ""


@dataclass(frozen=True)
class Loading:
    """What to load, into the file `out`."""

    wanted: Wanted = Wanted()
    input_columns: tuple[str, ...] = ()
    output_column: str = ""
    max_rows: int = MAX_ROWS
    out: str = ""


@dataclass(frozen=True)
class Loaded:
    """Rows kept by split, rows left out by reason."""

    splits: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    licence: str = ""


def look(request: Wanted, context: WorkerContext) -> Contents:
    """Looks into a dataset. FailedPrecondition (NO_TEXT) where no column has a text, and what opening it raises."""
    source = open_source(request, context.settings)
    columns = columns_of(source.features, source.class_names)
    if not any(has_text(column.type) for column in columns):
        kinds = ", ".join(f"{column.name} ({column.type})" for column in columns) or "none"
        raise FailedPrecondition(
            "NO_TEXT", f"{request.entry['id']} has no column of text; its columns are: {kinds[:500]}."
        )
    split = "train" if "train" in source.splits else next(iter(source.splits))
    rows = tuple(
        json.dumps(shown(row), ensure_ascii=False) for row in itertools.islice(source.read(split), SAMPLE_ROWS)
    )
    return Contents(source.configs, source.config, columns, source.splits, rows, source.licence)


def load(request: Loading, context: WorkerContext) -> Loaded:
    """Loads a dataset as text.

    InvalidArgument where a column is missing or has no text; FailedPrecondition (NO_ROWS) where nothing is left.
    """
    source = open_source(request.wanted, context.settings)
    id = request.wanted.entry["id"]
    columns = {column.name: column for column in columns_of(source.features, source.class_names)}
    inputs = [_column(columns, name, "input_columns", id) for name in request.input_columns]
    output = _column(columns, request.output_column, "output_column", id)
    if not inputs or output in inputs:
        raise InvalidArgument(
            "BAD_COLUMNS", f"wanted one or more input columns of {id}, none of them the output.", field="input_columns"
        )
    on_hub = location_of(request.wanted.entry).startswith("hub:")
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    for split in source.splits:
        kept = _sampled(source, split, inputs, output, request.max_rows, on_hub, dropped, context)
        rows += (Row(row.input, row.output, id, split_of(Path(split)), row.answers) for row in kept)
    if not rows:
        reasons = ", ".join(f"{count:,} with {reason}" for reason, count in dropped.items()) or "it is empty"
        raise FailedPrecondition("NO_ROWS", f"No row of {id} is left for these columns: {reasons}.")
    pq.write_table(rows_to_table(rows), request.out)
    return Loaded(dict(Counter(row.split for row in rows)), dict(dropped), source.licence)


def open_source(wanted: Wanted, settings: Settings) -> Source:
    """Opens the dataset of a catalogue entry."""
    location = location_of(wanted.entry)
    if location.startswith("folder:"):
        path = Path(location.removeprefix("folder:"))
        return open_folder(wanted.entry, path, wanted.config, wanted.instruction)
    from services.dataset_retriever.hub import open_hub

    return open_hub(location.removeprefix("hub:"), wanted.config, wanted.instruction, settings)


def shown(value: Any) -> Any:
    """A value for a person's eye: long texts cut, bytes and the like named."""
    if isinstance(value, Mapping):
        return {str(name): shown(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value[:20]]
    if isinstance(value, str):
        return value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _sampled(
    source: Source, split: str, inputs: list[Column], output: Column, wanted: int, on_hub: bool, dropped: Counter[str],
    context: WorkerContext,
) -> list[Any]:  # fmt: skip
    """At most `wanted` usable rows of a split, a uniform sample of those read, in their order."""
    rng = random.Random(f"0 {split}")
    kept: list[tuple[int, Any]] = []
    usable = 0
    rows = itertools.islice(source.read(split), _SCANNED_ON_HUB if on_hub else None)
    for number, row in enumerate(rows):
        if number % _REPORT_EVERY == 0:
            context.raise_if_stopping()
            context.report(Progress(number, source.splits[split], "rows", f"Reading {split or 'the'} rows"))
        flat = flatten(row, inputs, output)
        if not flat.input or not flat.output:
            dropped["no output" if flat.input else "no input"] += 1
            continue
        usable += 1
        if len(kept) < wanted:
            kept.append((number, flat))
            continue
        dropped["more than max_rows"] += 1
        place = rng.randrange(usable)
        if place < wanted:
            kept[place] = (number, flat)
    return [flat for _, flat in sorted(kept, key=lambda item: item[0])]


def _column(columns: Mapping[str, Column], name: str, field: str, id: str) -> Column:
    column = columns.get(name)
    if column is None:
        known = ", ".join(columns)[:500]
        raise InvalidArgument("NO_SUCH_COLUMN", f"{id} has no column {name!r}; it has: {known}.", field=field)
    if not has_text(column.type):
        raise InvalidArgument("NOT_TEXT", f"{name} of {id} is {column.type}, which has no text.", field=field)
    return column
