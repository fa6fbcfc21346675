"""Looks into a dataset and loads it, in a child process, so that a cancel stops it at once.

    look    configurations, columns, splits, sample rows
    load    its rows as text, sampled, into a Parquet file

Of a split with more usable rows than wanted a sample is kept, the same each time (Vitter's reservoir, seed 0): many
datasets are sorted by their labels. Of a hub dataset at most 50,000 rows of a split are read, and no more bytes and
seconds than asked for. Rows that cannot be used are counted by reason, never silently gone.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from services.dataset_retriever.flatten import Column, columns_of, first_option, flatten, has_options, has_text
from services.dataset_retriever.folder import open_folder
from services.dataset_retriever.remote import CapReached, Caps, Line
from services.dataset_retriever.search import location_of
from services.dataset_retriever.source import Source
from services.kit.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument
from services.kit.readers import Tally
from services.kit.rows import split_of
from services.kit.tables import ROW_SCHEMA, rows_to_table
from services.kit.values import Metric, Progress, Row
from services.kit.worker import WorkerContext

MAX_ROWS = 3_000
MOST_ROWS = 1_000_000
MAX_BYTES = 2 << 30
MAX_SECONDS = 900.0
SAMPLE_ROWS = 10
# Some 12,000 words: more than any model here is trained on. Kept rows are held in memory.
MAX_CHARACTERS = 65_536
_SCANNED_ON_HUB = 50_000
_LOOKED_AT = 200
_LOOK_SECONDS = 120.0
_SHOWN_CHARACTERS = 500
_SHOWN_COLUMNS = 200
_REPORT_EVERY = 500


@dataclass(frozen=True)
class Wanted:
    """A dataset: its catalogue entry, the configuration ("": the one that fits best), the task's instruction, the
    hub's commit or branch ("": the newest)."""

    entry: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    instruction: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Contents:
    """What is in a dataset. `rows` are JSON objects, cut for showing."""

    configs: tuple[str, ...] = ()
    config: str = ""
    columns: tuple[Column, ...] = ()
    splits: dict[str, int] = field(default_factory=dict)
    rows: tuple[str, ...] = ()
    licence: str = ""
    revision: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loading:
    """What to load into the file `out`: how many rows of a split to keep, how much to read of the hub (0: no limit)."""

    wanted: Wanted = Wanted()
    input_columns: tuple[str, ...] = ()
    output_column: str = ""
    max_rows: int = MAX_ROWS
    out: str = ""
    max_bytes: int = MAX_BYTES
    max_seconds: float = MAX_SECONDS


@dataclass(frozen=True)
class Loaded:
    """Rows kept by split, rows left out by reason, the hub's commit, what a person should know."""

    splits: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    licence: str = ""
    revision: str = ""
    notes: tuple[str, ...] = ()


def look(request: Wanted, context: WorkerContext) -> Contents:
    """Looks into a dataset. FailedPrecondition (NO_TEXT) where no column has a text, and what opening it raises."""
    caps = Caps(max_bytes=MAX_BYTES, max_seconds=_LOOK_SECONDS)
    try:
        source = open_source(request, context, caps)
        columns = columns_of(source.features, source.class_names)
        useful = {column.name.partition(".")[0] for column in columns if has_text(column.type)}
        if not useful:
            kinds = ", ".join(f"{column.name} ({column.type})" for column in columns) or "none"
            raise FailedPrecondition(
                "NO_TEXT", f"{request.entry['id']} has no column of text; its columns are: {kinds[:500]}."
            )
        split = "train" if "train" in source.splits else next(iter(source.splits))
        # A name may have a dot of its own; images and the like are not fetched to be shown.
        read = {column for column, kind in source.features.items() if column.partition(".")[0] in useful}
        found = list(itertools.islice(source.read(split, read, Tally(), 0), SAMPLE_ROWS))
    except CapReached as reached:
        raise _too_slow(request.entry["id"], reached) from reached
    rows = tuple(json.dumps(shown(row), ensure_ascii=False, allow_nan=False) for row in found)
    return Contents(
        source.configs, source.config, columns, source.splits, rows, source.licence, source.revision, source.notes
    )


def load(request: Loading, context: WorkerContext) -> Loaded:
    """Loads a dataset as text.

    InvalidArgument where a column is missing or has no text; FailedPrecondition (NO_ROWS) where nothing is left;
    DeadlineExceeded (LOAD_CAP) where the caps were reached before the first row.
    """
    caps = Caps(request.max_bytes, request.max_seconds)
    id = request.wanted.entry["id"]
    try:
        source = open_source(request.wanted, context, caps)
    except CapReached as reached:
        raise _too_slow(id, reached) from reached
    columns = {column.name: column for column in columns_of(source.features, source.class_names)}
    inputs = [_column(columns, name, "input_columns", id) for name in request.input_columns]
    output = _column(columns, request.output_column, "output_column", id)
    if not inputs or output in inputs:
        raise InvalidArgument(
            "BAD_COLUMNS", f"wanted one or more input columns of {id}, none of them the output.", field="input_columns"
        )
    on_hub = location_of(request.wanted.entry).startswith("hub:")
    most = max(_SCANNED_ON_HUB, request.max_rows) if on_hub else 0
    try:
        reading = _Reading(source, inputs, output, request.max_rows, most, caps, context)
    except CapReached as reached:
        raise _too_slow(id, reached) from reached
    kept: Counter[str] = Counter()
    with pq.ParquetWriter(request.out, ROW_SCHEMA) as writer:
        for split in source.splits:
            rows = [
                Row(flat.input, flat.output, id, split_of(Path(split)), flat.answers) for flat in reading.sample(split)
            ]
            writer.write_table(rows_to_table(rows))
            kept.update(row.split for row in rows)
            if reading.stopped:
                break
    if not kept:
        if reading.stopped:
            raise _too_slow(id, reading.stopped)
        reasons = ", ".join(f"{count:,} with {reason}" for reason, count in reading.dropped.items()) or "it is empty"
        raise FailedPrecondition("NO_ROWS", f"No row of {id} is left for these columns: {reasons}.")
    return Loaded(
        dict(kept), dict(reading.dropped), source.licence, source.revision, (*source.notes, *reading.notes(id))
    )


def open_source(wanted: Wanted, context: WorkerContext, caps: Caps) -> Source:
    """Opens the dataset of a catalogue entry. FailedPrecondition (HUB_OFFLINE) where the hub is switched off."""
    location = location_of(wanted.entry)
    if location.startswith("folder:"):
        path = Path(location.removeprefix("folder:"))
        return open_folder(wanted.entry, path, wanted.config, wanted.instruction)
    name = location.removeprefix("hub:")
    if context.settings.hub_offline:
        raise FailedPrecondition("HUB_OFFLINE", f"{name} is on the hub, which is switched off (HF_HUB_OFFLINE).")
    from services.dataset_retriever import hub

    hub.prepare(context.settings)
    line = Line(context.settings, context.raise_if_stopping, caps, context.report)
    return hub.open_hub(name, wanted.config, wanted.instruction, wanted.revision, line)


def shown(value: Any, width: int = _SHOWN_COLUMNS) -> Any:
    """A value for a person's eye: long texts, long lists and many columns cut, bytes and the like named."""
    if isinstance(value, Mapping):
        return {str(name)[:_SHOWN_CHARACTERS]: shown(part, 20) for name, part in itertools.islice(value.items(), width)}
    if isinstance(value, list | tuple):
        return [shown(item, 20) for item in value[:20]]
    if isinstance(value, str):
        # Half a surrogate pair is no text in JSON either.
        text = value[:_SHOWN_CHARACTERS].encode("utf-8", "replace").decode()
        return text if len(value) <= _SHOWN_CHARACTERS else f"{text}…"
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int) else str(value)


class _Reading:
    """One load's reading of rows: what is kept, what is not and why, and whether a cap ended it."""

    def __init__(
        self, source: Source, inputs: list[Column], output: Column, wanted: int, most: int, caps: Caps,
        context: WorkerContext,
    ) -> None:  # fmt: skip
        self.dropped: Counter[str] = Counter()
        self.stopped: CapReached | None = None
        self._source, self._inputs, self._output = source, inputs, output
        self._wanted, self._most = wanted, most
        self._caps, self._context = caps, context
        self._cut = 0
        self._left_out: list[str] = []
        self._ended: dict[str, int] = {}
        # A column is read by the first part of its name, or, where that is no column, by the whole of it.
        self._columns = {part for column in (*inputs, output) for part in (column.name, column.name.partition(".")[0])}
        self._first = self._first_option() if has_options(inputs, output) else 0

    def sample(self, split: str) -> list[Any]:
        """At most `wanted` usable rows of a split, a uniform sample of those read, in their order."""
        rng = random.Random(f"0 {split}")
        kept: list[tuple[int, Any]] = []
        tally, usable, number = Tally(), 0, 0
        try:
            for number, row in enumerate(self._source.read(split, self._columns, tally, self._most), start=1):
                if number % _REPORT_EVERY == 1:
                    self._context.raise_if_stopping()
                    self._caps.check_seconds()
                    self._report(split, number)
                flat = self._usable(row)
                if flat is None:
                    continue
                usable += 1
                if len(kept) < self._wanted:
                    kept.append((number, flat))
                    continue
                self.dropped["more than max_rows"] += 1
                place = rng.randrange(usable)
                if place < self._wanted:
                    kept[place] = (number, flat)
            if self._most and number >= self._most:
                self._ended[split] = number
        except CapReached as reached:
            self.stopped = reached
            self._ended[split] = number
        self.dropped.update(tally.dropped)
        self._left_out += tally.left_out
        return [flat for _, flat in sorted(kept, key=lambda item: item[0])]

    def notes(self, id: str) -> list[str]:
        """What a person should know of how it was read."""
        found = []
        for split, number in self._ended.items():
            total = self._source.splits.get(split) or 0
            if total == 0 or number < total:
                of = f" of {total:,}" if total else ""
                found.append(f"Of {id}, {split or 'all'}, the rows are a sample of {number:,}{of} that were read.")
        if self.stopped:
            found.append(f"Reading {id} was ended by its limit of {self.stopped}.")
        if self._cut:
            many = "1 input" if self._cut == 1 else f"{self._cut:,} inputs"
            found.append(f"Of {id}, {many} had more than {MAX_CHARACTERS:,} characters, and what follows them was cut.")
        return [*found, *self._left_out]

    def _usable(self, row: Mapping[str, Any]) -> Any:
        """The row as text, or None, with the reason counted."""
        flat = flatten(row, self._inputs, self._output, self._first)
        if not flat.input or not flat.output:
            self.dropped["no output" if flat.input else "no input"] += 1
            return None
        if len(flat.output) > MAX_CHARACTERS or sum(map(len, flat.answers)) > MAX_CHARACTERS:
            self.dropped[f"an output longer than {MAX_CHARACTERS:,} characters"] += 1
            return None
        if len(flat.input) > MAX_CHARACTERS:
            self._cut += 1
            return replace(flat, input=flat.input[:MAX_CHARACTERS])
        return flat

    def _first_option(self) -> int:
        """What numbers of options count from, by the first rows."""
        split = "train" if "train" in self._source.splits else next(iter(self._source.splits))
        rows = self._source.read(split, self._columns, Tally(), 0)
        return first_option(itertools.islice(rows, _LOOKED_AT), self._inputs, self._output)

    def _report(self, split: str, number: int) -> None:
        megabytes = f", {self._caps.fetched / 1e6:,.1f} MB" if self._caps.fetched else ""
        self._context.report(
            Progress(
                number, self._source.splits[split], "rows",
                f"Reading {split or 'the'} rows: {number:,}{megabytes}, {self._caps.seconds:.0f} s",
                (Metric("bytes", float(self._caps.fetched)), Metric("seconds", self._caps.seconds)),
            )
        )  # fmt: skip


def _too_slow(id: str, reached: CapReached) -> DeadlineExceeded:
    return DeadlineExceeded(
        "LOAD_CAP",
        f"No row of {id} was read within {reached}. What was fetched is kept: run the same command again to go on, or "
        "take another dataset.",
    )


def _column(columns: Mapping[str, Column], name: str, field: str, id: str) -> Column:
    column = columns.get(name)
    if column is None:
        known = ", ".join(columns)[:500]
        raise InvalidArgument("NO_SUCH_COLUMN", f"{id} has no column {name!r}; it has: {known}.", field=field)
    if not has_text(column.type):
        raise InvalidArgument("NOT_TEXT", f"{name} of {id} is {column.type}, which has no text.", field=field)
    return column
