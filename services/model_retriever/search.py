"""Models for a task: how well their cards fit a query (relevance.py), of those that satisfy the limits (limits.py).

What cannot be used is left out with its reason; where nothing that can be used matches, what is used most comes first,
and says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalogue import languages
from services.kit import locations
from services.kit.errors import InvalidArgument
from services.kit.index import Hit, Index, Scores, ranked
from services.kit.settings import Settings
from services.kit.text import words
from services.kit.values import ScorePart
from services.model_retriever.folders import from_folder
from services.model_retriever.latency import cpu_latency_ms
from services.model_retriever.limits import Constraints, Facts, Limits, architecture_of, checked, location_of
from services.model_retriever.relevance import Query, Relevance, Scored

DEFAULT_K, MOST_K = 10, 1000
MOST_EXCLUDED = 100
_SHOWN_CHARACTERS = 2_000
_SHOWN_WORDS, _SOUGHT_WORDS = 5, 40
_NO_MATCH = "Nothing in its card matches the task; it is listed because little else can be used."
_NO_WORD = "Its card matches no word of the task."
_BY_NAME = "It is taken only where it is asked for by name (--model)."
_LITTLE_LEFT = "No model that can be used has a card that matches the task; those used most are listed."
# Words that say nothing of why a card matches.
_COMMON = frozenset(
    words(
        """a an and any are as at based be best by can fine for from given has have in input into is it its language
        large made model models not of on one or other output pretrained small task tasks text that the their this to
        tuned two used was which with"""
    )
)
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ModelCandidate:
    """One model, with the fields of the proto's message."""

    id: str = ""
    description: str = ""
    score: float = 0.0
    parts: tuple[ScorePart, ...] = ()
    why: str = ""
    size_bytes: int = 0
    downloads: int = 0
    location: str = ""
    flags: tuple[str, ...] = ()
    architecture: str = ""
    learning_rate: float = 0.0
    epochs: float = 0.0
    batch_tokens: int = 0
    cpu_latency_ms: float = 0.0
    licence: str = ""
    languages: tuple[str, ...] = ()
    parameters: int = 0


@dataclass(frozen=True)
class ExcludedModel:
    """One model that was left out, and why."""

    id: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """The ranked models, those left out, and sentences for a person."""

    candidates: tuple[ModelCandidate, ...] = ()
    excluded: tuple[ExcludedModel, ...] = ()
    notes: tuple[str, ...] = ()


class Models:
    """The catalogue's models, ready to be searched."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.relevance = Relevance(index)
        self._facts = Facts(index)
        self._downloads = index.fact("downloads")

    def search(
        self,
        card: str,
        k: int,
        constraints: Constraints,
        settings: Settings,
        language: str = "",
        vector: Sequence[float] = (),
    ) -> Found:
        """The `k` best models for a card or an instruction; 0 is 10, at most 1,000.

        `language`: the ISO 639-1 code of what the person writes in, "" where it is not known; `vector`: the card's
        embedding, for an index that has some. InvalidArgument for a k out of bounds, for a constraint that is none, and
        for a `constraints.model` that is no id, hub name or folder.
        """
        check_k(k)
        limits = Limits(self._facts, constraints := checked(constraints), settings)
        query = Query.of(card, language)
        if constraints.model:
            return self._named(constraints.model, limits, query)
        scored = self.relevance.scores(query, vector)
        allowed, wanted = limits.allowed(), k or DEFAULT_K
        found, lost = self._best(scored.score, scored.score > 0, allowed, wanted, limits, settings)
        notes = []
        if not found:
            found, more = self._best(self._used(), scored.score <= 0, allowed, wanted, limits, settings)
            found, lost = [Hit(hit.number, 0.0) for hit in found], [*lost, *more]
            notes = [_LITTLE_LEFT] if found else []
        if not found and (slow := limits.too_fast()):
            notes.append(slow)
        telling = _Telling(query)
        candidates = [
            self._candidate(hit.number, self.index.entry(hit.number), scored, telling, limits) for hit in found
        ]
        excluded = [self._excluded(number, limits) for number in lost[:MOST_EXCLUDED]]
        return Found(tuple(candidates), tuple(excluded), tuple(notes))

    def _best(
        self, scores: Scores, matches: _Mask, allowed: _Mask, k: int, limits: Limits, settings: Settings
    ) -> tuple[list[Hit], list[int]]:
        """The `k` best that match and can be used, and the numbers of those that would have been among them."""
        found, lost = [], []
        for hit in _best_first(scores, matches & allowed, k):
            # Whether a folder is there, or a download is whole, is looked at only where it matters.
            if (settings.hub_offline or self._facts.located[hit.number]) and not locations.reachable(
                location_of(self.index.entry(hit.number)), settings
            ):
                lost.append(hit)
                continue
            found.append(hit)
            if len(found) == k:
                break
        worst = found[-1].score if len(found) == k else -np.inf
        lost += ranked(scores, MOST_EXCLUDED, matches & ~allowed & (scores >= worst))
        return found, [hit.number for hit in sorted(lost, key=lambda hit: -hit.score)]

    def _used(self) -> Scores:
        """How much each model is used, for where nothing else is to rank by."""
        return np.asarray(self._downloads, np.float32)

    def _named(self, name: str, limits: Limits, query: Query) -> Found:
        entry = self._entry(name)
        number = self.index.number(entry["id"])
        reason = limits.refusal(number, entry)
        if reason:
            return Found((), (ExcludedModel(entry["id"], reason),), (f"{entry['id']} was asked for: {reason}",))
        scored = None if number is None else self.relevance.scores(query)
        candidate = self._candidate(number, entry, scored, _Telling(query), limits)
        flags = tuple(flag for flag in candidate.flags if flag != _NO_WORD)
        return Found((replace(candidate, why="It was asked for by name.", flags=flags),))

    def _entry(self, name: str) -> dict[str, Any]:
        """The model that a person names: a catalogue's id, a folder, a location, a hub name."""
        name = name.strip()
        known = self.index.find(name.removeprefix("hub:"))
        if known is not None:
            return known
        path = Path(os.path.expanduser(name.removeprefix("folder:")))
        if os.path.isdir(path):  # False of a name that is too long, or has a NUL in it
            return from_folder(path.resolve())
        if name.startswith(("folder:", "package:")):
            locations.split(name)
            return {"id": name, "description": "", "location": name}
        if _HUB_NAME.fullmatch(name.removeprefix("hub:")):
            name = name.removeprefix("hub:")
            return {"id": name, "description": f"{name}, which the catalogue does not know.", "location": f"hub:{name}"}
        raise InvalidArgument(
            "BAD_MODEL", f"{name[:120]!r} is no model: wanted a catalogue's id, a hub name or a folder that exists.",
            field="constraints.model",
        )  # fmt: skip

    def _candidate(
        self, number: int | None, entry: Mapping[str, Any], scored: Scored | None, telling: _Telling, limits: Limits
    ) -> ModelCandidate:
        downloads = int(entry.get("downloads") or 0)
        flags, score = limits.flags(number, entry), 0.0
        parts: tuple[ScorePart, ...] = ()
        spoken = self._spoken(number)
        parameters = int(entry.get("parameters") or (entry.get("size_bytes") or 0) // 4)
        if number is not None and scored is not None:
            score, parts = float(scored.score[number]), _parts(scored, number, downloads)
            flags = flags if score > 0 else (*flags, _NO_WORD)
        return ModelCandidate(
            id=entry["id"],
            description=entry["description"][:_SHOWN_CHARACTERS],
            score=score,
            parts=parts,
            why=telling.why(entry, downloads, spoken) if score > 0 else _NO_MATCH,
            size_bytes=int(entry.get("size_bytes") or 0),
            downloads=downloads,
            location=location_of(entry),
            flags=flags,
            architecture=architecture_of(entry) or "encoder-decoder",
            learning_rate=float(entry.get("learning_rate") or 0),
            epochs=float(entry.get("epochs") or 0),
            batch_tokens=int(entry.get("batch_tokens") or 0),
            cpu_latency_ms=round(float(cpu_latency_ms(parameters)), 1),
            licence="" if number is None else self._facts.licence(number),
            languages=spoken,
            parameters=parameters,
        )

    def _spoken(self, number: int | None) -> tuple[str, ...]:
        return () if number is None else self._facts.languages(number)

    def _excluded(self, number: int, limits: Limits) -> ExcludedModel:
        entry = self.index.entry(number)
        return ExcludedModel(entry["id"], limits.refusal(number, entry) or _BY_NAME)


def check_k(k: int) -> None:
    """Returns where `k` is a number of models; else InvalidArgument."""
    if not 0 <= k <= MOST_K:
        raise InvalidArgument("BAD_K", f"k is {k}; wanted 0 to {MOST_K}.", field="k")


class _Telling:
    """Says why a card matches, for many cards and one query."""

    def __init__(self, query: Query) -> None:
        self._query = query
        own = {word for word in words(query.text) if word not in _COMMON and _tells(word)}
        self._words = sorted(own, key=lambda word: (-len(word), word))[:_SOUGHT_WORDS]

    def why(self, entry: Mapping[str, Any], downloads: int, spoken: Sequence[str]) -> str:
        """One sentence."""
        shown = f"{entry['id']} {entry['description'][:_SHOWN_CHARACTERS]}".lower()
        shared = list(islice((word for word in self._words if _holds(shown, word)), _SHOWN_WORDS))
        what = [f"its card and the task both say {', '.join(shared)}"] if shared else []
        named = [code for code in self._query.languages if code in spoken]
        if named:
            what.append(f"it is for {' and '.join(languages.NAMES[code] for code in named[:3])}")
        elif self._query.languages and languages.MULTILINGUAL in spoken:
            what.append("it is multilingual")
        why = "; ".join(what) or "its card is of the same task"
        used = f"{downloads:,} downloads a month" if downloads else "its downloads are not known"
        return f"{why[0].upper()}{why[1:]}; {used}."


def _holds(text: str, word: str) -> bool:
    """Whether a word stands in a text; one of a script without spaces may stand inside of a longer run."""
    start = text.find(word)
    while start >= 0:
        end = start + len(word)
        if not word.isascii() or not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
            return True
        start = text.find(word, end)
    return False


def _parts(scored: Scored, number: int, downloads: int) -> tuple[ScorePart, ...]:
    group = int(scored.group[number])
    return (
        ScorePart("bm25", float(scored.bm25[number])),
        ScorePart("task", float(scored.task[group])),
        ScorePart("language", float(scored.language[group])),
        *([ScorePart("meaning", float(scored.meaning[number]))] if scored.meaning[number] else []),
        ScorePart("popularity", float(scored.popularity[number])),
        ScorePart("downloads", downloads),
    )


def _best_first(scores: Scores, matches: _Mask, k: int) -> Iterator[Hit]:
    """Those that match, best first; few are sorted as long as few are taken."""
    first = ranked(scores, 2 * k, matches)
    yield from first
    if len(first) == 2 * k:
        yield from ranked(scores, len(scores), matches)[2 * k :]


def _tells(word: str) -> bool:
    return not word.isdigit() and (len(word) > 2 or not word.isascii())
