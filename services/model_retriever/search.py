"""Models for a task: BM25 of a hypothetical card against the cards, times how much a model is used.

    score = BM25 * log10(downloads + 2)

as in prompt2model's own code (neulab/prompt2model, model_retriever/description_based_retriever.py). What cannot be used
is left out with its reason; where nothing that can be used matches, what is used most comes first, and says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from services.kit import locations
from services.kit.errors import InvalidArgument
from services.kit.index import Hit, Index, Scores, ranked
from services.kit.settings import Settings
from services.kit.text import words
from services.kit.values import ScorePart
from services.model_retriever.checks import MAX_SIZE_BYTES, from_folder, location_of, refusal, unknowns

DEFAULT_K, MOST_K = 10, 1000
MOST_EXCLUDED = 100
_SHOWN_CHARACTERS = 2_000
_NO_MATCH = "Nothing in its card matches the task; it is listed because little else can be used."
# Words that say nothing of why a card matches.
_COMMON = frozenset(
    words(
        """a an and any are as at based be best by can fine for from given has have in input into is it its language
        large made model models not of on one or other output pretrained small task tasks text that the their this to
        tuned two used was which with"""
    )
)
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")


@dataclass(frozen=True)
class Constraints:
    """What a model must satisfy. `max_size_bytes` 0: 3 GB; `model` "": any."""

    max_size_bytes: int = 0
    model: str = ""


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
        entries = (index.entry(number) for number in range(len(index)))
        self._downloads = np.fromiter((entry.get("downloads") or 0 for entry in entries), np.float64, len(index))

    def search(self, card: str, k: int, constraints: Constraints, settings: Settings) -> Found:
        """The `k` best models for a card; 0 is 10, at most 1,000.

        InvalidArgument for a k out of bounds, and for a `constraints.model` that is no id, hub name or folder.
        """
        if not 0 <= k <= MOST_K:
            raise InvalidArgument("BAD_K", f"k is {k}; wanted 0 to {MOST_K}.", field="k")
        if constraints.max_size_bytes < 0:
            raise InvalidArgument("BAD_SIZE", "max_size_bytes is negative.", field="constraints.max_size_bytes")
        if constraints.model:
            return self._named(constraints, card, settings)
        limit = constraints.max_size_bytes or MAX_SIZE_BYTES
        bm25 = self.index.bm25(card)
        scores = self.scored(bm25)
        candidates: list[ModelCandidate] = []
        excluded: list[ExcludedModel] = []
        notes: list[str] = []
        for hits in (ranked(scores, len(scores)), self._by_downloads(scores)):
            for hit in hits:
                entry = self.index.entry(hit.number)
                reason = refusal(entry, limit, settings)
                if not reason:
                    candidates.append(_candidate(entry, hit.score, float(bm25[hit.number]), card))
                elif len(excluded) < MOST_EXCLUDED:
                    excluded.append(ExcludedModel(entry["id"], reason))
                if len(candidates) == (k or DEFAULT_K):
                    break
            if candidates:
                break
            notes = ["No model that can be used has a card that matches the task; those used most are listed."]
        return Found(tuple(candidates), tuple(excluded), tuple(notes))

    def scored(self, bm25: Scores) -> Scores:
        """BM25 * log10(downloads + 2) of every model."""
        return (bm25 * np.log10(self._downloads + 2)).astype(np.float32)

    def _by_downloads(self, scores: Scores) -> list[Hit]:
        """Those that do not match, by their downloads."""
        rest = (scores <= 0).nonzero()[0]
        return [Hit(int(number), 0.0) for number in rest[np.argsort(-self._downloads[rest], kind="stable")]]

    def _named(self, constraints: Constraints, card: str, settings: Settings) -> Found:
        entry = self._entry(constraints.model)
        reason = refusal(entry, constraints.max_size_bytes or MAX_SIZE_BYTES, settings)
        if reason:
            return Found((), (ExcludedModel(entry["id"], reason),), (f"{entry['id']} was asked for: {reason}",))
        bm25 = 0.0
        number = self.index.number(entry["id"])
        if number is not None:
            bm25 = float(self.index.bm25(card)[number])
        candidate = _candidate(entry, bm25 * float(np.log10((entry.get("downloads") or 0) + 2)), bm25, card)
        return Found((_asked_for(candidate),), (), ())

    def _entry(self, name: str) -> dict[str, Any]:
        """The model that a person names: a catalogue's id, a folder, a location, a hub name."""
        name = name.strip()
        known = self.index.find(name.removeprefix("hub:"))
        if known is not None:
            return known
        path = Path(name.removeprefix("folder:")).expanduser()
        if path.is_dir():
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


def _candidate(entry: dict[str, Any], score: float, bm25: float, card: str) -> ModelCandidate:
    downloads = int(entry.get("downloads") or 0)
    flags = unknowns(entry)
    return ModelCandidate(
        id=entry["id"],
        description=entry["description"][:_SHOWN_CHARACTERS],
        score=score,
        parts=(ScorePart("bm25", bm25), ScorePart("downloads", downloads)),
        why=_why(entry, bm25, downloads, card),
        size_bytes=int(entry.get("size_bytes") or 0),
        downloads=downloads,
        location=location_of(entry),
        flags=flags if bm25 > 0 else (*flags, "Its card matches no word of the task."),
        architecture=entry.get("architecture") or "encoder-decoder",
        learning_rate=float(entry.get("learning_rate") or 0),
        epochs=float(entry.get("epochs") or 0),
        batch_tokens=int(entry.get("batch_tokens") or 0),
    )


def _asked_for(candidate: ModelCandidate) -> ModelCandidate:
    flags = tuple(flag for flag in candidate.flags if not flag.startswith("Its card matches"))
    return replace(candidate, why="It was asked for by name.", flags=flags)


def _tells(word: str) -> bool:
    return not word.isdigit() and (len(word) > 2 or not word.isascii())


def _why(entry: dict[str, Any], bm25: float, downloads: int, card: str) -> str:
    if bm25 <= 0:
        return _NO_MATCH
    own = set(words(f"{entry['id']} {entry['description'][:_SHOWN_CHARACTERS]}"))
    shared = [word for word in dict.fromkeys(words(card)) if word in own and word not in _COMMON and _tells(word)]
    shown = ", ".join(sorted(shared, key=len, reverse=True)[:5])
    says = f"Its card and the task both say {shown}" if shown else "Its card has common words of the task"
    return f"{says}; {downloads:,} downloads a month." if downloads else f"{says}; its downloads are not known."
