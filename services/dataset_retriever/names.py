"""A column as the rules see it: what its name says, what kind of thing it holds, how its sample rows read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dataset_retriever.flatten import Column, as_text, value_at
from services.dataset_retriever.task import language_code, name_words
from services.dataset_retriever.vocabulary import GENERIC, MAIN, NO_CONTENT

_LISTED = re.compile(r"(?:sequence|list|large_list)<")
_CELLS = frozenset(["rows", "cells", "cell"])


@dataclass(frozen=True)
class Seen:
    """One column of a dataset."""

    column: Column
    name: str
    words: tuple[str, ...]
    """Of what tells: of "answers.text" answers; of "document.summary.text" summary."""
    path: frozenset[str]
    """All words of all parts."""
    kind: str
    """"text", "label" or "number"."""
    listed: bool
    generic: bool
    """Whether the last part of its name says nothing: "answers.text"."""
    texts: tuple[str, ...] = ()
    """Of the sample rows."""

    @property
    def is_empty(self) -> bool:
        """Whether its name says that it has no content of its own."""
        last = [word for word in self.words if not word.isdigit()][-1:] or [""]
        leaf = name_words(self.name.rpartition(".")[2])
        numbered = bool(set(leaf[:1]) & {"num", "has", "n", "id", "url"})
        if self.name.lower() in ("source", "src"):
            return False
        ids = bool(set(leaf[-1:]) & {"id", "ids", "idx", "url", "urls", "start", "starts"})
        return last[0] in NO_CONTENT or numbered or ids or len(self.words) == 0


def seen_as(column: Column, rows: Sequence[Mapping[str, Any]]) -> Seen:
    """The column with what its name and its sample rows tell."""
    parts = column.name.split(".")
    generic = len(parts) > 1 and parts[-1].lower() in GENERIC
    told = parts[-2] if generic and not _is_container(parts) else parts[-1]
    words = name_words(told)
    if generic:
        words = tuple(word for word in words if word not in GENERIC) or words
    if generic and _is_container(parts):
        words = name_words(parts[-2]) + name_words(parts[-1])
    if len(words) > 1 and words[-1] in ("string", "str"):
        words = words[:-1]
    inner = re.sub(r"(?:sequence|list|large_list)<|>(?:\[\d+\])?$", "", column.type)
    while _LISTED.match(inner):
        inner = re.sub(r"(?:sequence|list|large_list)<|>(?:\[\d+\])?$", "", inner)
    inner = inner.rstrip(">")
    kind = "text" if inner.startswith(("string", "large_string", "translation")) else "number"
    if column.class_names or inner.startswith(("class_label", "bool")):
        kind = "label"
    texts = tuple(as_text(value_at(row, column.name), column)[:2000] for row in rows)
    path = frozenset(word for part in parts for word in name_words(part))
    return Seen(column, column.name, words, path, kind, bool(_LISTED.match(column.type)), generic, texts)


def _is_container(parts: Sequence[str]) -> bool:
    """Whether the last part tells more than the one before it: "graph.sentence"."""
    return parts[-1].lower() == "sentence"


def is_main(column: Seen) -> bool:
    """Whether its name is that of something that is read."""
    return bool(set(column.words) & MAIN) or ("table" in column.path and bool(set(column.words) & _CELLS))


def is_tag(column: Seen) -> bool:
    """Whether it tags words."""
    return column.listed and (column.kind == "label" or bool(set(column.words) & {"tags", "upos", "xpos", "lemmas"}))


def beside(one: Seen, other: Seen) -> bool:
    """Whether both stand in the same record, or in none."""
    return one.name.rpartition(".")[0] == other.name.rpartition(".")[0]


def siblings(one: Seen, other: Seen) -> bool:
    """Whether `one` stands in the record that `other` is a part of, or deeper in it."""
    parent = other.name.rpartition(".")[0]
    return bool(parent) and one.name.startswith(f"{parent}.")


def language_of(column: Seen) -> str:
    """The language that ends its name, "original_ja"; "" where none does."""
    return language_code(column.words[-1]) if len(column.words) > 1 and len(column.words[-1]) == 2 else ""


def length(column: Seen) -> float:
    """Words of the middle sample text."""
    lengths = sorted(len(text.split()) for text in column.texts if text)
    return lengths[len(lengths) // 2] if lengths else 0
