"""Rows out of files: JSONL, JSON, CSV, TSV and Parquet, each also gzipped, and folders of them.

    files(path)            the data files of a folder, or the one file itself
    split_of(path)         the split that a file's name tells: "train", "validation", "test" or ""
    records(path)          any file's rows as plain dicts, one after another, with the line they stand on
    read_files(path)       rows with `input` and `output` (and `answers`, `split`): a person's own data

The files come from people, so whatever is in them ends in an InvalidArgument that names the file, the line and what
was wanted, never in a crash; no line is taken into memory unbounded.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from services.kit.errors import InvalidArgument, NotFound, PermissionDenied
from services.kit.values import Row

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
# Longer than any example a model can read; a line beyond it is damage or malice.
MAX_LINE_BYTES = 16 << 20
_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip


def files(path: Path) -> list[Path]:
    """The data files under a folder, sorted, hidden ones left out; of a file, itself. NotFound, InvalidArgument."""
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*")
            if file.is_file() and _format(file) in FORMATS
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )  # fmt: skip
        if not found:
            raise InvalidArgument("NO_DATA_FILES", f"The folder {path} holds no data file; wanted {_wanted()}.")
        return found
    if not path.is_file():
        raise NotFound("NO_SUCH_FILE", f"There is no file or folder {path}.")
    if _format(path) not in FORMATS:
        raise InvalidArgument("UNKNOWN_FORMAT", f"{path.name} is of no known format; wanted {_wanted()}.")
    return [path]


def split_of(path: Path) -> str:
    """The split in a file's name: "test-00000-of-00001.parquet" is "test"; "" where it tells none."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def read_files(path: Path) -> list[Row]:
    """A file's or folder's rows. Every row needs `input` and `output`; `answers` lists all right outputs.

    The split is the row's own `split`, else what the file's name tells; the source is the file's name. Raises NotFound
    and InvalidArgument (MISSING_COLUMN, BAD_JSON, NOT_UTF8, EMPTY_FILE, LINE_TOO_LONG, ...).
    """
    rows: list[Row] = []
    for file in files(path):
        before = len(rows)
        rows += (_row(record, file, line) for line, record in records(file))
        if len(rows) == before:
            raise InvalidArgument(
                "EMPTY_FILE", f"{file.name} holds no rows; wanted at least one with input and output."
            )
    return rows


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line or row number from 1, row) of one data file."""
    kind = _format(path)
    try:
        if kind == ".parquet":
            yield from _parquet(path)
        elif kind in (".csv", ".tsv"):
            yield from _csv(path, "\t" if kind == ".tsv" else ",")
        elif kind == ".json" and _first_character(path) == "[":
            yield from _json_list(path)
        else:
            yield from _json_lines(path)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InvalidArgument(
            "NOT_GZIP", f"{path.name} is no whole gzip file ({error}). Fetch or pack it again."
        ) from error
    except FileNotFoundError as error:
        raise NotFound("NO_SUCH_FILE", f"There is no file {path}.") from error
    except PermissionError as error:
        raise PermissionDenied("FILE_PERMISSION", f"Reading {path}: permission denied.") from error


def _format(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return next((kind for kind in FORMATS if name.endswith(kind)), "")


def _wanted() -> str:
    return f"one of {', '.join(FORMATS)}, each also with .gz"


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _open(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise InvalidArgument(
                    "LINE_TOO_LONG",
                    f"{path.name}, line {number} is longer than {MAX_LINE_BYTES >> 20} MiB; is it a text file?",
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidArgument(
                    "NOT_UTF8",
                    f"{path.name}, line {number} is not UTF-8 (byte {error.start + 1}). Save the file as UTF-8.",
                ) from error
            yield number, text


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _lines(path):
        if line.strip():
            yield number, _object(_parse(line.rstrip("\r\n"), path, number), path, number)


def _json_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open(path) as file:
        data = file.read(64 * MAX_LINE_BYTES + 1)
    if len(data) > 64 * MAX_LINE_BYTES:
        raise InvalidArgument(
            "FILE_TOO_LARGE", f"{path.name} is too large for one JSON list; write one object a line (.jsonl)."
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            "NOT_UTF8", f"{path.name} is not UTF-8 (byte {error.start + 1}). Save it as UTF-8."
        ) from error
    for number, value in enumerate(_parse(text, path, 1), start=1):
        yield number, _object(value, path, number)


def _first_character(path: Path) -> str:
    with _open(path) as file:
        return file.read(4096).decode("utf-8-sig", "replace").lstrip()[:1]


def _parse(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        raise InvalidArgument(
            "BAD_JSON", f"{path.name}, line {line}, column {error.colno}: no JSON ({error.msg})."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("BAD_JSON", f"{path.name}, line {number}: JSON that cannot be read ({error}).") from error


def _object(value: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), f"a {type(value).__name__}")
        raise InvalidArgument(
            "BAD_JSON", f'{path.name}, line {number} holds {kind}; wanted an object: {{"input": ..., "output": ...}}.'
        )
    return value


def _csv(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.DictReader((line for _, line in _lines(path)), delimiter=delimiter, strict=True)
    try:
        for record in reader:
            if None in record or None in record.values():
                raise InvalidArgument(
                    "BAD_CSV",
                    f"{path.name}, line {reader.line_num} has not as many fields as the header "
                    f"({len(reader.fieldnames or ())}). Is a quote missing?",
                )
            yield reader.line_num, dict(record)
    except csv.Error as error:
        raise InvalidArgument("BAD_CSV", f"{path.name}, line {reader.line_num}: no CSV ({error}).") from error


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with _open(path) as raw:
            source: Any = io.BytesIO(raw.read()) if path.name.lower().endswith(".gz") else raw
            number = 0
            for batch in pq.ParquetFile(source).iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidArgument("BAD_PARQUET", f"{path.name} is no Parquet file that can be read: {error}") from error


def _row(record: dict[str, Any], path: Path, number: int) -> Row:
    answers = _answers(record.get("answers"), path, number)
    if record.get("output") is None and answers:
        record = record | {"output": answers[0]}
    text = {}
    for column in ("input", "output"):
        if column not in record:
            raise InvalidArgument(
                "MISSING_COLUMN",
                f"{path.name}, line {number} has no {column!r}: it has {', '.join(map(str, record)) or 'nothing'}. "
                "Every row needs input and output.",
            )
        text[column] = _text(record[column], column, path, number)
    if not text["input"].strip():
        raise InvalidArgument("EMPTY_INPUT", f"{path.name}, line {number} has an empty input.")
    split = record.get("split")
    return Row(text["input"], text["output"], path.name, split if isinstance(split, str) else split_of(path), answers)


def _text(value: Any, column: str, path: Path, number: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        kind = "null" if value is None else f"a {type(value).__name__}"
        raise InvalidArgument("NOT_TEXT", f"{path.name}, line {number}: {column} is {kind}; wanted text or a number.")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            "NOT_UTF8", f"{path.name}, line {number}: {column} holds half a surrogate pair, which is no text."
        ) from error
    return text


def _answers(value: Any, path: Path, number: int) -> tuple[str, ...]:
    if isinstance(value, str):  # in a CSV file
        value = _parse(value, path, number) if value.strip() else None
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidArgument(
            "BAD_ANSWERS", f'{path.name}, line {number}: answers must be a list of texts, ["a", "b"].'
        )
    return tuple(_text(answer, "answers", path, number) for answer in value)
