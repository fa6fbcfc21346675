"""The catalogue index: BM25 and FAISS, saved and loaded whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.kit import index
from services.kit.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound

TEXTS = ["alpha beta beta", "beta gamma", "", "日本語の文章", "delta epsilon zeta", "alpha"]


def _vectors(count: int, dimension: int = 8) -> Any:
    vectors = np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _saved(folder: Path, texts: list[str] = TEXTS) -> Path:
    entries = [{"id": f"entry-{number}", "description": text} for number, text in enumerate(texts)]
    facts = {"downloads": np.arange(len(texts), dtype=np.int64)}
    index.save(folder, entries, texts, _vectors(len(texts)), facts=facts)
    return folder


def _current(folder: Path) -> Path:
    version = index.current(folder)
    assert version
    return version


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("index") / "datasets")


@pytest.mark.parametrize("library", ["bm25s", "rank_bm25"])
def test_a_loaded_index_scores_what_shares_a_word(folder: Path, library: str) -> None:
    """Both libraries give a score to the entries with the word, and 0 to all others."""
    loaded = index.Index.load(folder, library=library)
    assert set(loaded.bm25("delta").nonzero()[0]) == {4}
    assert set(loaded.bm25("日本語").nonzero()[0]) == {3}


def test_cosine_is_the_inner_product(folder: Path) -> None:
    """FAISS gives each entry the inner product of its vector and the query's, whatever the order it finds them in."""
    loaded, vectors = index.Index.load(folder), _vectors(len(TEXTS))
    assert np.allclose(loaded.cosine(vectors[2]), vectors @ vectors[2], atol=1e-6)


def test_the_nearest_are_those_of_the_highest_cosine(folder: Path) -> None:
    """The nearest come best first with their cosines, of a mask's entries alone where there is one, however many."""
    loaded, vectors = index.Index.load(folder), _vectors(len(TEXTS))
    right = vectors @ vectors[2]
    numbers, cosines = loaded.nearest(vectors[2], 3)
    assert numbers.tolist() == np.argsort(-right)[:3].tolist() and np.allclose(cosines, right[numbers], atol=1e-6)
    among = np.asarray([True, False, False, True, True, False])
    numbers, cosines = loaded.nearest(vectors[2], 100, among)
    assert numbers.tolist() == sorted([0, 3, 4], key=lambda number: -right[number])
    assert np.allclose(loaded.cosines(vectors[2], numbers), cosines, atol=1e-6)
    assert np.allclose(loaded.vectors(numbers), vectors[numbers])
    assert loaded.nearest(vectors[2], 3, np.zeros(6, bool))[0].size == 0 == loaded.cosines(vectors[2], numbers[:0]).size


def test_facts_come_back(folder: Path) -> None:
    """What is saved as a fact of each entry is read by its name; another name is NOT_FOUND."""
    loaded = index.Index.load(folder)
    assert loaded.fact("downloads").tolist() == [0, 1, 2, 3, 4, 5] and loaded.id(4) == "entry-4"
    with pytest.raises(NotFound, match="'likes'"):
        loaded.fact("likes")


def test_entries_come_back_as_they_were(folder: Path) -> None:
    """An entry is found by its number and by its id; an unknown id is None."""
    loaded = index.Index.load(folder)
    assert loaded.entry(3) == loaded.find("entry-3") == {"id": "entry-3", "description": "日本語の文章"}
    assert loaded.find("entry-9") is None


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(query=st.text(max_size=60), k=st.integers(-3, 10_000))
def test_any_query_at_any_depth(folder: Path, query: str, k: int) -> None:
    """Any text at any depth, beyond the catalogue's size too: no crash, no duplicate, no entry with a score of 0."""
    loaded = index.Index.load(folder)
    hits = index.ranked(loaded.bm25(query), k)
    assert len({hit.number for hit in hits}) == len(hits) <= max(0, min(k, len(TEXTS)))
    assert all(hit.score > 0 for hit in hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_an_empty_catalogue_has_no_hits(tmp_path: Path) -> None:
    """An index of nothing loads, and every query finds nothing in it."""
    loaded = index.Index.load(_saved(tmp_path / "empty", []))
    assert index.ranked(loaded.bm25("alpha"), 5) == [] and loaded.cosine([0.0] * 8).size == 0


def test_entries_without_words_are_indexed(tmp_path: Path) -> None:
    """A catalogue whose texts hold no word at all is served by its vectors alone."""
    loaded = index.Index.load(_saved(tmp_path / "wordless", ["", "...", "—"]))
    assert not loaded.bm25("alpha").any() and loaded.cosine(_vectors(3)[0])[0] == pytest.approx(1)


def test_ties_keep_the_entries_order() -> None:
    """Entries with one score stand in the catalogue's order, so that a ranking is the same each time."""
    hits = index.ranked(np.asarray([1, 2, 1, 2], np.float32), 4)
    assert [hit.number for hit in hits] == [1, 3, 0, 2]


@given(scores=st.lists(st.integers(-2, 3), max_size=30), k=st.integers(-1, 12))
def test_the_best_are_those_of_a_full_sort(scores: list[int], k: int) -> None:
    """However many share a score: the same entries in the same order as sorting all of them gives."""
    hits = index.ranked(np.asarray(scores, np.float32), k)
    right = sorted((number for number in range(len(scores)) if scores[number] > 0), key=lambda n: (-scores[n], n))
    assert [hit.number for hit in hits] == right[: max(0, k)]


def test_standardised_scores_of_one_value_are_zero() -> None:
    """Where BM25 says the same of every entry it says nothing, rather than dividing by 0."""
    assert not index.standardised(np.full(4, 3, np.float32)).any()


def test_a_duplicate_id_is_refused(tmp_path: Path) -> None:
    """Two entries with one id are no catalogue."""
    with pytest.raises(InvalidArgument, match="two entries 'a'"):
        index.save(tmp_path / "twice", [{"id": "a"}, {"id": "a"}], ["", ""])


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """One changed byte in any file of the index is DATA_LOSS, never another ranking."""
    folder = _saved(tmp_path / "damaged")
    damaged = _current(folder) / "vectors.faiss"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(bytes(data))
    with pytest.raises(DataLoss, match="catalogue build"):
        index.Index.load(folder)


def test_a_missing_index_says_what_to_do(tmp_path: Path) -> None:
    """No index, and a cut manifest, each have their error."""
    with pytest.raises(NotFound, match="p2m catalogue build"):
        index.Index.load(tmp_path / "none")
    folder = _saved(tmp_path / "cut")
    (_current(folder) / "manifest.json").write_text("{")
    with pytest.raises(DataLoss):
        index.Index.load(folder)


def test_a_vector_of_another_encoder_is_refused(folder: Path) -> None:
    """A query of another dimension is an error that names both dimensions."""
    with pytest.raises(FailedPrecondition, match="384 dimensions and the index 8"):
        index.Index.load(folder).cosine([0.0] * 384)


def test_a_new_version_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """Who has the old version open goes on with it; who opens it now has the new one; only these two are left."""
    folder = _saved(tmp_path / "datasets", ["first"])
    _saved(folder)
    before, old = _current(folder), index.Index.load(folder)
    (folder / ".staging-now").mkdir()
    _saved(folder, ["omega"])
    new = index.Index.load(folder)
    assert old.entry(1)["description"] == "beta gamma" and new.bm25("omega")[0] > 0
    left = {path.name for path in folder.iterdir()}
    assert left == {".lock", ".staging-now", "current", before.name, _current(folder).name}


def test_the_same_again_is_the_same_version(tmp_path: Path) -> None:
    """What is built of the same has the same name, and heals what was damaged there."""
    version = _current(_saved(tmp_path / "datasets"))
    (version / "texts.jsonl").write_text("")
    assert _current(_saved(tmp_path / "datasets")) == version
    assert len(index.Index.load(tmp_path / "datasets").texts) == len(TEXTS)
