"""Model retrieval on a catalogue, through the parts that serve it. The query stands for the hypothetical card.

    python -m bench.model_retrieval --catalogue F --queries F

catalogue   JSONL {id, description, size_bytes, downloads}      queries   JSONL {query, gold: [ids]}

A hit: one of a query's gold models is among the first 1, 5 or 20. MRR is at depth 20. No model is left out for its
size. Queries without gold models count for the latency alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from bench.ranking import percent, percentile_ms, read_jsonl, reciprocal_rank, resident_mb
from catalogue.cards import model_text
from catalogue.facts import facts
from catalogue.read import read
from services.kit import index
from services.kit.settings import Settings
from services.model_retriever.limits import Constraints
from services.model_retriever.search import Models

DEPTH = 20
_NO_LIMIT = 10**15


def main() -> int:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description="Model retrieval on a catalogue; one JSON line.")
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    print(json.dumps(measure(parser.parse_args())))
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The figures, by their keys."""
    queries = read_jsonl(arguments.queries)
    # Whether the hub may be asked is not what is measured, and no download is made.
    settings = Settings().model_copy(update={"hub_offline": False})
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as folder:
        began = time.perf_counter()
        entries = read([arguments.catalogue])
        texts = [model_text(entry) for entry in entries]
        index.save(Path(folder) / "models", entries, texts, facts=facts("models", entries))
        build_s = time.perf_counter() - began
        del entries, texts
        began = time.perf_counter()
        opened = index.Index.load(Path(folder) / "models", library=settings.bm25)
        opened.warm()  # as a service does before it serves
        models = Models(opened)
        models.search("warm", DEPTH, Constraints(_NO_LIMIT), settings)
        load_s = time.perf_counter() - began
        found, seconds = [], []
        for query in queries:
            began = time.perf_counter()
            answer = models.search(query["query"], DEPTH, Constraints(_NO_LIMIT), settings)
            seconds.append(time.perf_counter() - began)
            found.append([candidate.id for candidate in answer.candidates])
        rss_mb = resident_mb()
    pairs = [(ids, set(query["gold"])) for ids, query in zip(found, queries, strict=True) if query.get("gold")]
    return {
        **{f"hit{k}": percent([float(bool(gold.intersection(ids[:k]))) for ids, gold in pairs]) for k in (1, 5, 20)},
        "mrr": percent([reciprocal_rank(ids, gold) for ids, gold in pairs]),
        "p50_ms": percentile_ms(seconds, 0.5),
        "p95_ms": percentile_ms(seconds, 0.95),
        "build_s": round(build_s, 2),
        "load_s": round(load_s, 2),
        "rss_mb": round(rss_mb, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
