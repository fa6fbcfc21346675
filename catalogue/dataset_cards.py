"""What of a dataset is searched: its name, its description, its columns and labels, its tasks, languages and tags.

dataset_text    all of it, most telling first, since an encoder reads only the beginning
spelled_out     "wikiSQL_v2" as "wikiSQL_v2 wiki SQL v 2": nobody asks for a name as its owner has spelled it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from catalogue.cards import without_boilerplate
from catalogue.languages import NAMES

# Names of columns and labels tell what a row is; hundreds of them tell no more than the first.
_MOST_COLUMNS, _MOST_LABELS, _MOST_TAGS = 12, 12, 20
_SEAM = re.compile(r"[_\-.\s]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)")


def dataset_text(entry: Mapping[str, Any]) -> str:
    """The searched text of a dataset's entry."""
    name = str(entry["id"]).rpartition("/")[2]
    parts = (spelled_out(name), without_boilerplate(entry["description"]), _columns(entry), _facts(entry))
    return "\n".join(part for part in parts if part)


def spelled_out(name: str) -> str:
    """The name, and its words where it is written as one."""
    words = " ".join(word for word in _SEAM.split(name) if word)
    return name if words == name else f"{name} {words}"


def _columns(entry: Mapping[str, Any]) -> str:
    """The columns and the labels of the first configuration."""
    config: Mapping[str, Any] = next(iter(entry.get("configs") or ()), {})
    columns = ", ".join(islice(config.get("features") or (), _MOST_COLUMNS))
    labels = (str(label) for names in (config.get("class_names") or {}).values() for label in names)
    shown = ", ".join(islice(labels, _MOST_LABELS))
    return " ".join((f"Columns: {columns}." if columns else "", f"Labels: {shown}." if shown else "")).strip()


def _facts(entry: Mapping[str, Any]) -> str:
    tasks = [str(task).replace("-", " ") for task in entry.get("tasks") or ()]
    languages = [NAMES.get(str(code), "") for code in entry.get("languages") or () if code != "en"]
    tags = [str(tag) for tag in (entry.get("tags") or ())[:_MOST_TAGS]]
    return ", ".join(dict.fromkeys(one for one in (*tasks, *languages, *tags) if one))
