"""What a large index does otherwise: approximate neighbours, strings on disk, BM25 written in blocks."""

from __future__ import annotations

import concurrent.futures
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.kit import index
from services.kit.errors import DataLoss
from services.kit.index import folder as folders
from services.kit.index import lexical, vectors
from services.kit.index.lines import Names, write_names
from services.kit.text import words

ENTRIES, DIMENSION = 4_000, 32


def _clustered(number: int, seed: int) -> Any:
    """Vectors around some centres, as embeddings lie."""
    random, centres = np.random.default_rng(seed), np.random.default_rng(0).normal(size=(60, DIMENSION))
    found = centres[random.integers(0, len(centres), number)] + 0.6 * random.normal(size=(number, DIMENSION))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def _save(folder: Path, stored: Any, approximate: bool, **more: Any) -> index.Index:
    texts = [f"text {number}" for number in range(len(stored))]
    entries = [{"id": f"entry-{number}"} for number in range(len(stored))]
    index.save(folder, entries, texts, stored, encoder="one", approximate=approximate, **more)
    return index.Index.load(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[index.Index, index.Index]:
    """One catalogue with an exact and with an approximate index."""
    folder, stored = tmp_path_factory.mktemp("large"), _clustered(ENTRIES, 1)
    return _save(folder / "exact", stored, False), _save(folder / "approximate", stored, True)


def test_the_approximate_nearest_are_nearly_the_nearest(
    both: tuple[index.Index, index.Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the ten nearest the approximate index finds 97 % or more, with their cosines, reading a part of its lists;
    reading one list only it does not, so that the measure tells."""
    exact, approximate = both
    queries = _clustered(100, 2)

    def recall() -> float:
        pairs = [(exact.nearest(query, 10)[0], approximate.nearest(query, 10)[0]) for query in queries]
        return float(np.mean([len(np.intersect1d(right, found)) / 10 for right, found in pairs]))

    monkeypatch.setattr(vectors, "_PROBES", 24)
    assert recall() >= 0.97
    numbers, cosines = approximate.nearest(queries[0], 10)
    assert np.allclose(cosines, exact.cosines(queries[0], numbers), atol=1e-3) and (np.diff(cosines) <= 0).all()
    monkeypatch.setattr(vectors, "_PROBES", 1)
    monkeypatch.setattr(vectors, "_SPREAD", 0)
    assert recall() < 0.9


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), n=st.integers(-1, 5000), seed=st.integers(0, 9))
def test_only_what_is_allowed_is_found(both: tuple[index.Index, index.Index], share: float, n: int, seed: int) -> None:
    """Of any part of the entries, at any depth: those alone, each once, as many as there are or were asked for."""
    among = np.random.default_rng(seed).random(ENTRIES) < share
    for one in both:
        numbers, cosines = one.nearest(_clustered(1, seed)[0], n, among)
        assert among[numbers].all() and len(np.unique(numbers)) == len(numbers) == len(cosines)
        assert len(numbers) == max(0, min(n, int(among.sum())))


def test_both_kinds_answer_alike(both: tuple[index.Index, index.Index]) -> None:
    """Vectors (to 16 bits), cosines of some and of all entries (to 8), their mean and deviation are alike."""
    exact, approximate = both
    query, some = _clustered(1, 3)[0], np.asarray([7, 3999, 0])
    assert exact.manifest.approximate is False and approximate.manifest.approximate is True
    assert np.allclose(exact.vectors(some), approximate.vectors(some), atol=1e-3)
    assert np.allclose(exact.cosine(query), approximate.cosine(query), atol=5e-3)
    assert np.allclose(exact.cosines(query, some), approximate.cosines(query, some), atol=5e-3)
    everyone = exact.vectors(np.arange(ENTRIES)) @ query
    for one in both:
        assert one.moments(query) == pytest.approx((everyone.mean(), everyone.std()), abs=1e-3)


def test_many_may_ask_at_once(both: tuple[index.Index, index.Index]) -> None:
    """Eight threads get what one gets."""
    queries = _clustered(64, 4)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: both[1].nearest(query, 10)[0].tolist(), queries))
    assert together == [both[1].nearest(query, 10)[0].tolist() for query in queries]


def test_centroids_are_not_learnt_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same encoder a next version takes the centroids over; with another one it learns them anew."""
    before = _save(tmp_path / "datasets", _clustered(500, 1), True)
    trained: list[int] = []
    real = vectors._faiss().IndexIVFScalarQuantizer.train

    def train(self: Any, sample: Any) -> None:
        trained.append(len(sample))
        real(self, sample)

    monkeypatch.setattr(vectors._faiss().IndexIVFScalarQuantizer, "train", train)
    again = _save(tmp_path / "datasets", _clustered(600, 5), True, before=before)
    assert not trained and len(again.nearest(_clustered(1, 6)[0], 600)[0]) == 600
    entries = [{"id": str(number)} for number in range(600)]
    texts = [""] * 600
    index.save(tmp_path / "datasets", entries, texts, _clustered(600, 5), encoder="two", approximate=True, before=again)
    assert trained


def test_a_large_index_is_checked_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a size only the files' sizes are checked at the start, and every byte afterwards; a cut file is found at
    once."""
    opened = _save(tmp_path / "datasets", _clustered(300, 1), True)
    monkeypatch.setattr(folders, "_HASHED_BYTES", 0)
    damaged = opened.version / "texts.jsonl"
    data = damaged.read_bytes()
    damaged.write_bytes(b"x" + data[1:])
    opened = index.Index.load(tmp_path / "datasets")
    with pytest.raises(DataLoss):
        index.check(opened.version, opened.manifest, lambda: None)
    damaged.write_bytes(data[:-1])
    with pytest.raises(DataLoss):
        index.Index.load(tmp_path / "datasets")


def test_bm25_is_that_of_bm25s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written in blocks, the scores are those that bm25s computes by itself, for any words but the function words."""
    random = np.random.default_rng(0)
    vocabulary = [f"w{number}" for number in range(300)]
    texts = [
        " ".join(["the", *(vocabulary[int(rank)] for rank in random.zipf(1.5, random.integers(0, 40)) % 300), "of"])
        for _ in range(250)
    ]
    texts[17] = ""
    monkeypatch.setattr(lexical, "_BLOCK", 100)
    index.save(tmp_path / "models", [{"id": str(number)} for number in range(250)], texts)
    opened = index.Index.load(tmp_path / "models")
    own = bm25s.BM25(method="lucene", k1=lexical.K1, b=lexical.B)
    own.index([words(text) for text in texts], show_progress=False)
    for query in ("w1", "w0 w1 w1 w200", "the w3 of w299"):
        known = [word for word in lexical.terms(query) if word in own.vocab_dict]
        assert np.allclose(opened.bm25(query), own.get_scores(known), atol=1e-5) and opened.bm25(query).any()
    assert not opened.bm25("the of unknown").any()


@given(strings=st.lists(st.text(max_size=5), max_size=40), other=st.text(max_size=5))
@hypothesis_settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_are_found_both_ways(tmp_path: Path, strings: list[str], other: str) -> None:
    """Any string is found by its number and, of equal ones, one number by the string; one that is not there is not."""
    twice = write_names(tmp_path, "names", strings)
    names = Names(tmp_path, "names")
    assert list(names) == strings and (twice is not None) == (len(set(strings)) < len(strings))
    assert [strings[number] for number in names.numbers(strings)] == strings
    found = int(names.numbers([other])[0])
    assert (found == -1) == (other not in strings) and (found < 0 or strings[found] == other)


def test_names_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strings that share a hash are found by what they say."""
    monkeypatch.setattr("services.kit.index.lines._hash", lambda string: len(string))
    assert write_names(tmp_path, "names", ["ab", "c", "de"]) is None
    assert Names(tmp_path, "names").numbers(["de", "ab", "xx", "c"]).tolist() == [2, 0, -1, 1]


@given(scores=st.lists(st.integers(-2, 5), min_size=600, max_size=1200), k=st.integers(1, 4))
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.large_base_example])
def test_the_best_of_many_are_those_of_a_full_sort(scores: list[int], k: int) -> None:
    """What is left out before sorting never belongs to the best."""
    found = index.highest(np.asarray(scores, np.float32), k).tolist()
    right = sorted((number for number in range(len(scores)) if scores[number] > 0), key=lambda n: (-scores[n], n))
    assert found == right[:k]
