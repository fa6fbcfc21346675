"""A person's own rows: files and folders with `input` and `output`.

    files(path)            the data files of a folder, or the one file itself
    split_of(path)         the split that a file's name tells: "train", "validation", "test" or ""
    records(path)          any file's rows as plain dicts, one after another, with the line they stand on (`readers`)
    read_files(path)       rows with `input` and `output` (and `answers`, `split`)

The files come from people, so whatever is in them ends in an InvalidArgument that names the file, the line and what
was wanted, never in a crash.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from services.kit.errors import InvalidArgument, NotFound
from services.kit.readers import FORMATS, format_of, records
from services.kit.unpack import PACKED
from services.kit.values import Row

__all__ = ["FORMATS", "files", "read_files", "records", "split_in", "split_of"]

_SPLITS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


def files(path: Path) -> list[Path]:
    """The data files under a folder, sorted, hidden ones left out; of a file, itself.

    NotFound; InvalidArgument (NO_DATA_FILES, UNKNOWN_FORMAT, and LINK_LEAVES_FOLDER: what a folder holds must lie in
    it, since folders come from elsewhere too).
    """
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*")
            if format_of(file.name) in FORMATS and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )  # fmt: skip
        if not found:
            raise InvalidArgument("NO_DATA_FILES", f"The folder {path} holds no data file; wanted {_wanted()}.")
        home = path.resolve()
        for file in found:
            if not file.resolve().is_relative_to(home):
                raise InvalidArgument(
                    "LINK_LEAVES_FOLDER",
                    f"{file.relative_to(path)} is a link to a file outside of {path}. Copy the file into the folder, "
                    "or name it by itself.",
                )
        return found
    if not path.is_file():
        raise NotFound("NO_SUCH_FILE", f"There is no file or folder {path}.")
    if format_of(path.name) not in FORMATS:
        raise InvalidArgument("UNKNOWN_FORMAT", f"{path.name} is of no known format; wanted {_wanted()}.")
    return [path]


def split_of(path: Path) -> str:
    """The split in a file's name: "test-00000-of-00001.parquet" is "test"; "" where it tells none."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), "")


def split_in(folder: Path, file: Path) -> str:
    """The split that a file's name tells, else the folders' between `folder` and it, the innermost first."""
    inside = file.relative_to(folder) if file != folder else Path(file.name)
    return next((split for part in (inside, *inside.parents) if (split := split_of(part))), "")


def read_files(path: Path) -> list[Row]:
    """A file's or folder's rows. Every row needs `input` and `output`; `answers` lists all right outputs.

    The split is the row's own `split`, else what the file's name tells; the source is the file's name. Raises NotFound
    and InvalidArgument (MISSING_COLUMN, BAD_JSON, NOT_UTF8, EMPTY_FILE, LINE_TOO_LONG, ...).
    """
    rows: list[Row] = []
    for file in files(path):
        before = len(rows)
        split = split_in(path, file)
        rows += (_row(record, file, line, split) for line, record in records(file))
        if len(rows) == before:
            raise InvalidArgument(
                "EMPTY_FILE", f"{file.name} holds no rows; wanted at least one with input and output."
            )
    return rows


def _wanted() -> str:
    return f"one of {', '.join(FORMATS)}, each also with {', '.join(PACKED)}"


def _row(record: dict[str, Any], path: Path, number: int, split: str) -> Row:
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
    own = record.get("split")
    return Row(text["input"], text["output"], path.name, own if isinstance(own, str) else split, answers)


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


def _parse(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("BAD_JSON", f"{path.name}, line {number}: answers is no JSON ({error}).") from error
