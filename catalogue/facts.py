"""What an index keeps of each entry as a number, so that a search reads no entry to rank or to filter it.

models      downloads, size_bytes, and what catalogue/models.py tells of each
datasets    downloads; size_bytes: of the smallest configuration, since one is loaded
            mentions: the entries that its text names (catalogue/mentions.py)
            prior: how much it is used, as far as mentions, variants and downloads tell
            licence, languages, tasks: a code for each distinct value (`code`), 0 where unknown
            gated, script, train: NO or YES, 0 where unknown; train: whether it has a split to train on

A code says which entries have one value; what the value is, the first of them says.

    prior = 0.2 log(1 + mentions of it) + 0.4 log(its variants) + 0.3 z(log(1 + downloads))

The first two weights were chosen on DataFinder's development queries. There are no labels to choose the third by: it
gives what is downloaded much about as much as what is mentioned much; unknown downloads count as the usual ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from catalogue.dataset_cards import dataset_text
from catalogue.mentions import Mentions, counts, mentions
from catalogue.models import model_facts

Facts: TypeAlias = dict[str, npt.NDArray[Any]]

UNKNOWN, NO, YES = 0, 1, 2
_MENTIONED, _VARIANTS, _DOWNLOADED = 0.2, 0.4, 0.3


def facts(kind: str, entries: Sequence[Mapping[str, Any]]) -> Facts:
    """One array [entries] for each name; 0 where an entry does not say."""
    downloads = {"downloads": _numbers([entry.get("downloads") for entry in entries])}
    if kind == "models":
        return (
            downloads | {"size_bytes": _numbers([entry.get("size_bytes") for entry in entries])} | model_facts(entries)
        )
    codes = {
        name: np.asarray([code(entry.get(name)) for entry in entries], np.uint64)
        for name in ("licence", "languages", "tasks")
    }
    marks = {
        "gated": [entry.get("gated") for entry in entries],
        "script": [entry.get("script") for entry in entries],
        "train": [has_train_split(entry) for entry in entries],
    }
    sizes = {"size_bytes": _numbers([smallest_size(entry) for entry in entries])}
    named = mentions([name_of(entry["id"]) for entry in entries], [dataset_text(entry) for entry in entries])
    return (
        downloads
        | sizes
        | {"mentions": named, "prior": prior(entries, named)}
        | codes
        | {name: np.asarray([_mark(one) for one in of], np.int8) for name, of in marks.items()}
    )


def name_of(id: str) -> str:
    """A dataset's name without its owner's."""
    return id.rpartition("/")[2]


def prior(entries: Sequence[Mapping[str, Any]], named: Mentions) -> npt.NDArray[np.float32]:
    """How much each entry is used, [entries]; 0 for one of which nothing is known."""
    variants = np.asarray([max(1, len(entry.get("variants") or ())) for entry in entries], np.float64)
    downloads = np.log1p(_numbers([entry.get("downloads") for entry in entries]).astype(np.float64))
    known = downloads > 0
    usual, spread = (downloads[known].mean(), downloads[known].std()) if known.any() else (0.0, 0.0)
    used = np.where(known, (downloads - usual) / spread, 0.0) if spread else np.zeros(len(entries))
    return np.asarray(
        _MENTIONED * np.log1p(counts(named, len(entries))) + _VARIANTS * np.log(variants) + _DOWNLOADED * used,
        np.float32,
    )


def code(value: Any) -> int:
    """64 bits that tell one value from another; 0 of an empty one."""
    if not value:
        return 0
    text = json.dumps(value, ensure_ascii=True, sort_keys=True)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") or 1


def smallest_size(entry: Mapping[str, Any]) -> int:
    """Bytes of the dataset's smallest configuration; 0 where no configuration's size is known."""
    sizes = [config.get("size_bytes") or 0 for config in entry.get("configs") or ()]
    return min((int(size) for size in sizes if size), default=int(entry.get("size_bytes") or 0))


def has_train_split(entry: Mapping[str, Any]) -> bool | None:
    """Whether some configuration has a split to train on; None where no splits are known."""
    splits = [name for config in entry.get("configs") or () for name in config.get("splits") or ()]
    return any(name.startswith("train") for name in splits) if splits else None


def _numbers(values: Sequence[Any]) -> npt.NDArray[np.int64]:
    return np.asarray([value or 0 for value in values], np.int64)


def _mark(value: object) -> int:
    return UNKNOWN if value is None else YES if value else NO
