"""Datasets for a task: a bi-encoder and BM25 over the descriptions, then, where asked for, the LLM's choice.

    score = z(cosine) + 0.1 z(BM25)

z: over the whole catalogue, to mean 0 and deviation 1. On DataFinder the encoder alone is far ahead of BM25, so that
plain rank fusion is worse than it; a tenth of BM25 is better than either (bench/dataset_retrieval.py).

Without an LLM the best candidate that can be had is chosen if its cosine reaches FLOOR: what fits less is another
task's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from services.kit.errors import BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable
from services.kit.index import Hit, Index, Scores, ranked, standardised
from services.kit.llm import Ask, Message, Schema, Session
from services.kit.settings import Settings
from services.kit.text import words
from services.kit.values import PromptSpec, ScorePart

BM25_WEIGHT = 0.1
DEFAULT_K, MOST_K = 25, 1000
# With MiniLM the right ones of the starter catalogue have 0.49 to 0.66 for their prompts. Of 34 other tasks' prompts 31
# find nothing above 0.46; what is nearer ("extract the invoice number" to the amounts, 0.52) only a reader tells apart.
FLOOR = 0.46
NONE_FITS = "None of these fit"

_SHOWN_CHARACTERS = 2_000
_OFFERED, _OFFERED_CHARACTERS = 25, 300


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


@dataclass(frozen=True)
class Choice:
    """The id of the chosen dataset, "" where none fits; sentences for a person."""

    chosen: str = ""
    notes: tuple[str, ...] = field(default=())


def query_of(spec: PromptSpec) -> str:
    """What is searched with: the instruction, in English and as it was written, since a translation by a small LLM may
    have lost its meaning; without one, the first demonstration. InvalidArgument where nothing is."""
    both = f"{spec.instruction}\n{spec.original_instruction}".strip()
    for text in (both, *(one.input for one in spec.demonstrations)):
        if text.strip():
            return text
    raise InvalidArgument("EMPTY_SPEC", "spec holds neither an instruction nor a demonstration.", field="spec")


def search(index: Index, query: str, vector: Sequence[float], k: int, settings: Settings) -> list[DatasetCandidate]:
    """The `k` best datasets for a query and its embedding; 0 is 25, at most 1,000. InvalidArgument for another k."""
    if not 0 <= k <= MOST_K:
        raise InvalidArgument("BAD_K", f"k is {k}; wanted 0 to {MOST_K}.", field="k")
    bm25, cosine = index.bm25(query), index.cosine(vector)
    hits = ranked(fused(cosine, bm25), k or DEFAULT_K, (bm25 > 0) | (cosine > 0))
    return [
        _candidate(index.entry(hit.number), hit, query, float(cosine[hit.number]), float(bm25[hit.number]), settings)
        for hit in hits
    ]


def fused(cosine: Scores, bm25: Scores) -> Scores:
    """The score of every entry."""
    scores: Scores = standardised(cosine) + BM25_WEIGHT * standardised(bm25)
    return scores


def choose(candidates: Sequence[DatasetCandidate]) -> Choice:
    """The choice without an LLM: the best that can be had, where it fits well enough."""
    best = next((candidate for candidate in candidates if candidate.reachable), None)
    if best is None:
        return Choice("", ("No dataset that was found can be loaded from here.",) if candidates else ())
    if _part(best, "cosine") < FLOOR:
        return Choice("", (f"The best dataset that can be loaded, {best.id}, does not fit well enough.",))
    return Choice(best.id)


async def rerank(candidates: Sequence[DatasetCandidate], spec: PromptSpec, session: Session) -> Choice:
    """The LLM's choice among the candidates that can be loaded; `choose` where it has no usable answer.

    "None of these fit" is offered first, so that an LLM that does not read has chosen nothing.
    """
    offered = [candidate for candidate in candidates if candidate.reachable][:_OFFERED]
    if not offered:
        return choose(candidates)
    schema = Schema(
        "dataset_choice",
        {
            "type": "object",
            "properties": {"dataset": {"enum": [NONE_FITS, *(one.id for one in offered)]}, "why": {"type": "string"}},
            "required": ["dataset", "why"],
            "additionalProperties": False,
        },
    )
    try:
        value = await session.ask(Ask("dataset_choice", _messages(offered, spec), schema, 0.0, 200))
    except (BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable) as error:
        fallback = choose(candidates)
        return Choice(fallback.chosen, (f"The datasets were not reranked: {error.message}", *fallback.notes))
    chosen = "" if value["dataset"] == NONE_FITS else value["dataset"]
    reason = " ".join(value["why"].split())[:300]
    return Choice(chosen, (f"The LLM chose {chosen or 'none of the datasets'}: {reason}",) if reason else ())


def location_of(entry: dict[str, Any]) -> str:
    """Where a dataset's rows are: "folder:<path>" or "hub:<name>"."""
    return entry.get("location") or f"hub:{entry['id']}"


def is_reachable(entry: dict[str, Any], settings: Settings) -> bool:
    """Whether it can be loaded from here now; the hub is not asked."""
    location = location_of(entry)
    if location.startswith("folder:"):
        return Path(location.removeprefix("folder:")).is_dir()
    return not settings.hub_offline


def _candidate(
    entry: dict[str, Any], hit: Hit, query: str, cosine: float, bm25: float, settings: Settings
) -> DatasetCandidate:
    local = location_of(entry).startswith("folder:")
    return DatasetCandidate(
        id=entry["id"],
        description=entry["description"][:_SHOWN_CHARACTERS],
        score=hit.score,
        parts=(ScorePart("cosine", cosine), ScorePart("bm25", bm25)),
        why=_why(entry, query, cosine),
        origin=DatasetOrigin.LOCAL if local else DatasetOrigin.HUB,
        configs=tuple(config["name"] for config in entry.get("configs") or ()),
        reachable=is_reachable(entry, settings),
    )


def _why(entry: dict[str, Any], query: str, cosine: float) -> str:
    own = set(words(f"{entry['id']} {entry['description']}"))
    shared = [word for word in dict.fromkeys(words(query)) if len(word) > 3 and word in own]
    shown = ", ".join(sorted(shared, key=len, reverse=True)[:5])
    closeness = f"Its description and the task have a cosine of {cosine:.2f}"
    return f"{closeness}, and both say {shown}." if shown else f"{closeness}."


def _part(candidate: DatasetCandidate, name: str) -> float:
    return next((part.value for part in candidate.parts if part.name == name), 0.0)


def _messages(offered: Sequence[DatasetCandidate], spec: PromptSpec) -> tuple[Message, ...]:
    listed = "\n".join(f"- {one.id}: {' '.join(one.description.split())[:_OFFERED_CHARACTERS]}" for one in offered)
    examples = "\n".join(f"Input: {one.input[:300]}\nOutput: {one.output[:300]}" for one in spec.demonstrations[:3])
    system = (
        "You choose training data. Given a task and a list of datasets, name the one dataset whose rows, used as they "
        "are, would teach the task: same kind of input, same kind of output. Where there is none, answer "
        f'"{NONE_FITS}": data for another task does harm.'
    )
    content = f"Task:\n{query_of(spec)[:2000]}\n\n{examples}\n\nDatasets:\n{listed}"
    return (Message(role="system", content=system), Message(role="user", content=content))
