"""Reads catalogue files: JSONL, also gzipped, one model or dataset a line.

    both              {id, description, tasks?, languages?, licence?, downloads?, tags?, gated?, location?}
    models.jsonl      and {size_bytes?, parameters?, architecture?, model_type?, safetensors?, learning_rate?, epochs?,
                      batch_tokens?, by_name?: true where only a person takes it, never the search}
    datasets.jsonl    and {configs?: [{name, features: {column: type}, class_names?, splits?, size_bytes?}], script?}

What is missing or null is not known, which is never a "no". Tasks are the Hub's names of them, languages ISO 639-1
codes or "multilingual", a licence is the Hub's id in lower case, downloads are those of a month, sizes are in bytes.
A location "folder:<path>" is relative to its file and absolute once read. Without a location an entry is on the hub
under its id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
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
    for name, (fits, wanted) in _FACTS.items():
        value = record.get(name)
        if value is not None and not fits(value):
            raise wrong(f"{name} of {id} is {value!r:.40}; wanted {wanted}")
    if not all(_is_config(one) for one in record.get("configs") or ()):
        raise wrong(f"configs of {id} is not a list of configurations, each with a name")
    # Half a surrogate pair is JSON and is no text.
    entry = record | {"id": _text(id), "description": _text(description)}
    location = record.get("location") or ""
    if location.startswith("folder:"):
        entry["location"] = f"folder:{(path.parent / location.removeprefix('folder:')).resolve()}"
    return entry


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _is_config(value: Any) -> bool:
    """One configuration of a dataset, as far as something is known of it."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    parts = (value.get(part) or {} for part in ("features", "class_names", "splits"))
    return all(isinstance(part, dict) for part in parts)


_Check = tuple[Callable[[Any], bool], str]
_NUMBER: _Check = (_is_number, "a number of 0 or more")
_TEXT: _Check = (_is_text, "a text")
_WORDS: _Check = (_are_words, "a list of texts")
_BOOL: _Check = (_is_bool, "true or false")
_FACTS: dict[str, _Check] = {
    **dict.fromkeys(("size_bytes", "downloads", "parameters", "learning_rate", "epochs", "batch_tokens"), _NUMBER),
    **dict.fromkeys(("licence", "architecture", "model_type", "location"), _TEXT),
    **dict.fromkeys(("tasks", "languages", "tags"), _WORDS),
    **dict.fromkeys(("gated", "safetensors", "script", "by_name"), _BOOL),
    "configs": (lambda value: isinstance(value, list), "a list of configurations, each with a name"),
}


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
