"""Which datasets a search may give: language, licence, size, task, gated, has a split to train on.

    check      refuses filters that cannot be
    allowed    the entries that may be given, as a mask over the whole index, and how many may not, for which reason
    refusal    why one entry may not; "" where it may
    unknowns   what the catalogue does not say of an entry that a filter asks for

What is not known of an entry speaks neither for it nor against it: it is kept, and flagged. The mask comes from the
index's facts (catalogue/facts.py), so that half a million entries are filtered without reading one of them: of each
distinct licence, list of languages and list of tasks one entry is read, once for as long as the index is open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from catalogue import languages
from catalogue.facts import NO, UNKNOWN, YES, has_train_split, smallest_size
from services.kit import licences
from services.kit.errors import InvalidArgument
from services.kit.index import Index

Mask: TypeAlias = npt.NDArray[np.bool_]
Verdicts: TypeAlias = npt.NDArray[np.int8]

MOST_LANGUAGES = 32
_TASK = re.compile(r"[a-z0-9]+(-[a-z0-9]+){0,9}")
_TASKS_NAMED = 12
_MASKS_KEPT = 16


@dataclass(frozen=True)
class Filters:
    """What a dataset must satisfy, with the fields of the proto's message."""

    languages: tuple[str, ...] = ()
    licence: str = ""
    max_size_bytes: int = 0
    task: str = ""
    include_gated: bool = False
    needs_train_split: bool = False


@dataclass(frozen=True)
class Allowed:
    """The entries that may be given. `mask` [entries] is None where all may."""

    mask: Mask | None = None
    left_out: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Criterion:
    """One filter that was asked for: what it reads of an entry, and its words."""

    fact: str
    value: Callable[[Mapping[str, Any]], Any]
    verdict: Callable[[Any], bool | None]
    counted: str
    """After a number: "whose licence is not permissive"."""
    reason: Callable[[Any], str]
    unknown: str = ""
    limit: int = 0
    """Of a number: the most that is allowed."""


def check(filters: Filters) -> Filters:
    """The filters in lower case, languages as codes; InvalidArgument for what is no size, language, licence or task."""
    if filters.max_size_bytes < 0:
        raise InvalidArgument(
            "BAD_SIZE", f"max_size_bytes is {filters.max_size_bytes}; wanted 0 (any) or more.",
            field="filters.max_size_bytes",
        )  # fmt: skip
    if len(filters.languages) > MOST_LANGUAGES:
        raise InvalidArgument(
            "BAD_LANGUAGES", f"{len(filters.languages)} languages are given; wanted at most {MOST_LANGUAGES}.",
            field="filters.languages",
        )  # fmt: skip
    wanted: list[str] = []
    for language in filters.languages:
        if not (codes := languages.known((language,))):
            raise InvalidArgument(
                "BAD_LANGUAGES", f"{language[:40]!r} is no language; wanted an ISO 639-1 code such as en or ja.",
                field="filters.languages",
            )  # fmt: skip
        wanted += codes
    task = filters.task.strip().lower()
    if task and not _TASK.fullmatch(task):
        raise InvalidArgument(
            "BAD_TASK", f"task is {task[:80]!r}; wanted a task's name on the hub, such as text-classification.",
            field="filters.task",
        )  # fmt: skip
    licence = filters.licence.strip().lower()
    if filters.licence:
        licences.check_wanted(licence, "filters.licence")
    spoken = tuple(dict.fromkeys(wanted))
    return Filters(spoken, licence, filters.max_size_bytes, task, filters.include_gated, filters.needs_train_split)


def allowed(index: Index, filters: Filters) -> Allowed:
    """The mask of the filters over an index, and sentences on what they leave out. `filters` has passed `check`.

    It is kept for as long as the index is open, for the filters that were asked for last.
    """
    return _facets(index).allowed(filters)


def _allowed(facets: _Facets, count: int, filters: Filters) -> Allowed:
    refused = np.zeros(count, np.bool_)
    counts = []
    for criterion in _criteria(filters):
        no = (facets.verdicts(criterion) == NO) & ~refused
        if found := int(no.sum()):
            counts.append(f"{found:,} {criterion.counted}")
            refused |= no
    if not counts:
        return Allowed()
    left_out = int(refused.sum())
    notes = [f"Left out {left_out:,} of {_datasets(count)}: {', '.join(counts)}."]
    if filters.task and left_out == count:
        notes.append(f"The tasks that the catalogue names: {', '.join(facets.tasks()[:_TASKS_NAMED]) or 'none'}.")
    return Allowed(~refused, left_out, tuple(notes))


def refusal(entry: Mapping[str, Any], filters: Filters) -> str:
    """Why the entry is left out, one sentence; "" where it is not."""
    for criterion in _criteria(filters):
        value = criterion.value(entry)
        if criterion.verdict(value) is False:
            return criterion.reason(value)
    return ""


def unknowns(entry: Mapping[str, Any], filters: Filters) -> tuple[str, ...]:
    """What a filter asks for and the catalogue does not say of this entry, one sentence each."""
    return tuple(
        criterion.unknown
        for criterion in _criteria(filters)
        if criterion.unknown and criterion.verdict(criterion.value(entry)) is None
    )


# -- the criteria, from the one that says most of an entry to the one that says least


@lru_cache(maxsize=64)
def _criteria(filters: Filters) -> tuple[_Criterion, ...]:
    return tuple(_made(filters))


def _made(filters: Filters) -> Iterator[_Criterion]:
    if not filters.include_gated:
        yield _Criterion(
            "gated",
            lambda entry: entry.get("gated"),
            lambda gated: None if gated is None else not gated,
            "gated",
            lambda _: "It is gated: its owner must first grant access to it on the hub.",
        )
    if filters.task:
        yield _Criterion(
            "tasks",
            lambda entry: entry.get("tasks"),
            lambda tasks: filters.task in tasks if tasks else None,
            f"for other tasks than {filters.task}",
            lambda tasks: f"It is for {_listed(tasks, 'and')}; wanted {filters.task}.",
            "Its tasks are not known.",
        )
    if filters.languages:
        wanted = _listed(filters.languages, "or")
        yield _Criterion(
            "languages",
            lambda entry: entry.get("languages"),
            lambda spoken: _speaks(spoken, filters.languages),
            f"not in {wanted}",
            lambda spoken: f"Its languages are {_listed(spoken, 'and')}; wanted {wanted}.",
            f"Whether it has {wanted} is not known.",
        )
    if filters.licence:
        word = filters.licence if filters.licence in ("permissive", "commercial") else f"licensed {filters.licence}"
        yield _Criterion(
            "licence",
            lambda entry: entry.get("licence"),
            lambda licence: licences.allows(licence or "", filters.licence),
            f"not {word}",
            lambda licence: f"Its licence is {licence}; wanted {filters.licence}.",
            f"Whether its licence is {filters.licence} is not known.",
        )
    if filters.max_size_bytes:
        yield _Criterion(
            "size_bytes",
            smallest_size,
            lambda size: size <= filters.max_size_bytes if size else None,
            f"of more than {_size(filters.max_size_bytes)}",
            lambda size: f"It takes {_size(size)}; the limit is {_size(filters.max_size_bytes)}.",
            "Its size is not known.",
            filters.max_size_bytes,
        )
    if filters.needs_train_split:
        yield _Criterion(
            "train",
            has_train_split,
            lambda train: train,
            "without a split to train on",
            lambda _: "It has no split to train on.",
        )


def _speaks(spoken: Any, wanted: tuple[str, ...]) -> bool | None:
    """Whether one of the wanted languages is among an entry's, regions aside; None where that cannot be told."""
    own = languages.known(spoken or ())
    if set(own).intersection(wanted):
        return True
    return None if not own or languages.MULTILINGUAL in own else False


# -- the index's facts


class _Facets:
    """One index's facts, and the distinct values behind their codes."""

    def __init__(self, index: Index) -> None:
        self._count = len(index)
        self._fact = index.fact
        self._entry = index.entry
        self._values: dict[str, tuple[list[Any], npt.NDArray[np.int32]]] = {}
        self._allowed: dict[Filters, Allowed] = {}

    def allowed(self, filters: Filters) -> Allowed:
        """What `filters` allow; the newest few are kept."""
        known = self._allowed.get(filters)
        if known is None:
            known = _allowed(self, self._count, filters)
            # A new dict, since searches run in threads of their own.
            self._allowed = dict([*list(self._allowed.items())[1 - _MASKS_KEPT :], (filters, known)])
        return known

    def verdicts(self, criterion: _Criterion) -> Verdicts:
        """YES, NO or UNKNOWN [entries]."""
        if criterion.limit:
            sizes = self._fact(criterion.fact)
            marks: Verdicts = np.where(sizes == 0, UNKNOWN, np.where(sizes > criterion.limit, NO, YES)).astype(np.int8)
            return marks
        if criterion.fact in ("gated", "train"):
            table = [_mark(criterion.verdict(value)) for value in (None, False, True)]
            looked_up: Verdicts = np.asarray(table, np.int8)[self._fact(criterion.fact)]
            return looked_up
        values, which = self._distinct(criterion)
        known: Verdicts = np.asarray([_mark(criterion.verdict(value)) for value in values], np.int8)[which]
        return known

    def tasks(self) -> list[str]:
        """All tasks that entries name, the most frequent first."""
        values, which = self._values["tasks"]
        counts = np.bincount(which, minlength=len(values))
        total: dict[str, int] = {}
        for value, count in zip(values, counts, strict=True):
            for task in value or ():
                total[task] = total.get(task, 0) + int(count)
        return sorted(total, key=lambda task: (-total[task], task))

    def _distinct(self, criterion: _Criterion) -> tuple[list[Any], npt.NDArray[np.int32]]:
        """The distinct values of a fact, and for each entry which of them it has."""
        if criterion.fact not in self._values:
            codes = self._fact(criterion.fact)
            _, first, which = np.unique(codes, return_index=True, return_inverse=True)
            values = [criterion.value(self._entry(int(number))) for number in first]
            self._values[criterion.fact] = values, which.reshape(-1).astype(np.int32)
        return self._values[criterion.fact]


_known: WeakKeyDictionary[Index, _Facets] = WeakKeyDictionary()


def _facets(index: Index) -> _Facets:
    if index not in _known:
        _known[index] = _Facets(index)
    return _known[index]


def _mark(verdict: bool | None) -> int:
    return UNKNOWN if verdict is None else YES if verdict else NO


def _listed(words: Any, last: str) -> str:
    shown = [str(word) for word in list(words or ())[:8]]
    more = "" if len(words or ()) <= 8 else " and more"
    return (f"{', '.join(shown[:-1])} {last} {shown[-1]}" if len(shown) > 1 and not more else ", ".join(shown)) + more


def _datasets(count: int) -> str:
    return f"{count:,} dataset{'' if count == 1 else 's'}"


def _size(size_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes} B"
