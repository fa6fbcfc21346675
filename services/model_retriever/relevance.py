"""How well each model of an index fits a query, before what may be used is asked.

    score = (BM25 + 1.5 task + language + meaning) x log10(downloads + 2) ** 0.1

BM25 x log10(downloads + 2) is prompt2model's own score (neulab/prompt2model, description_based_retriever.py). What is
beyond it, and why, as measured with bench/model_queries.jsonl (docs/decisions.md):

- task: for each task that the query asks for, the weight that BM25 gives to a word as frequent as the task, where the
  model's id, tags or data sets name it; 0.4 of that where only its card's beginning speaks of it;
- language: the same for the languages of the query; 0.4 of it for a multilingual model; a translation model that goes
  from and to the right ones gains 5 and one that goes elsewhere loses most. Where the query names none, English is
  taken for granted, for half as much, and only of models that match otherwise;
- the power 0.1: whole, the logarithm drowns the words. The most used models match most prompts a little, and so come
  first of all for what few models do.

Where the index holds embeddings (P2M_ENCODE_MODELS), the 200 best gain what their cards mean: how many deviations their
cosine with the query is above the usual. It finds what no row of the table of tasks names.

    Query.of(text, language)      what a text asks for
    Relevance(index)              the index's models; scores(query, vector) ── Scored
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from catalogue import languages, tasks
from services.kit.index import Index, Scores, ranked

_TASK, _MENTIONED = 1.5, 0.4
_MULTILINGUAL, _UNKNOWN = 0.4, 0.5
_ASSUMED = 0.5
_RIGHT_WAY, _WRONG_WAY = 5.0, 0.3
_POWER = 0.1
_MEANING, _REFINED, _SAMPLE = 1.0, 200, 1000
# A card repeats its task; so often more says no more.
_MOST_REPEATS = 3
# More of a text than this is examples.
LONGEST = 20_000

_Bits = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Query:
    """What a text asks for. `tasks`: each with the places that name it; codes are ISO 639-1."""

    text: str = ""
    tasks: Mapping[str, int] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    source: str = ""
    target: str = ""

    @classmethod
    def of(cls, text: str, language: str = "") -> Query:
        """Of an instruction or a card; `language`: what the person writes in, "" where that is not known."""
        text = text[:LONGEST]
        named = languages.named(text)
        own = [code for code in (language, languages.written(text)) if code and code != "en"]
        asked = tasks.asked(text)
        source, target = languages.direction(text) if "translation" in asked else ("", "")
        if target and not source and own and own[0] != target:
            source = own[0]
        return cls(text, asked, tuple(dict.fromkeys([*named, *own])), source, target)


@dataclass(frozen=True)
class Scored:
    """Each model's score and its parts, [entries]; of `task` and `language` the value of model n is at group[n]."""

    score: Scores
    bm25: Scores
    task: Scores
    language: Scores
    popularity: Scores
    meaning: Scores
    group: npt.NDArray[np.int32]


class Relevance:
    """The models of an index. Those with the same tasks and languages are one group: there are few, and each is scored
    once."""

    def __init__(self, index: Index) -> None:
        self._index = index
        names = [f"languages_{place}" for place in range(languages.BITS)]
        columns = [index.fact(name) for name in ("tasks", "mentioned", *names, "source", "target")]
        keys = np.zeros(len(index), np.uint64)
        for column in columns:
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.int64).view(np.uint64)
            keys ^= keys >> np.uint64(29)
        _, first, group, self._sizes = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        self._group = group.astype(np.int32).reshape(-1)
        self._tasks, self._mentioned, *sets, self._source, self._target = (column[first] for column in columns)
        self._languages: _Bits = np.stack(sets, axis=1) if len(first) else np.zeros((0, languages.BITS), np.uint64)
        self._known = self._languages.any(axis=1)
        downloads = np.asarray(index.fact("downloads"), np.float64)
        self._popularity = (np.log10(downloads + 2) ** _POWER).astype(np.float32)
        self._sample = np.linspace(0, max(0, len(index) - 1), min(_SAMPLE, len(index)), dtype=np.int64)

    def scores(self, query: Query, vector: Sequence[float] = ()) -> Scored:
        """Scores [entries]; 0 where neither a word, nor a task, nor a language matches.

        `vector`: the query's embedding; none where the index has none.
        """
        bm25 = self._index.bm25(query.text)
        task, language = self._task(query), self._language(query)
        total = bm25 + (task + language)[self._group]
        if not query.languages:
            language = self._assumed()
            total += language[self._group] * (total > 0)
        meaning = self._meaning(total * self._popularity, vector)
        score = (total + meaning) * self._popularity
        return Scored(score, bm25, task, language, self._popularity, meaning, self._group)

    def _meaning(self, scores: Scores, vector: Sequence[float]) -> Scores:
        """What the best of them gain by their cosine with the query; 0 for all others."""
        meaning = np.zeros(len(scores), np.float32)
        if not len(vector) or not self._index.manifest.dimension:
            return meaning
        best = np.asarray([hit.number for hit in ranked(scores, _REFINED)], np.int64)
        usual = self._index.cosines(vector, self._sample)
        deviation = float(usual.std()) if len(usual) else 0.0
        if len(best) and deviation:
            above = (self._index.cosines(vector, best) - usual.mean()) / deviation
            meaning[best] = _MEANING * np.maximum(above, 0)
        return meaning

    def _task(self, query: Query) -> Scores:
        score = np.zeros(len(self._sizes), np.float32)
        for name, places in query.tasks.items():
            bit = np.uint64(tasks.bits((name,)))
            strong, weak = (self._tasks & bit) > 0, (self._mentioned & bit) > 0
            weight = self._rarity(strong | weak) * float(np.sqrt(min(places, _MOST_REPEATS)))
            score += np.float32(_TASK * weight) * np.where(strong, 1.0, np.where(weak, _MENTIONED, 0.0))
        return score

    def _language(self, query: Query) -> Scores:
        score = np.zeros(len(self._sizes), np.float32)
        for code in query.languages:
            has = self._has(code)
            share = np.where(has, 1.0, np.where(self._has(languages.MULTILINGUAL), _MULTILINGUAL, 0.0))
            if code == "en":
                # Of most cards that name no language it is English.
                share = np.where(self._known, share, _UNKNOWN)
            score += np.float32(self._rarity(has)) * share
        if query.source or query.target:
            translates = self._source >= 0
            right = translates.copy()
            for asked, given in ((query.source, self._source), (query.target, self._target)):
                if asked:
                    right &= given == languages.place(asked)
            score[translates & ~right] *= _WRONG_WAY
            score[right] += _RIGHT_WAY
        return score

    def _assumed(self) -> Scores:
        english, many = self._has("en"), self._has(languages.MULTILINGUAL)
        share = np.where(english, 1.0, np.where(self._known, np.where(many, 0.5, 0.0), 0.7))
        return (_ASSUMED * self._rarity(english) * share).astype(np.float32)

    def _has(self, code: str) -> npt.NDArray[np.bool_]:
        wanted = np.asarray(languages.bits((code,)), np.uint64)
        found: npt.NDArray[np.bool_] = np.any(self._languages & wanted, axis=1)
        return found

    def _rarity(self, groups: npt.NDArray[np.bool_]) -> float:
        """The weight of a word that so many cards have, as BM25 gives it."""
        having = float(self._sizes[groups].sum())
        return float(np.log(1 + (len(self._index) - having + 0.5) / (having + 0.5)))
