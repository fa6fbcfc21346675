"""Dataset retrieval on a labelled collection, through the parts that serve it.

    python -m bench.dataset_retrieval --corpus F --queries F --qrels F
                                      [--field query|keyphrase_query] [--protocol paper]

corpus   JSONL {id, title, contents, year}     queries   JSONL {qid, query, keyphrase_query, year}
qrels    qid, 0, id, 1, tab-separated

The mean is over all queries; MAP and MRR are at depth 100. `--protocol paper` is the DataFinder authors' scoring: what
is newer than the query is dropped, and only five results count, in MAP and MRR too.

build_s   encoding and indexing the corpus      load_s   opening the index and starting the encoder
p50_ms    one query, encoded and ranked         rss_mb   of the serving process and its encoder together
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

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
from services.dataset_retriever.search import fused
from services.kit import embed, index, worker
from services.kit.settings import Settings

DEPTH = 100


def main() -> int:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description="Dataset retrieval on a labelled collection; one JSON line.")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--qrels", type=Path, required=True)
    parser.add_argument("--field", choices=("query", "keyphrase_query"), default="query")
    parser.add_argument("--protocol", choices=("paper",))
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments))))
    return 0


async def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The figures, by their keys."""
    corpus, queries = read_jsonl(arguments.corpus), read_jsonl(arguments.queries)
    right = _right(arguments.qrels)
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as folder:
        began = time.perf_counter()
        await _build(corpus, Path(folder), settings)
        build_s = time.perf_counter() - began
        began = time.perf_counter()
        loaded = index.Index.load(Path(folder) / "index", library=settings.bm25)
        encoder = worker.Resident("services.kit.embed:Encoder", settings)
        try:
            await encoder.start()
            load_s = time.perf_counter() - began
            years = {entry["id"]: entry["year"] for entry in corpus} if arguments.protocol else {}
            found, seconds = [], []
            for query in queries:
                began = time.perf_counter()
                ids = await _search(loaded, encoder, query[arguments.field])
                seconds.append(time.perf_counter() - began)
                found.append(_kept(ids, query, years, arguments.protocol))
            assert encoder._process is not None
            rss_mb = resident_mb() + resident_mb(str(encoder._process.pid))
        finally:
            await encoder.stop()
    pairs = [(ids, right.get(query["qid"], set())) for ids, query in zip(found, queries, strict=True)]
    return {
        "p5": percent([precision_at(ids, gold, 5) for ids, gold in pairs]),
        "r5": percent([recall_at(ids, gold, 5) for ids, gold in pairs]),
        "map": percent([average_precision(ids, gold) for ids, gold in pairs]),
        "mrr": percent([reciprocal_rank(ids, gold) for ids, gold in pairs]),
        "p50_ms": percentile_ms(seconds, 0.5),
        "p95_ms": percentile_ms(seconds, 0.95),
        "build_s": round(build_s, 2),
        "load_s": round(load_s, 2),
        "rss_mb": round(rss_mb, 1),
    }


async def _build(corpus: list[dict[str, Any]], folder: Path, settings: Settings) -> None:
    texts = [f"{entry['id']}\n{entry.get('title') or ''}\n{entry.get('contents') or ''}" for entry in corpus]
    request = embed.TextFile(str(folder / "texts.jsonl"), str(folder / "vectors.npy"))
    (folder / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))

    def report(progress: Any) -> None:
        print(f"{progress.message}: {progress.done:.0f} of {progress.total:.0f}", file=sys.stderr)

    done = await worker.run("services.kit.embed:encode_file", request, embed.Vectors, settings, report)
    entries = [{"id": entry["id"]} for entry in corpus]
    index.save(folder / "index", entries, texts, np.load(request.vectors), encoder=done.encoder)


async def _search(loaded: index.Index, encoder: worker.Resident, text: str) -> list[str]:
    """All ids that match at all, best first: the year is filtered afterwards."""
    vector = (await encoder.ask(embed.Texts((text,)), embed.Vectors)).vectors[0]
    bm25, cosine = loaded.bm25(text), loaded.cosine(vector)
    hits = index.ranked(fused(cosine, bm25), len(loaded), (bm25 > 0) | (cosine > 0))
    return [loaded.ids[hit.number] for hit in hits]


def _kept(ids: list[str], query: dict[str, Any], years: dict[str, Any], protocol: str | None) -> list[str]:
    if protocol is None:
        return ids[:DEPTH]
    newest = query.get("year")
    return [id for id in ids if not newest or not years[id] or years[id] <= newest][:5]


def _right(path: Path) -> dict[str, set[str]]:
    right: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        qid, _, id, relevance = line.split("\t")
        if int(relevance) > 0:
            right.setdefault(qid, set()).add(id)
    return right


if __name__ == "__main__":
    sys.exit(main())
