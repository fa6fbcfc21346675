"""Dataset retrieval on a labelled collection, through the parts that serve it.

    python -m bench.dataset_retrieval --corpus F --queries F --qrels F
                                      [--field query|keyphrase_query] [--protocol paper]

corpus   JSONL {id, title, contents, variants, year}     queries   JSONL {qid, query, keyphrase_query, year}
qrels    qid, 0, id, 1, tab-separated

The mean is over all queries; MAP and MRR are at depth 100. `--protocol paper` is the DataFinder authors' scoring: what
is newer than the query is dropped, and only five results count, in MAP and MRR too.

build_s   encoding and indexing the corpus      load_s   opening the index and starting the encoder
p50_ms    one query, encoded and ranked         rss_mb   of the serving process and its encoder together

What each part of the score adds, and how sure that is: bench/dataset_ablation.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.ranking import (
    average_precision,
    percent,
    percentile_ms,
    precision_at,
    read_jsonl,
    recall_at,
    reciprocal_rank,
    resident_mb,
)
from catalogue.dataset_cards import dataset_text
from catalogue.facts import facts
from services.dataset_retriever.ranking import WEIGHTS, Weights, query_vector, rank, without_opening
from services.kit import embed, index, worker
from services.kit.settings import Settings

DEPTH, PAPER_DEPTH = 100, 5


@dataclass(frozen=True)
class Collection:
    """The corpus as catalogue entries with their years (0: unknown), the queries, the right ids of each query."""

    entries: list[dict[str, Any]]
    years: npt.NDArray[np.int64]
    queries: list[dict[str, Any]]
    right: dict[str, set[str]]


def main() -> int:
    """Prints one JSON line."""
    arguments = files_parser("Dataset retrieval on a labelled collection; one JSON line.").parse_args()
    print(json.dumps(asyncio.run(measure(arguments))))
    return 0


def files_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that name a collection and how it is scored."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--qrels", type=Path, required=True)
    parser.add_argument("--field", choices=("query", "keyphrase_query"), default="query")
    parser.add_argument("--protocol", choices=("paper",))
    return parser


def collection(arguments: argparse.Namespace) -> Collection:
    """What the files hold."""
    corpus = read_jsonl(arguments.corpus)
    entries = [
        {
            "id": row["id"],
            "description": f"{row.get('title') or ''}\n{row.get('contents') or ''}",
            "variants": row.get("variants") or [],
        }
        for row in corpus
    ]
    years = np.asarray([row.get("year") or 0 for row in corpus], np.int64)
    return Collection(entries, years, read_jsonl(arguments.queries), _right(arguments.qrels))


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The figures, by their keys."""
    data, settings = collection(arguments), Settings()
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as folder:
        began = time.perf_counter()
        vectors = await encoded(data.entries, Path(folder), settings)
        save(Path(folder) / "index", data.entries, vectors)
        build_s = time.perf_counter() - began
        began = time.perf_counter()
        loaded = index.Index.load(Path(folder) / "index", library=settings.bm25)
        encoder = worker.Resident("services.kit.embed:Encoder", settings)
        try:
            await encoder.start()
            load_s = time.perf_counter() - began
            found, seconds = [], []
            for query in data.queries:
                began = time.perf_counter()
                vector = (await query_vectors(encoder, [query[arguments.field]]))[0]
                found.append(ids(loaded, data, query, arguments.field, vector, arguments.protocol))
                seconds.append(time.perf_counter() - began)
            assert encoder._process is not None
            rss_mb = resident_mb() + resident_mb(str(encoder._process.pid))
        finally:
            await encoder.stop()
    scores = scored(found, data)
    return {
        **{name: percent(values.tolist()) for name, values in scores.items()},
        "p50_ms": percentile_ms(seconds, 0.5),
        "p95_ms": percentile_ms(seconds, 0.95),
        "build_s": round(build_s, 2),
        "load_s": round(load_s, 2),
        "rss_mb": round(rss_mb, 1),
    }


async def encoded(entries: list[dict[str, Any]], folder: Path, settings: Settings) -> npt.NDArray[np.float32]:
    """The entries' embeddings: [entries, dimension]."""
    request = embed.TextFile(str(folder / "texts.jsonl"), str(folder / "vectors.npy"))
    lines = (json.dumps(dataset_text(entry)) + "\n" for entry in entries)
    (folder / "texts.jsonl").write_text("".join(lines))

    def report(progress: Any) -> None:
        print(f"{progress.message}: {progress.done:.0f} of {progress.total:.0f}", file=sys.stderr)

    await worker.run("services.kit.embed:encode_file", request, embed.Vectors, settings, report)
    vectors: npt.NDArray[np.float32] = np.load(request.vectors)
    return vectors


def save(folder: Path, entries: list[dict[str, Any]], vectors: npt.NDArray[np.float32]) -> None:
    """An index of the entries, as `p2m catalogue build` makes it."""
    texts = [dataset_text(entry) for entry in entries]
    index.save(folder, entries, texts, vectors, facts=facts("datasets", entries))


async def query_vectors(encoder: worker.Resident, queries: Sequence[str]) -> list[list[float]]:
    """What the service searches with for each query."""
    vectors = []
    for query in queries:
        both = (await encoder.ask(embed.Texts((query, without_opening(query))), embed.Vectors)).vectors
        vectors.append(query_vector(*both))
    return vectors


def ids(
    loaded: index.Index,
    data: Collection,
    query: dict[str, Any],
    field: str,
    vector: Sequence[float],
    protocol: str | None,
    weights: Weights = WEIGHTS,
) -> list[str]:
    """The best ids for a query; by the paper's protocol five, none newer than the query."""
    newest = query.get("year")
    among = data.years <= newest if protocol and newest else None
    depth = PAPER_DEPTH if protocol else DEPTH
    return [loaded.id(hit.number) for hit in rank(loaded, query[field], vector, depth, among, weights)]


def scored(found: Sequence[list[str]], data: Collection) -> dict[str, npt.NDArray[np.float64]]:
    """P@5, R@5, average precision and reciprocal rank of each query's list, 0 to 1."""
    pairs = [(ids, data.right.get(query["qid"], set())) for ids, query in zip(found, data.queries, strict=True)]
    return {
        "p5": np.asarray([precision_at(ids, gold, 5) for ids, gold in pairs]),
        "r5": np.asarray([recall_at(ids, gold, 5) for ids, gold in pairs]),
        "map": np.asarray([average_precision(ids, gold) for ids, gold in pairs]),
        "mrr": np.asarray([reciprocal_rank(ids, gold) for ids, gold in pairs]),
    }


def _right(path: Path) -> dict[str, set[str]]:
    right: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        qid, _, id, relevance = line.split("\t")
        if int(relevance) > 0:
            right.setdefault(qid, set()).add(id)
    return right


if __name__ == "__main__":
    sys.exit(main())
