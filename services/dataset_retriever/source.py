"""An opened dataset, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.kit.text import words


@dataclass(frozen=True)
class Source:
    """A dataset in one configuration: what it says of itself, and `read(split)`, its rows one after another."""

    configs: tuple[str, ...]
    config: str
    features: dict[str, str]
    """{column: type}, types as in the catalogue: "string", "class_label", "list<string>", "struct<a: string>"."""
    class_names: dict[str, tuple[str, ...]]
    splits: dict[str, int]
    """{split: rows}; 0 where the number is not known."""
    licence: str
    read: Callable[[str], Iterator[dict[str, Any]]]


def best_config(names: Sequence[str], instruction: str) -> str:
    """The configuration whose name has most words of the instruction; else "default", else the first."""
    asked = set(words(instruction))
    shared = {name: len(asked.intersection(words(name))) for name in names}
    best = max(names, key=lambda name: shared[name])
    if shared[best]:
        return best
    return "default" if "default" in names else names[0]
