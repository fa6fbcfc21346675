"""What each part of the dataset search adds, alone and last, with 95 % intervals.

    python -m bench.dataset_ablation --corpus F --queries F --qrels F
                                     [--field query|keyphrase_query] [--protocol paper]

The files are those of bench/dataset_retrieval.py. P2M_ENCODER names another encoder. Keys of the JSON line, each with
p5, r5, map and mrr in percent, and low and high for r5 and mrr (percentiles of 10,000 bootstrap samples of queries):

all                the whole score
only <part>        the encoder's cosine and this part alone; "only cosine": nothing else
without <part>     all but this part
strict             all, with a prior from nothing but what was there by the query's year: of each year an index of its
                   own, without variants, where only texts of a known year up to that one mention others

Parts: bm25, prior, mentions, feedback, opening ("I want to build" is cut off the query).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.dataset_retrieval import Collection, collection, encoded, files_parser, ids, query_vectors, save, scored
from bench.ranking import percent
from catalogue.dataset_cards import dataset_text
from catalogue.facts import facts, prior
from services.dataset_retriever.ranking import WEIGHTS, Weights
from services.kit import embed, index, worker
from services.kit.settings import Settings

_SAMPLES = 10_000
_NOTHING = Weights(0.0, 0.0, 0.0, 0.0)

Vectors = Sequence[Sequence[float]]
Scores = dict[str, npt.NDArray[np.float64]]


def main() -> int:
    """Prints one JSON line."""
    arguments = files_parser("What each part of the dataset search adds; one JSON line.").parse_args()
    print(json.dumps(asyncio.run(measure(arguments))))
    return 0


async def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The figures of each variant, by its name."""
    data, settings = collection(arguments), Settings()
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as name:
        folder = Path(name)
        vectors = await encoded(data.entries, folder, settings)
        save(folder / "index", data.entries, vectors)
        loaded = index.Index.load(folder / "index", library=settings.bm25)
        encoder = worker.Resident("services.kit.embed:Encoder", settings)
        try:
            texts = [query[arguments.field] for query in data.queries]
            whole = [(await encoder.ask(embed.Texts((text,)), embed.Vectors)).vectors[0] for text in texts]
            cut = await query_vectors(encoder, texts)
        finally:
            await encoder.stop()

        def run(weights: Weights, by: Vectors = cut) -> Scores:
            return _run(loaded, data, arguments, by, weights)

        found = {"all": run(WEIGHTS), "only cosine": run(_NOTHING, whole), "only opening": run(_NOTHING)}
        found["without opening"] = run(WEIGHTS, whole)
        for part, weight in asdict(WEIGHTS).items():
            found[f"only {part}"] = run(replace(_NOTHING, **{part: weight}), whole)
            found[f"without {part}"] = run(replace(WEIGHTS, **{part: 0.0}))
        found["strict"] = _strict(data, arguments, vectors, cut, folder)
    return {name: _summary(scores) for name, scores in found.items()}


def _run(
    loaded: index.Index, data: Collection, arguments: argparse.Namespace, vectors: Vectors, weights: Weights
) -> Scores:
    return scored(
        [
            ids(loaded, data, query, arguments.field, vector, arguments.protocol, weights)
            for query, vector in zip(data.queries, vectors, strict=True)
        ],
        data,
    )


def _strict(
    data: Collection, arguments: argparse.Namespace, vectors: npt.NDArray[np.float32], queries: Vectors, folder: Path
) -> Scores:
    """Each query on an index of what was there by its year."""
    found: dict[int, list[str]] = {}
    for year in {query.get("year") or 0 for query in data.queries}:
        kept = np.flatnonzero((data.years <= year) if year else data.years >= 0)
        entries: list[dict[str, Any]] = [data.entries[number] | {"variants": []} for number in kept]
        known = facts("datasets", entries)
        known["mentions"][data.years[kept] == 0] = -1
        known["prior"] = prior(entries, known["mentions"])
        at = folder / f"index-{year}"
        index.save(at, entries, [dataset_text(entry) for entry in entries], vectors[kept], facts=known)
        loaded = index.Index.load(at)
        part = replace(data, entries=entries, years=data.years[kept])
        for number, query in enumerate(data.queries):
            if (query.get("year") or 0) == year:
                found[number] = ids(loaded, part, query, arguments.field, queries[number], arguments.protocol)
    return scored([found[number] for number in range(len(data.queries))], data)


def _summary(scores: Scores) -> dict[str, float]:
    summary = {name: percent(values.tolist()) for name, values in scores.items()}
    drawn = np.random.default_rng(0).integers(0, len(scores["r5"]), (_SAMPLES, len(scores["r5"])))
    for name in ("r5", "mrr"):
        low, high = np.percentile(scores[name][drawn].mean(1), (2.5, 97.5))
        summary |= {f"{name}_low": round(100 * float(low), 2), f"{name}_high": round(100 * float(high), 2)}
    return summary


if __name__ == "__main__":
    sys.exit(main())
