"""How the index grows: build, load, memory and hybrid queries over many entries, without encoding them.

    python -m bench.index_scale --entries N --cards F [F ...] [--embeddings F.npy] [--rate 20] [--callers 8]
                                [--seconds 30] [--folder DIR]

cards        JSONL {id, description}; entries are put together of them        embeddings   real ones, [any, dimension];
                                                                              without, 2,000 of the cards are encoded

An entry's text is three spans of 20 words from three cards, where one word in twenty has a number added, so that the
vocabulary grows as names do. Its vector is a mixture of three real embeddings, weighted at random (Dirichlet 1, 1,
0.5), with a random vector of 0.3 times its length added, of length 1 again. Queries are made alike, of 15 words.
Neighbours are as near as a card's own are among real cards: the tenth of two million has a cosine of 0.87, the first of
6,000 real ones 0.92, the tenth 0.74.

A query is ranked as the dataset retriever does (BM25, nearest, fusion, feedback, the 25 best). Queries fall due at the
rate, whether or not earlier ones are done, and are answered by as many threads as there are callers; a latency is from
when a query is due. Build and serving are processes of their own; the load begins with none of the files in memory.

build_s, build_peak_mb   of the index, without making the entries; memory with what is mapped
load_s, warm_s           opening; reading what every query reads from the disk
rss_mb                   of the serving process, after the queries
p50_ms, p95_ms           hybrid queries, without encoding them
encode_ms                the encoding of one query, by itself
bm25_ms, nearest_ms      medians of the parts, one query at a time
recall_at_10             of the nearest, against all vectors, in percent
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.ranking import percent, percentile_ms, read_jsonl, resident_mb
from services.dataset_retriever.ranking import rank
from services.kit import embed, index, worker
from services.kit.settings import Settings

SPANS, SPAN_WORDS, QUERY_WORDS = 3, 20, 15
VARIED = 1 / 20
NOISE = 0.3
QUERIES, DEPTH, RECALLED = 200, 25, 10
_SAMPLE, _BLOCK, _MENTIONS = 2_000, 50_000, 8

Vectors = npt.NDArray[np.float32]


def main() -> int:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description="How the index grows; one JSON line.")
    parser.add_argument("--entries", type=int, required=True)
    parser.add_argument("--cards", type=Path, nargs="+", required=True)
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--folder", type=Path, help="Where the files lie meanwhile.")
    print(json.dumps(measure(parser.parse_args())))
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """The figures, by their keys."""
    with tempfile.TemporaryDirectory(prefix="p2m-bench-", dir=arguments.folder) as name:
        folder = Path(name)
        cards = [" ".join(card["description"].split()[:300]) for path in arguments.cards for card in read_jsonl(path)]
        real, encode_ms = asyncio.run(_encoded(cards, arguments.embeddings, folder))
        _say("making the entries")
        make(folder, arguments.entries, cards, real)
        _say("building")
        build_s, build_peak_mb = _apart(build, folder)
        _say("serving")
        served = _apart(serve, folder, arguments.rate, arguments.callers, arguments.seconds)
        recall = recall_of(served.pop("found"), np.load(folder / "queries.npy"), np.load(folder / "vectors.npy", "r"))
        size = sum(path.stat().st_size for path in (folder / "index").rglob("*") if path.is_file())
    return {
        "entries": arguments.entries, "build_s": build_s, "build_peak_mb": build_peak_mb, **served,
        "encode_ms": encode_ms, "recall_at_10": recall, "disk_mb": round(size / 2**20, 1),
    }  # fmt: skip


def make(folder: Path, entries: int, cards: Sequence[str], real: Vectors) -> None:
    """Writes entries.jsonl and vectors.npy, and queries.json and queries.npy."""
    pool = " ".join(cards).split()
    with (folder / "entries.jsonl").open("w") as file:
        for start in range(0, entries, _BLOCK):
            texts = _texts(pool, min(_BLOCK, entries - start), SPANS, SPAN_WORDS, VARIED, entries, start)
            for number, text in enumerate(texts, start):
                owner, name = text.split(maxsplit=2)[:2]
                entry = {"id": f"{owner[:40]}/{name[:40]}-{number}", "description": text, "downloads": number % 997}
                file.write(json.dumps(entry) + "\n")
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (entries, real.shape[1]))
    for start in range(0, entries, _BLOCK):
        vectors[start : start + _BLOCK] = mixtures(real, min(_BLOCK, entries - start), start)
    vectors.flush()
    np.save(folder / "queries.npy", mixtures(real, QUERIES, -1))
    queries = list(_texts(pool, QUERIES, 1, QUERY_WORDS, 0.0, 1, -1))
    (folder / "queries.json").write_text(json.dumps(queries))


def mixtures(real: Vectors, number: int, seed: int) -> Vectors:
    """[number, dimension] vectors of length 1 that lie among the real ones."""
    random = np.random.default_rng(seed + 1)
    weights = random.dirichlet([1, 1, 0.5], number).astype(np.float32)
    parts = random.integers(0, len(real), (3, number))
    mixed = sum(weights[:, [one]] * real[parts[one]] for one in range(3))
    noise = random.standard_normal(mixed.shape, np.float32) * np.float32(NOISE / real.shape[1] ** 0.5)
    mixed = mixed / np.linalg.norm(mixed, axis=1, keepdims=True) + noise
    found: Vectors = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return found


def _texts(
    pool: Sequence[str], number: int, spans: int, length: int, varied: float, variants: int, seed: int
) -> Iterator[str]:
    random = np.random.default_rng(seed + 1)
    starts = random.integers(0, len(pool) - length, (number, spans)).tolist()
    places = random.integers(0, spans * length, (number, int(varied * spans * length))).tolist()
    numbers = (random.zipf(1.3, (number, int(varied * spans * length))) % variants).tolist()
    for start, place, which in zip(starts, places, numbers, strict=True):
        words = [word for one in start for word in pool[one : one + length]]
        for at, variant in zip(place, which, strict=True):
            words[at] = f"{words[at]}{variant}"
        yield " ".join(words)


def build(folder: Path) -> tuple[float, float]:
    """Builds the index; seconds, and MiB at the most."""
    began = time.perf_counter()
    vectors = np.load(folder / "vectors.npy", "r")
    random = np.random.default_rng(0)
    mentions = random.integers(0, len(vectors), (len(vectors), _MENTIONS)).astype(np.int32)
    mentions[random.random(mentions.shape) < 0.8] = -1
    facts = {"prior": random.random(len(vectors), np.float32), "mentions": mentions}
    texts = (f"{entry['id'].rpartition('/')[2]}\n{entry['description']}" for entry in _entries(folder))
    index.save(folder / "index", _entries(folder), texts, vectors, facts=facts)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return round(time.perf_counter() - began, 1), round(peak_mb, 1)


def serve(folder: Path, rate: float, callers: int, seconds: float) -> dict[str, Any]:
    """Loads the index and answers queries; the figures, and the ten nearest of each query as `found`."""
    for path in (folder / "index").rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    queries, vectors = json.loads((folder / "queries.json").read_text()), np.load(folder / "queries.npy").tolist()
    began = time.perf_counter()
    loaded = index.Index.load(folder / "index")
    load_s = time.perf_counter() - began
    loaded.warm()
    warm_s = time.perf_counter() - began - load_s
    for text, vector in zip(queries[:20], vectors[:20], strict=True):
        rank(loaded, text, vector, DEPTH)

    def query(number: int) -> None:
        rank(loaded, queries[number % QUERIES], vectors[number % QUERIES], DEPTH)

    latencies = _under_load(query, rate, callers, seconds)
    rss_mb = resident_mb()
    bm25 = [_timed(lambda text=text: loaded.bm25(text)) for text in queries]
    nearest = [_timed(lambda vector=vector: loaded.nearest(vector, RECALLED)) for vector in vectors]
    return {
        "load_s": round(load_s, 2), "warm_s": round(warm_s, 2), "rss_mb": round(rss_mb, 1),
        "p50_ms": percentile_ms(latencies, 0.5), "p95_ms": percentile_ms(latencies, 0.95),
        "bm25_ms": percentile_ms(bm25, 0.5), "nearest_ms": percentile_ms(nearest, 0.5),
        "found": [loaded.nearest(vector, RECALLED)[0].tolist() for vector in vectors],
    }  # fmt: skip


def recall_of(found: Sequence[Sequence[int]], queries: Vectors, vectors: Vectors) -> float:
    """The share, in percent, of the nearest of all vectors that were found."""
    numbers, cosines = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        block = queries @ vectors[start : start + _BLOCK].T
        cosines = np.hstack([cosines, block])
        numbers = np.hstack([numbers, np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)])
        best = np.argpartition(-cosines, RECALLED - 1, axis=1)[:, :RECALLED]
        cosines, numbers = np.take_along_axis(cosines, best, 1), np.take_along_axis(numbers, best, 1)
    return percent([len(set(one) & set(right.tolist())) / RECALLED for one, right in zip(found, numbers, strict=True)])


def _under_load(query: Any, rate: float, callers: int, seconds: float) -> list[float]:
    """Seconds from when each query was due until it was answered."""
    began, numbers, latencies = time.perf_counter() + 0.1, iter(range(int(rate * seconds))), []
    lock = threading.Lock()

    def call() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            due = began + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            query(number)
            latencies.append(time.perf_counter() - due)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


async def _encoded(cards: Sequence[str], given: Path | None, folder: Path) -> tuple[Vectors, float]:
    """Real embeddings, and the milliseconds that the encoding of one query takes."""
    settings = Settings()
    encoder = worker.Resident("services.kit.embed:Encoder", settings)
    try:
        await encoder.start()
        seconds = []
        for card in cards[:40]:
            began = time.perf_counter()
            await encoder.ask(embed.Texts((" ".join(card.split()[:QUERY_WORDS]),)), embed.Vectors)
            seconds.append(time.perf_counter() - began)
    finally:
        await encoder.stop()
    if given is not None:
        return np.load(given), percentile_ms(seconds, 0.5)
    texts = [" ".join(card.split()[: SPANS * SPAN_WORDS]) for card in cards[:: max(1, len(cards) // _SAMPLE)]]
    request = embed.TextFile(str(folder / "sample.jsonl"), str(folder / "sample.npy"))
    await asyncio.to_thread(Path(request.texts).write_text, "".join(json.dumps(text) + "\n" for text in texts))
    await worker.run("services.kit.embed:encode_file", request, embed.Vectors, settings)
    return np.load(request.vectors), percentile_ms(seconds, 0.5)


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    with (folder / "entries.jsonl").open() as file:
        yield from map(json.loads, file)


def _apart(function: Any, *arguments: Any) -> Any:
    """What the function returns, run in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _say(what: str) -> None:
    print(what, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
