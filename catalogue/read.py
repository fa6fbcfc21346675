"""Reads catalogue files: JSONL, also gzipped, one model or dataset a line.

    models.jsonl     {id, description, size_bytes, downloads, location?, architecture?, learning_rate?, epochs?,
                      batch_tokens?, licence?, languages?, safetensors?}
    datasets.jsonl   {id, description, location?, configs: [{name, features: {column: type}, class_names?, splits,
                      size_bytes}], licence?}

A location "folder:<path>" is relative to its file and absolute once read. Without a location an entry is on the hub
under its id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from services.kit.errors import InvalidArgument
from services.kit.rows import records

FOLDER = Path(__file__).resolve().parent
_MAX_ID = 200


def starter(kind: str) -> Path:
    """The starter catalogue's file of "models" or "datasets"."""
    return FOLDER / f"{kind}.jsonl"


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The entries of all files, sorted by id; of entries with one id the first. InvalidArgument names file and line."""
    entries: dict[str, dict[str, Any]] = {}
    for path in paths:
        for line, record in records(path):
            entry = _checked(record, path, line)
            entries.setdefault(entry["id"], entry)
    return [entries[id] for id in sorted(entries)]


def _checked(record: dict[str, Any], path: Path, line: int) -> dict[str, Any]:
    def wrong(what: str) -> InvalidArgument:
        return InvalidArgument("BAD_ENTRY", f"{path.name}, line {line}: {what}.")

    id = record.get("id")
    if not isinstance(id, str) or not id.strip() or len(id) > _MAX_ID:
        raise wrong(f"id is {id!r:.80}; wanted a name of at most {_MAX_ID} characters")
    description = record.get("description", "")
    if not isinstance(description, str):
        raise wrong(f"the description of {id} is no text")
    for number in ("size_bytes", "downloads", "learning_rate", "epochs", "batch_tokens"):
        value = record.get(number) or 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise wrong(f"{number} of {id} is {value!r:.40}; wanted a number of 0 or more")
    configs = record.get("configs") or []
    if not isinstance(configs, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in configs
    ):
        raise wrong(f"configs of {id} is not a list of configurations, each with a name")
    # Half a surrogate pair is JSON and is no text.
    entry = record | {"id": _text(id), "description": _text(description)}
    location = record.get("location") or ""
    if not isinstance(location, str):
        raise wrong(f"location of {id} is no text")
    if location.startswith("folder:"):
        entry["location"] = f"folder:{(path.parent / location.removeprefix('folder:')).resolve()}"
    return entry


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
