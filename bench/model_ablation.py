"""What each part of the model search adds, by itself and last, on the same queries as bench.model_retrieval.

    python -m bench.model_ablation --catalogue F --queries F

Keys of the JSON line, each with hit1, hit5, hit20 and mrr in percent (at depth 20; no model is left out for its size):

words              BM25 alone
words_downloads    BM25 x log10(downloads + 2), prompt2model's score
with_task          words, and tasks
with_language      words, and languages
without_downloads  words, tasks and languages, whatever is used more
all                the whole score
all_log10          the whole score, with the logarithm of downloads itself in the place of its power
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.ranking import percent, read_jsonl, reciprocal_rank
from catalogue.cards import model_text
from catalogue.facts import facts
from catalogue.read import read
from services.kit import index
from services.kit.index import Scores, ranked
from services.model_retriever.relevance import Query, Relevance

DEPTH = 20


def main() -> int:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description="What each part of the model search adds; one JSON line.")
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    arguments = parser.parse_args()
    queries = [query for query in read_jsonl(arguments.queries) if query.get("gold")]
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as folder:
        entries = read([arguments.catalogue])
        texts = [model_text(entry) for entry in entries]
        index.save(Path(folder) / "models", entries, texts, facts=facts("models", entries))
        print(json.dumps(measure(index.Index.load(Path(folder) / "models"), queries)))
    return 0


def measure(opened: index.Index, queries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The figures of each way to score."""
    relevance, found = Relevance(opened), {}
    log10 = np.log10(np.asarray(opened.fact("downloads"), np.float64) + 2).astype(np.float32)
    for query in queries:
        for name, scores in _ways(relevance, Query.of(query["query"]), log10).items():
            ids = [opened.id(hit.number) for hit in ranked(scores, DEPTH)]
            found.setdefault(name, []).append((ids, set(query["gold"])))
    return {name: _figures(pairs) for name, pairs in found.items()}


def _ways(relevance: Relevance, query: Query, log10: Scores) -> dict[str, Scores]:
    scored = relevance.scores(query)
    whole = scored.score / scored.popularity
    return {
        "words": scored.bm25,
        "words_downloads": scored.bm25 * log10,
        "with_task": scored.bm25 + scored.task[scored.group],
        "with_language": scored.bm25 + scored.language[scored.group] * (whole > 0),
        "without_downloads": whole,
        "all": scored.score,
        "all_log10": whole * log10,
    }


def _figures(pairs: Sequence[tuple[list[str], set[str]]]) -> dict[str, float]:
    hits = {f"hit{k}": percent([float(bool(gold.intersection(ids[:k]))) for ids, gold in pairs]) for k in (1, 5, 20)}
    return {**hits, "mrr": percent([reciprocal_rank(ids, gold) for ids, gold in pairs])}


if __name__ == "__main__":
    sys.exit(main())
