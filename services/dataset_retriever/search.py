"""Datasets for a task: the best of those that the filters allow, each with the reasons why it is there.

ranking    the score
filters    what may be given
expand     what the LLM adds to the query
choice     which one is taken
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from catalogue.facts import smallest_size
from services.dataset_retriever.filters import Filters, allowed, check, refusal, unknowns
from services.dataset_retriever.ranking import Ranked, rank
from services.kit.errors import InvalidArgument
from services.kit.index import Index
from services.kit.settings import Settings
from services.kit.text import words
from services.kit.values import PromptSpec, ScorePart

DEFAULT_K, MOST_K = 25, 1000
MOST_EXCLUDED = 20

# Nobody's task takes more words to tell; what comes after is data.
_QUERY_CHARACTERS = 20_000
_SHOWN_CHARACTERS = 2_000
# What has no more letters than this tells nothing.
_SHORT = 3
_MOST_LANGUAGES, _MOST_TASKS, _MOST_CONFIGS = 50, 20, 50


class DatasetOrigin(IntEnum):
    """Where a dataset's rows come from, with the proto's numbers."""

    UNSPECIFIED = 0
    HUB = 1
    LOCAL = 2


@dataclass(frozen=True)
class DatasetCandidate:
    """One dataset, with the fields of the proto's message."""

    id: str = ""
    description: str = ""
    score: float = 0.0
    parts: tuple[ScorePart, ...] = ()
    why: str = ""
    origin: DatasetOrigin = DatasetOrigin.UNSPECIFIED
    configs: tuple[str, ...] = ()
    reachable: bool = False
    licence: str = ""
    languages: tuple[str, ...] = ()
    size_bytes: int = 0
    tasks: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExcludedDataset:
    """One dataset that a filter left out, and why."""

    id: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """The ranked datasets, the best of those left out, and sentences for a person."""

    candidates: tuple[DatasetCandidate, ...] = ()
    excluded: tuple[ExcludedDataset, ...] = ()
    notes: tuple[str, ...] = ()


def query_of(spec: PromptSpec) -> str:
    """What is searched with: the instruction, in English and as it was written, since a translation by a small LLM may
    have lost its meaning; without one, the first demonstration. InvalidArgument where nothing is."""
    both = f"{spec.instruction}\n{spec.original_instruction}".strip()
    for text in (both, *(one.input for one in spec.demonstrations)):
        if text.strip():
            return text[:_QUERY_CHARACTERS]
    raise InvalidArgument("EMPTY_SPEC", "spec holds neither an instruction nor a demonstration.", field="spec")


def check_k(k: int) -> int:
    """How many datasets are wanted; InvalidArgument for what is not 0 to 1,000."""
    if not 0 <= k <= MOST_K:
        raise InvalidArgument("BAD_K", f"k is {k}; wanted 0 to {MOST_K}.", field="k")
    return k or DEFAULT_K


def search(
    index: Index,
    query: str,
    vector: Sequence[float],
    k: int,
    settings: Settings,
    filters: Filters | None = None,
    card: str = "",
) -> Found:
    """The `k` best datasets that the filters allow, for a query and its embedding; 0 is 25, at most 1,000.

    `card`: words that are searched with beside the query's; they are in the embedding already (`expand`).
    InvalidArgument for another k, and for filters that cannot be.
    """
    k, filters = check_k(k), check(filters or Filters())
    may, text = allowed(index, filters), f"{query}\n{card}" if card else query
    hits = rank(index, text, vector, k, may.mask)
    best_out = [] if may.mask is None else rank(index, text, vector, MOST_EXCLUDED, ~may.mask)
    out = [(entry["id"], refusal(entry, filters)) for entry in (index.entry(hit.number) for hit in best_out)]
    asked = words(query)
    return Found(
        tuple(_candidate(index.entry(hit.number), hit, asked, settings, filters) for hit in hits),
        tuple(ExcludedDataset(id, reason) for id, reason in out),
        may.notes,
    )


def parts_of(hit: Ranked) -> tuple[ScorePart, ...]:
    """What a score is made of, before the weights."""
    return tuple(ScorePart(name, getattr(hit, name)) for name in ("cosine", "bm25", "prior", "mentions"))


def part(candidate: DatasetCandidate, name: str) -> float:
    """One part of a candidate's score; 0 where it has none of this name."""
    return next((part.value for part in candidate.parts if part.name == name), 0.0)


def location_of(entry: dict[str, Any]) -> str:
    """Where a dataset's rows are: "folder:<path>" or "hub:<name>"."""
    return entry.get("location") or f"hub:{entry['id']}"


def is_reachable(entry: dict[str, Any], settings: Settings) -> bool:
    """Whether it can be loaded from here now; the hub is not asked."""
    location = location_of(entry)
    if location.startswith("folder:"):
        return os.path.isdir(location.removeprefix("folder:"))
    return not settings.hub_offline and not entry.get("script")


def _candidate(
    entry: dict[str, Any], hit: Ranked, asked: Sequence[str], settings: Settings, filters: Filters
) -> DatasetCandidate:
    local = location_of(entry).startswith("folder:")
    return DatasetCandidate(
        id=entry["id"],
        description=entry["description"][:_SHOWN_CHARACTERS],
        score=hit.score,
        parts=parts_of(hit),
        why=_why(entry, asked, {part.name: part.value for part in parts_of(hit)}),
        origin=DatasetOrigin.LOCAL if local else DatasetOrigin.HUB,
        configs=tuple(config["name"] for config in (entry.get("configs") or ())[:_MOST_CONFIGS]),
        reachable=is_reachable(entry, settings),
        licence=entry.get("licence") or "",
        languages=tuple(entry.get("languages") or ())[:_MOST_LANGUAGES],
        size_bytes=smallest_size(entry),
        tasks=tuple(entry.get("tasks") or ())[:_MOST_TASKS],
        flags=(*_obstacles(entry), *unknowns(entry, filters)),
    )


def _obstacles(entry: dict[str, Any]) -> list[str]:
    """What stands in the way of loading it, one sentence each."""
    said = []
    if entry.get("gated"):
        said.append("It is gated: accept its terms on the hub and set HF_TOKEN.")
    if entry.get("script"):
        said.append("It can only be loaded by running its own script, which is not done.")
    return said


def _why(entry: dict[str, Any], asked: Sequence[str], parts: dict[str, float]) -> str:
    """The parts of the score in words: closeness, shared words, its name in the task, how much it is used."""
    said = [f"Its description and the task have a cosine of {parts.get('cosine', 0.0):.2f}"]
    own = words(f"{entry['id']} {entry['description'][:_SHOWN_CHARACTERS]}")
    shared = {word for word in own if len(word) > _SHORT}.intersection(asked)
    if shared:
        said.append(f"both say {', '.join(sorted(shared, key=lambda word: (-len(word), word))[:5])}")
    if _names(asked, words(entry["id"].rpartition("/")[2])):
        said.append("the task names it")
    if parts.get("prior", 0.0) > 0 and entry.get("downloads"):
        said.append(f"it is downloaded {entry['downloads']:,} times a month")
    if parts.get("mentions", 0.0) > 0:
        said.append("what is near the task mentions it")
    return f"{', '.join(said[:-1])}, and {said[-1]}." if len(said) > 1 else f"{said[0]}."


def _names(asked: Sequence[str], name: Sequence[str]) -> bool:
    """Whether the words of a name stand in the query one after the other; a short name stands in much by chance."""
    return sum(map(len, name)) > _SHORT and f" {' '.join(name)} " in f" {' '.join(asked)} "
