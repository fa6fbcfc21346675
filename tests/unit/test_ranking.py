"""The score of the dataset search, on small catalogues made for one effect each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalogue.facts import facts
from catalogue.mentions import MOST, counts, mentions
from services.dataset_retriever.ranking import WEIGHTS, Weights, query_vector, rank, without_opening
from services.kit.index import Index, save

NEAR, FAR = (1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0)


def _index(folder: Path, entries: list[dict[str, object]], vectors: list[tuple[float, ...]]) -> Index:
    whole = [{"description": ""} | entry for entry in entries]
    unit = np.asarray(vectors, np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    texts = [f"{entry['id']} {entry['description']}" for entry in whole]
    save(folder / "datasets", whole, texts, unit, facts=facts("datasets", whole))
    return Index.load(folder / "datasets")


def _ids(index: Index, *, among: list[bool] | None = None, k: int = 5, weights: Weights = WEIGHTS) -> list[str]:
    mask = None if among is None else np.asarray(among)
    return [index.id(hit.number) for hit in rank(index, "nothing", NEAR, k, mask, weights)]


def _crowd(number: int) -> list[tuple[float, ...]]:
    """Vectors that are far from NEAR, each a little different."""
    return [(0.01, 1.0, 0.001 * one, 0.5) for one in range(number)]


# -- mentions


@pytest.mark.parametrize(
    ("name", "text", "mentioned"),
    [
        ("squad", "questions as in SQuAD, but harder", True),
        ("squad", "a squad of soldiers", False),
        ("squad", "The Squad of soldiers", False),
        ("natural_questions", "built on Natural Questions", True),
        ("natural_questions", "it has natural questions", False),
        ("CIFAR-10", "like CIFAR10, CIFAR 10 or CIFAR-10", True),
        ("CIFAR-10", "the CIFAR sets", False),
        ("emotion", "every emotion counts", False),
        ("Reddit", "posts of Reddit", True),
        ("Reddit", "posts of reddit", False),
        ("IS-A", "this is a text", False),
        ("ab", "AB", False),
        ("imdb", "reviews from IMDB", True),
    ],
)
def test_a_name_counts_where_it_stands_as_a_name(name: str, text: str, mentioned: bool) -> None:
    """Not every word that is some dataset's name is a mention of it."""
    found = mentions([name, "other"], [name, text])
    assert (0 in found[1]) is mentioned


def test_the_longest_name_counts_and_never_ones_own() -> None:
    """Of names that overlap the longest is meant; what a text says of itself is no mention."""
    names = ["PASCAL VOC", "PASCAL VOC 2007", "third"]
    found = mentions(names, ["PASCAL VOC here", "PASCAL VOC 2007 here", "on PASCAL VOC 2007 and PASCAL VOC"])
    assert found[0].tolist() == found[1].tolist() == [-1] * MOST
    assert found[2][:3].tolist() == [1, 0, -1]
    assert counts(found, 3).tolist() == [1, 1, 0]


def test_a_text_that_lists_everything_says_no_more_than_another() -> None:
    """Of one text at most eight mentions count."""
    names = [f"Set{number}X" for number in range(30)]
    found = mentions([*names, "list"], ["", *[""] * 29, " ".join(names)])
    assert (found[30] >= 0).sum() == MOST


# -- the score


def test_of_two_that_are_as_close_the_one_that_others_mention_is_first(tmp_path: Path) -> None:
    """The prior decides between equals."""
    entries = [{"id": "Aaa1"}, {"id": "Bbb1"}, {"id": "c", "description": "Made from Bbb1."}, {"id": "d"}]
    index = _index(tmp_path, entries, [NEAR, NEAR, FAR, FAR])
    assert _ids(index, k=2) == ["Bbb1", "Aaa1"]
    assert _ids(index, k=2, weights=Weights(prior=0)) == ["Aaa1", "Bbb1"]


def test_downloads_count_and_unknown_ones_are_no_fault(tmp_path: Path) -> None:
    """What is downloaded much is before what is downloaded little; what says nothing stands between."""
    entries = [{"id": "few", "downloads": 10}, {"id": "unknown"}, {"id": "many", "downloads": 1_000_000}]
    assert _ids(_index(tmp_path, entries, [NEAR, NEAR, NEAR])) == ["many", "unknown", "few"]


def test_what_the_neighbours_name_rises(tmp_path: Path) -> None:
    """A dataset whose own description is far away is found through the descriptions near the query that name it."""
    crowd = [{"id": f"crowd{number}"} for number in range(300)]
    near = [{"id": f"near{number}", "description": "Like Target7."} for number in range(5)]
    index = _index(tmp_path, [*crowd, *near, {"id": "Target7"}], [*_crowd(300), *[NEAR] * 5, (0.3, 1.0, 0.0, 0.5)])
    assert "Target7" in _ids(index, k=6)
    found = {index.id(hit.number): hit for hit in rank(index, "nothing", NEAR, 306)}
    assert found["Target7"].mentions > 1 and found["crowd1"].mentions == 0


def test_feedback_finds_what_is_like_the_best(tmp_path: Path) -> None:
    """Between two at one distance from the query the one on the side of the best is first."""
    crowd = [{"id": f"crowd{number}"} for number in range(3_000)]
    best = [{"id": f"best{number}"} for number in range(10)]
    index = _index(
        tmp_path,
        [*crowd, *best, {"id": "a-other-side"}, {"id": "b-same-side"}],
        [*_crowd(3_000), *[(0.95, 0.0, 0.3, 0.0)] * 10, (0.8, 0.0, -0.6, 0.0), (0.8, 0.0, 0.6, 0.0)],
    )
    assert _ids(index, k=12)[10:] == ["b-same-side", "a-other-side"]
    assert _ids(index, k=12, weights=Weights(feedback=0))[10:] == ["a-other-side", "b-same-side"]


def test_only_those_that_may_be_are_listed_and_all_tell_what_is_mentioned(tmp_path: Path) -> None:
    """A mask hides entries from the list and not from the counting; of one that hides all, nothing is left."""
    entries = [{"id": "Aaa1"}, {"id": "Bbb1"}, {"id": "hidden", "description": "Made from Bbb1."}]
    index = _index(tmp_path, entries, [NEAR, NEAR, NEAR])
    assert _ids(index, among=[True, True, False]) == ["Bbb1", "Aaa1"]
    assert _ids(index, among=[False, False, False]) == []


def test_what_matches_not_at_all_is_not_listed(tmp_path: Path) -> None:
    """An entry at a right angle to the query, without a word of it, is no result, however often it is downloaded."""
    entries = [{"id": "used", "downloads": 10**9}, {"id": "close", "downloads": 1}]
    assert _ids(_index(tmp_path, entries, [FAR, NEAR])) == ["close"]


@pytest.mark.parametrize("k", [0, 1, 2, 1000])
def test_the_list_is_as_long_as_it_may_be_and_has_each_once(tmp_path: Path, k: int) -> None:
    """Of three entries a depth of 1,000 gives three."""
    index = _index(tmp_path, [{"id": "x"}, {"id": "y"}, {"id": "z"}], [NEAR, NEAR, NEAR])
    found = _ids(index, k=k)
    assert len(found) == min(k, 3) == len(set(found))


def test_an_empty_catalogue_gives_nothing(tmp_path: Path) -> None:
    """No entries, no list, no error."""
    save(tmp_path / "datasets", [], [], np.zeros((0, 4), np.float32), facts=facts("datasets", []))
    assert rank(Index.load(tmp_path / "datasets"), "anything", NEAR, 5) == []


# -- the query


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("I want to build a model for image denoising", "a model for image denoising"),
        ("We propose a faster parser", "a faster parser"),
        ("In this paper, we introduce word senses", "word senses"),
        ("I'm building a search engine", "a search engine"),
        ("Find the date in a sentence", "Find the date in a sentence"),
        ("We propose ", "We propose "),
        ("", ""),
        ("翻訳してください", "翻訳してください"),
    ],
)
def test_an_opening_is_cut_off(query: str, left: str) -> None:
    """What says only that somebody wants something is no part of the task; without it something must be left."""
    assert without_opening(query) == left


def test_the_query_s_vector_has_length_one() -> None:
    """Half of each; where the two cancel out, still numbers."""
    assert query_vector((1.0, 0.0), (0.0, 1.0)) == pytest.approx([0.5**0.5, 0.5**0.5])
    assert query_vector((1.0, 0.0), (-1.0, 0.0)) == [0.0, 0.0]
