"""The bench of the index's growth, at a size at which the right answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.index_scale import build, make, mixtures, recall_of, serve
from bench.scale_chart import draw
from services.kit.text import words

CARDS = ["sentiment of short reviews in English " * 20, "questions about paragraphs of Wikipedia " * 20]


def test_the_bench_measures_what_it_says(tmp_path: Path) -> None:
    """Of a small index all nearest are found, every query that fell due is timed, and nothing is left out."""
    real = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    make(tmp_path, 300, CARDS, real / np.linalg.norm(real, axis=1, keepdims=True))
    assert build(tmp_path)[1] > 0
    figures = serve(tmp_path, rate=40.0, callers=4, seconds=0.5)
    found = figures.pop("found")
    vectors, queries = np.load(tmp_path / "vectors.npy"), np.load(tmp_path / "queries.npy")
    assert recall_of(found, queries, vectors) == 100.0
    assert recall_of([[-1] * 10 for _ in found], queries, vectors) == 0.0
    assert 0 < figures["p50_ms"] <= figures["p95_ms"] and figures["rss_mb"] > 10


def test_entries_are_varied(tmp_path: Path) -> None:
    """Entries have about 60 words and are not each other's copies; vectors have length 1 and lie apart."""
    real = np.eye(16, dtype=np.float32)
    make(tmp_path, 200, CARDS, real)
    lines = (tmp_path / "entries.jsonl").read_text().splitlines()
    assert len(set(lines)) == 200 and all(55 <= len(words(line)) <= 75 for line in lines)
    vectors = mixtures(real, 200, 7)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T - 2 * np.eye(200)
    assert 0.5 < np.median(cosines.max(axis=1)) < 0.999


def test_the_chart_names_each_line() -> None:
    """Every series has a line and a name, and every size its mark."""
    keys = ("p95_ms", "p50_ms", "bm25_ms", "nearest_ms", "build_s", "load_s", "rss_mb", "disk_mb")
    svg = draw([{"entries": size} | {key: size / 1000 for key in keys} for size in (10_000, 2_000_000)])
    assert svg.count("<polyline") == len(keys) and "10 k" in svg and "2 M" in svg and "hybrid query, p95" in svg
