"""The rows of a data file: JSONL, JSON, CSV, TSV, text and Parquet, each also packed, wherever the file lies.

    DataFile                 a name, and how to open it
    records(file)            its rows as plain dicts, one after another, with the line they stand on
    format_of(name)          the format that a name tells
    Tally                    what a reader does with a bad row instead of raising: counts it

One bad row is `bad(reason, short, message)`: by default InvalidArgument that names file, line and what was wanted.
A `Tally` counts it under `short` and the reader goes on; more bad rows than good ones is no dataset, and raises what
the first was. A file that cannot be read at all always raises. No line, no value and no nesting is taken in unbounded.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from services.kit.errors import InvalidArgument, NotFound, PermissionDenied
from services.kit.unpack import PACKED, plain_text, unpacked

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
TEXT = ".txt"
# Longer than any example a model can read; a line, a row or a value beyond it is damage or malice.
MAX_LINE_BYTES = 16 << 20
# One JSON document that is no list and no lines must be held whole.
MAX_DOCUMENT_BYTES = 64 << 20
MAX_DEPTH = 50
MAX_NAME = 256

_SEPARATORS = (",", ";", "\t", "|")
_SNIFFED_LINES = 20
_BATCH_BYTES = 32 << 20
_CHUNK = 1 << 16
_SPREAD_GROUPS = 8
_FEW = 100
# The begin of {"version": "1.1", "data": [{...: rows inside one object.
_DOCUMENT = re.compile(rb'\s*\{(\s*"[^"]*"\s*:\s*("[^"]*"|[\d.]+)\s*,)*\s*"[^"]*"\s*:\s*\[\s*\{')
_BETWEEN = re.compile(r"[\s,]*")
_NUMBER = re.compile(r"-?\d+([.,]\d+)?")

Bad = Callable[[str, str, str], None]
Records = Iterator[tuple[int, dict[str, Any]]]


def refuse(reason: str, short: str, message: str) -> None:
    """What is done with a bad row by default."""
    raise InvalidArgument(reason, message)


@dataclass
class Tally:
    """Counts rows: `good` by who takes them, those left out by reason. Its `bad` is for `records`."""

    good: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: InvalidArgument | None = None
    left_out: list[str] = field(default_factory=list)
    """Whole files that were left out, a sentence each; for who reads several files."""

    def bad(self, reason: str, short: str, message: str) -> None:
        self.dropped[short] += 1
        self.first = self.first or InvalidArgument(reason, message)
        self.check(_FEW)

    def check(self, least: int = 1) -> None:
        """Raises the first bad row's error where at least `least` were bad, and more than were good."""
        bad = self.dropped.total()
        if self.first is not None and bad >= least and bad > self.good:
            told = f"{self.first.message} And so on: {bad:,} of {bad + self.good:,} rows cannot be read."
            raise InvalidArgument(self.first.reason, told)


@dataclass(frozen=True)
class DataFile:
    """A data file. `open` gives its bytes, seekable, each time from the start."""

    name: str
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Layout:
    """How a file is laid out, where somebody said so. Empty: by what it looks like."""

    separator: str = ""
    names: tuple[str, ...] = ()
    """A CSV file's columns, where its first line is no header."""
    field: str = ""
    """Of a JSON document the part that lists the rows."""
    encoding: str = ""


AS_IT_LOOKS = Layout()


def format_of(name: str) -> str:
    """ ".csv" of "Train.CSV.gz"; "" where it is none that is read."""
    bare = name.lower()
    for ending in PACKED:
        bare = bare.removesuffix(ending)
    return next((kind for kind in (*FORMATS, TEXT) if bare.endswith(kind)), "")


def records(
    file: Path | DataFile, *, bad: Bad = refuse, columns: Collection[str] | None = None,
    layout: Layout = AS_IT_LOOKS, most: int = 0,
) -> Records:  # fmt: skip
    """(line or row number from 1, row) of one data file. `columns`: of Parquet, read only these.

    `most`: the caller takes so many rows (0: all). Of a Parquet file with more they come from all over it.

    InvalidArgument (WRONG_FORMAT, NOT_GZIP, UNPACKS_TOO_FAR, NOT_UTF8, BAD_JSON, BAD_CSV, NO_HEADER, BAD_PARQUET,
    LINE_TOO_LONG, TOO_DEEP) and NotFound.
    """
    if isinstance(file, Path):
        path = file
        file = DataFile(path.name, lambda: path.open("rb"))
    kind = format_of(file.name)
    try:
        with file.open() as raw:
            if kind == ".parquet":
                yield from _parquet(raw, file.name, columns, bad, most)
                return
            with unpacked(raw, file.name) as packed:
                table = kind in (".csv", ".tsv", TEXT)
                stream, _ = plain_text(packed, file.name, guess=table, encoding=layout.encoding if table else "")
                if kind in (".csv", ".tsv"):
                    yield from _csv(stream, file.name, "\t" if kind == ".tsv" else ",", layout, bad)
                elif kind == TEXT:
                    yield from (
                        (number, {"text": line.rstrip("\r\n")}) for number, line in _lines(stream, file.name, bad)
                    )
                elif kind == ".json":
                    yield from _json(stream, file.name, layout, bad)
                else:
                    yield from _json_lines(stream, file.name, bad)
    except FileNotFoundError as error:
        raise NotFound("NO_SUCH_FILE", f"There is no file {error.filename}.") from error
    except PermissionError as error:
        raise PermissionDenied("FILE_PERMISSION", f"Reading {error.filename}: permission denied.") from error


# -- lines


def _lines(stream: io.BufferedReader, name: str, bad: Bad) -> Iterator[tuple[int, str]]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            limit = f"{MAX_LINE_BYTES >> 20} MiB"
            bad("LINE_TOO_LONG", f"longer than {limit}", f"{name}, line {number} is longer than {limit}; is it text?")
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            continue
        try:
            yield number, line.decode()
        except UnicodeDecodeError as error:
            message = f"{name}, line {number} is not UTF-8 (byte {error.start + 1}). Save the file as UTF-8."
            bad("NOT_UTF8", "not UTF-8", message)


# -- JSON


def _json_lines(stream: io.BufferedReader, name: str, bad: Bad) -> Records:
    for number, line in _lines(stream, name, bad):
        if line.strip():
            yield from _objects(line.rstrip("\r\n"), name, number, bad)


def _objects(text: str, name: str, number: int, bad: Bad) -> Records:
    """The one object that a text holds, or none where it is bad."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        bad("BAD_JSON", "not JSON", f"{name}, line {line}, column {error.colno}: no JSON ({error.msg}).")
    except (ValueError, RecursionError) as error:
        bad("BAD_JSON", "not JSON", f"{name}, line {number}: JSON that cannot be read ({error}).")
    else:
        yield from _object(value, name, number, bad)


def _object(value: Any, name: str, number: int, bad: Bad) -> Records:
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), f"a {type(value).__name__}")
        message = f'{name}, line {number} holds {kind}; wanted an object: {{"input": ..., "output": ...}}.'
        bad("BAD_JSON", "no JSON object", message)
    elif _too_deep(value):
        message = f"{name}, line {number} is nested deeper than {MAX_DEPTH} levels; no example is."
        bad("TOO_DEEP", f"nested deeper than {MAX_DEPTH} levels", message)
    else:
        yield number, value


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _json(stream: io.BufferedReader, name: str, layout: Layout, bad: Bad) -> Records:
    """A list of objects, objects one a line, or one document with a list in it."""
    sample = stream.peek(1 << 18)
    if sample.lstrip()[:1] == b"[":
        yield from _json_list(stream, name, bad)
        return
    if not layout.field and not _is_document(sample):
        yield from _json_lines(stream, name, bad)
        return
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(
            "FILE_TOO_LARGE",
            f"{name} is one JSON document of over {MAX_DOCUMENT_BYTES >> 20} MiB; write one object a line (.jsonl).",
        )
    yield from _document(data, name, layout, bad)


def _is_document(sample: bytes) -> bool:
    """Whether a file that begins so is one JSON object over several lines, or on its only one, and not one a line."""
    first, newline, rest = sample.partition(b"\n")
    value = _parsed(first)
    if isinstance(value, dict):
        return not rest.strip() and bool(_row_lists(value))
    if not newline:
        return bool(_DOCUMENT.match(first))
    return not isinstance(_parsed(rest.partition(b"\n")[0]), dict)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _row_lists(document: dict[str, Any]) -> list[str]:
    return [key for key, part in document.items() if isinstance(part, list) and part and isinstance(part[0], dict)]


def _document(data: bytes, name: str, layout: Layout, bad: Bad) -> Records:
    if not data.strip():
        return
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # objects one after another, each over several lines or with a gap between
            yield from _json_list(io.BufferedReader(io.BytesIO(b"[" + data + b"]")), name, bad)
            return
        raise InvalidArgument(
            "BAD_JSON", f"{name}, line {error.lineno}, column {error.colno}: no JSON ({error.msg})."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("BAD_JSON", f"{name}: JSON that cannot be read ({error}).") from error
    found = [layout.field] if layout.field else _row_lists(value)
    rows = value.get(found[0]) if len(found) == 1 and isinstance(value, dict) else None
    if not isinstance(rows, list):
        if isinstance(value, dict) and not layout.field and not found:
            yield from _object(value, name, 1, bad)
            return
        raise InvalidArgument(
            "BAD_JSON", f"{name} is one JSON document, and no one list in it holds the rows; write one object a line."
        )
    for number, row in enumerate(rows, start=1):
        yield from _object(row, name, number, bad)


def _json_list(stream: io.BufferedReader, name: str, bad: Bad) -> Records:
    """The objects of a list, one after another; only one of them is in memory at a time."""
    text = io.TextIOWrapper(stream, "utf-8")
    decoder, number, place = json.JSONDecoder(), 0, 0
    try:
        buffer = text.read(_CHUNK).lstrip()[1:]
        while True:
            match = _BETWEEN.match(buffer, place)
            place = match.end() if match else place
            if place == len(buffer):
                buffer, place = text.read(_CHUNK), 0
                if not buffer:
                    raise InvalidArgument("BAD_JSON", f"{name} ends in the middle of its list. Fetch it again.")
                continue
            if buffer[place] == "]":
                return
            problem: Exception | None = None
            try:
                value, end = decoder.raw_decode(buffer, place)
            except (ValueError, RecursionError) as error:
                value, end, problem = None, len(buffer), error
            if end == len(buffer):  # perhaps cut: a number may go on, an object has not ended
                left = len(buffer) - place
                more = text.read(max(_CHUNK, left)) if left <= MAX_LINE_BYTES else ""
                if more:
                    buffer, place = buffer[place:] + more, 0
                    continue
                if problem is not None:
                    raise _not_json(problem, name, number + 1, left) from problem
            place, number = end, number + 1
            yield from _object(value, name, number, bad)
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            "NOT_UTF8", f"{name} is not UTF-8 (after row {number:,}). Save the file as UTF-8."
        ) from error


def _not_json(error: Exception, name: str, number: int, size: int) -> InvalidArgument:
    if size > MAX_LINE_BYTES:
        return InvalidArgument(
            "LINE_TOO_LONG",
            f"{name}, row {number:,} of its list is longer than {MAX_LINE_BYTES >> 20} MiB, or no JSON.",
        )
    what = (
        f"no JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else f"JSON that cannot be read ({error})"
    )
    return InvalidArgument("BAD_JSON", f"{name}, line {number} of its list: {what}.")


# -- CSV


def _csv(stream: io.BufferedReader, name: str, usual: str, layout: Layout, bad: Bad) -> Records:
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = (line for _, line in _lines(stream, name, bad))
    first = list(itertools.islice(lines, _SNIFFED_LINES))
    feed = _Feed(itertools.chain(first, lines))
    reader = csv.reader(feed, delimiter=layout.separator or _separator(first, usual), strict=True)
    header = list(layout.names)
    while True:
        feed.since_row = 0
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad("BAD_CSV", "not CSV", f"{name}, line {reader.line_num}: no CSV ({error}).")
            continue
        if not fields:
            continue
        if not header:
            header = _header(fields, name, reader.line_num)
        elif len(fields) != len(header):
            bad(
                "BAD_CSV",
                "not as many fields as the header",
                f"{name}, line {reader.line_num} has {len(fields)} fields, not as many fields as the header "
                f"({len(header)}). Is a quote missing?",
            )
        else:
            yield reader.line_num, dict(zip(header, fields, strict=True))


class _Feed:
    """Lines for a CSV reader, which would join them without end where a quote is never closed."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.since_row = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.since_row += len(line)
        if self.since_row > MAX_LINE_BYTES + len(line):
            raise csv.Error(f"a row longer than {MAX_LINE_BYTES >> 20} MiB; is a quote missing?")
        return line


def _separator(first: Sequence[str], usual: str) -> str:
    """The separator by which most of the first lines have as many fields as line 1; then the most, then the usual."""

    def score(separator: str) -> tuple[float, int, bool]:
        try:
            widths = [len(fields) for fields in csv.reader(first, delimiter=separator) if fields]
        except csv.Error:
            return (0.0, 0, False)
        if not widths or widths[0] < 2:
            return (0.0, 0, separator == usual)
        return (sum(width == widths[0] for width in widths) / len(widths), widths[0], separator == usual)

    return max((usual, *_SEPARATORS), key=score)


def _header(fields: Sequence[str], name: str, line: int) -> list[str]:
    """The columns' names: each once, none empty. InvalidArgument (NO_HEADER) where they are a row's values."""
    numbered = [str(number) for number in range(len(fields))]
    number = next((one for one in fields if _NUMBER.fullmatch(one.strip())), None)
    long = next((one for one in fields if len(one) > MAX_NAME), None)
    if (number is not None and list(fields) != numbered) or long is not None:
        value = (long or number or "")[:60]
        raise InvalidArgument(
            "NO_HEADER",
            f"{name}, line {line} should name the columns, and has {value!r}, which is no name. Put a first line with "
            "the columns' names in it, for example: input,output",
        )
    names: list[str] = []
    for position, one in enumerate(fields):
        wanted = one.strip() or f"column {position + 1}"
        names.append(next(n for n in _numbered(wanted) if n not in names) if wanted in names else wanted)
    return names


def _numbered(name: str) -> Iterator[str]:
    return (f"{name}.{number}" for number in itertools.count(1))


# -- Parquet


def _parquet(raw: IO[bytes], name: str, columns: Collection[str] | None, bad: Bad, most: int) -> Records:
    import pyarrow as pa  # here, so that who reads text alone needs none

    try:
        if raw.read(4) == b"PAR1":
            yield from _row_groups(raw, name, columns, bad, most)
            return
        raw.seek(0)
        # Its footer is at its end, so a packed one must be unpacked whole, and not into memory.
        with unpacked(raw, name) as stream, tempfile.TemporaryFile() as whole:
            shutil.copyfileobj(stream, whole, 1 << 20)
            yield from _row_groups(whole, name, columns, bad, most)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise InvalidArgument(
            "BAD_PARQUET", f"{name} is no Parquet file that can be read: {why}. Fetch or write it again."
        ) from error
    except OSError as error:
        if error.errno is not None:
            raise
        why = " ".join(str(error).split())[:200]
        raise InvalidArgument(
            "BAD_PARQUET", f"{name} is no Parquet file that can be read: {why}. Fetch or write it again."
        ) from error


def _row_groups(raw: IO[bytes], name: str, columns: Collection[str] | None, bad: Bad, most: int) -> Records:
    import pyarrow.parquet as pq

    raw.seek(0)
    # Pages are read as they are needed: a row group can be larger than the memory.
    file = pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
    schema = file.schema_arrow
    if any(_arrow_depth(one.type) > MAX_DEPTH for one in schema):
        raise InvalidArgument("TOO_DEEP", f"{name} has a column nested deeper than {MAX_DEPTH} levels; no example is.")
    wanted = None if columns is None else [column for column in schema.names if column in columns]
    begins = [0, *itertools.accumulate(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))]
    groups = _spread(begins, most)
    for group in groups:
        about = file.metadata.row_group(group)
        size = max(1, min(1024, _BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)))
        number, end = begins[group], begins[group + 1]
        if len(groups) < file.num_row_groups:
            end = min(end, number - (-most // len(groups)))
        for batch in file.iter_batches(size, row_groups=[group], columns=wanted, use_threads=False):
            for row in _plain_rows(batch.slice(0, end - number), name, number, bad):
                number += 1
                if row is not None:
                    yield number, row
            if number >= end:
                break


def _spread(begins: Sequence[int], most: int) -> Sequence[int]:
    """The row groups to read for `most` rows: all where they hold no more, else enough of them, evenly spread."""
    number = len(begins) - 1
    if not most or begins[-1] <= most:
        return range(number)
    chosen = min(number, max(_SPREAD_GROUPS, -(-most * number // begins[-1])))
    return [place * number // chosen for place in range(chosen)]


def _plain_rows(batch: pa.RecordBatch, name: str, number: int, bad: Bad) -> Iterator[dict[str, Any] | None]:
    import pyarrow as pa

    try:
        plain: list[dict[str, Any] | None] = batch.to_pylist()
    except (UnicodeDecodeError, ValueError, OverflowError, pa.ArrowException) as error:
        if batch.num_rows == 1:
            bad("BAD_VALUE", "a value that cannot be read", f"{name}, row {number + 1:,} cannot be read ({error}).")
            plain = [None]
        else:
            for row in range(batch.num_rows):
                yield from _plain_rows(batch.slice(row, 1), name, number + row, bad)
            return
    for offset, one in enumerate(plain):
        if one is not None and any(_long(value) for value in one.values()):
            limit = f"{MAX_LINE_BYTES >> 20} MiB"
            bad("LINE_TOO_LONG", f"longer than {limit}", f"{name}, row {number + offset + 1:,} is longer than {limit}.")
            yield None
        else:
            yield one


def _long(value: Any) -> bool:
    return isinstance(value, str | bytes) and len(value) > MAX_LINE_BYTES


def _arrow_depth(kind: pa.DataType) -> int:
    """How deep a type is nested; not by recursion, since it may be too deep for that."""
    depth, level = 0, [kind]
    while level and depth <= MAX_DEPTH:
        level = [one.field(place).type for one in level for place in range(one.num_fields)]
        depth += 1
    return depth
