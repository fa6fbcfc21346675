"""An opened dataset, wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dataset_retriever.configs import best_named
from services.kit.readers import Tally
from services.kit.values import PromptSpec


@dataclass(frozen=True)
class Source:
    """A dataset in one configuration: what it says of itself, and `read`, the rows of a split one after another."""

    configs: tuple[str, ...]
    config: str
    features: dict[str, str]
    """{column: type}, types as in the catalogue: "string", "class_label", "list<string>", "struct<a: string>"."""
    class_names: dict[str, tuple[str, ...]]
    splits: dict[str, int]
    """{split: rows}; 0 where the number is not known."""
    licence: str
    read: Callable[[str, Collection[str] | None, Tally, int], Iterator[dict[str, Any]]]
    """read(split, columns, tally, most): rows that cannot be read are counted in `tally`; of the columns at least those
    named (None: all); at most `most` rows (0: all), from several files of a split where it has several."""
    revision: str = ""
    """The hub's commit, or "refs/convert/parquet@" and that of the hub's copy; "" of a folder."""
    notes: tuple[str, ...] = ()


def labelled(row: dict[str, Any], features: Mapping[str, str]) -> dict[str, Any]:
    """A row whose class labels are numbers, also where a text file had to write them as text."""
    for name, kind in features.items():
        value = row.get(name)
        if kind == "class_label" and isinstance(value, str) and value.strip().lstrip("-").isdecimal():
            row[name] = int(value)
    return row


def best_config(names: Sequence[str], instruction: str) -> str:
    """The configuration that fits the instruction best by its name; else "default" or the like, else the first."""
    return best_named(names, PromptSpec(instruction))
