"""The dataset search's filters: what they leave out, what they keep and flag, and what they say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogue.facts import facts
from services.dataset_retriever.filters import Filters, allowed, check
from services.dataset_retriever.search import Found, search
from services.kit.errors import InvalidArgument
from services.kit.index import Index, save
from services.kit.settings import Settings

ENTRIES: list[dict[str, Any]] = [
    {"id": "a/full", "licence": "apache-2.0", "languages": ["en", "ja"], "tasks": ["summarization"], "gated": False,
     "configs": [{"name": "big", "splits": {"train": 9}, "size_bytes": 9_000_000},
                 {"name": "small", "splits": {"test": 1}, "size_bytes": 1_000}]},
    {"id": "b/copyleft", "licence": "gpl-3.0", "languages": ["de"], "tasks": ["translation", "summarization"],
     "configs": [{"name": "all", "splits": {"validation": 1, "test": 1}, "size_bytes": 2_000_000}]},
    {"id": "c/silent"},
    {"id": "d/gated", "licence": "mit", "languages": ["en"], "gated": True, "tasks": ["question-answering"]},
    {"id": "e/not-for-sale", "licence": "cc-by-nc-4.0", "languages": ["zh-CN"], "size_bytes": 5_000_000_000},
    {"id": "f/many", "licence": "other", "languages": ["multilingual"], "configs": [{"name": "x"}], "script": True},
]  # fmt: skip
ALL = [entry["id"] for entry in ENTRIES]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The entries, each with the words "rows of text"."""
    return _saved(tmp_path_factory.mktemp("index") / "datasets", ENTRIES)


def _saved(folder: Path, entries: list[dict[str, Any]]) -> Index:
    whole = [{"description": "Rows of text."} | entry for entry in entries]
    vectors = np.eye(4, dtype=np.float32)[np.zeros(len(entries), int)]
    texts = [f"{entry['id']} {entry['description']}" for entry in whole]
    save(folder, whole, texts, vectors, facts=facts("datasets", whole))
    return Index.load(folder)


def _found(index: Index, settings: Settings, filters: Filters, k: int = 25) -> Found:
    return search(index, "rows of text", [1.0, 0.0, 0.0, 0.0], k, settings, filters)


@pytest.mark.parametrize(
    ("filters", "out"),
    [
        (Filters(), "d/gated"),
        (Filters(include_gated=True), ""),
        (Filters(languages=("ja",), include_gated=True), "b/copyleft d/gated e/not-for-sale"),
        (Filters(languages=("de", "zh"), include_gated=True), "a/full d/gated"),
        (Filters(licence="permissive", include_gated=True), "b/copyleft e/not-for-sale"),
        (Filters(licence="commercial", include_gated=True), "e/not-for-sale"),
        (Filters(licence="mit", include_gated=True), "a/full b/copyleft e/not-for-sale"),
        (Filters(task="summarization", include_gated=True), "d/gated"),
        (Filters(max_size_bytes=1_500_000, include_gated=True), "b/copyleft e/not-for-sale"),
        (Filters(needs_train_split=True, include_gated=True), "b/copyleft"),
        (Filters(("en",), "permissive", 10**9, "summarization", False, True), "b/copyleft d/gated e/not-for-sale"),
    ],
)
def test_what_is_left_out(index: Index, settings: Settings, filters: Filters, out: str) -> None:
    """Each filter leaves out what is known not to satisfy it, with a reason, and keeps all else; nothing is in both."""
    found = _found(index, settings, filters)
    kept, left = {one.id for one in found.candidates}, {one.id for one in found.excluded}
    assert left == set(out.split()) and kept == set(ALL) - left
    assert all(one.reason for one in found.excluded)
    assert bool(found.notes) == bool(left)
    if left:
        assert f"{len(left)} of 6 datasets" in found.notes[0]


def test_the_unknown_is_kept_and_flagged(index: Index, settings: Settings) -> None:
    """What the catalogue does not say of an entry speaks for nothing: the entry stays, and a sentence says what is not
    known of it, for each filter that was asked for and for no other."""
    filters = Filters(("ja",), "permissive", 10**6, "summarization")
    flags = {one.id: one.flags for one in _found(index, settings, filters).candidates}
    assert len(flags["c/silent"]) == 4 and flags["a/full"] == ()
    assert len(flags["f/many"]) == 5, "its script is an obstacle, too"
    assert {one.id: one.flags for one in _found(index, settings, Filters()).candidates}["c/silent"] == ()


def test_reasons_name_what_is_and_what_was_wanted(index: Index, settings: Settings) -> None:
    """A reason shows the dataset's own fact beside the wish; a count in the notes, what all of them have in common."""
    found = _found(index, settings, Filters(("ja", "en"), "permissive", 10**9))
    reasons = {one.id: one.reason for one in found.excluded}
    assert reasons["d/gated"].startswith("It is gated")
    assert reasons["b/copyleft"] == "Its languages are de; wanted ja or en."
    assert found.notes == ("Left out 3 of 6 datasets: 1 gated, 2 not in ja or en.",)
    found = _found(index, settings, Filters(max_size_bytes=10**9))
    assert {one.id: one.reason for one in found.excluded}["e/not-for-sale"] == "It takes 5 GB; the limit is 1 GB."


def test_a_task_that_no_dataset_is_for_names_those_there_are(tmp_path: Path, settings: Settings) -> None:
    """Where a task leaves nothing, the note names the catalogue's own tasks, the most frequent first."""
    index = _saved(tmp_path / "index", [one for one in ENTRIES if one.get("tasks")])
    found = _found(index, settings, Filters(task="sumarization", include_gated=True))
    assert not found.candidates
    assert found.notes[1] == "The tasks that the catalogue names: summarization, question-answering, translation."


def test_k_are_found_where_there_are_k(tmp_path: Path, settings: Settings) -> None:
    """The filter comes before the depth: the few that fit are found behind a thousand better ones that do not."""
    entries = [{"id": f"x/{number:04}", "licence": "gpl-3.0"} for number in range(1000)]
    entries += [{"id": f"y/{number}", "licence": "mit"} for number in range(3)]
    found = _found(_saved(tmp_path / "index", entries), settings, Filters(licence="mit"), 5)
    assert [one.id for one in found.candidates] == ["y/0", "y/1", "y/2"]
    assert len(found.excluded) == 20


def test_an_empty_catalogue(tmp_path: Path, settings: Settings) -> None:
    """Of no datasets at all none is found, and none is left out."""
    whole = Filters(("en",), "permissive", 10**9, "summarization", False, True)
    assert _found(_saved(tmp_path / "index", []), settings, whole) == Found()


@pytest.mark.parametrize(
    ("filters", "field"),
    [
        (Filters(max_size_bytes=-1), "filters.max_size_bytes"),
        (Filters(licence="free"), "filters.licence"),
        (Filters(licence="  "), "filters.licence"),
        (Filters(languages=("klingon",)), "filters.languages"),
        (Filters(languages=("",)), "filters.languages"),
        (Filters(languages=tuple("abcdefghijklmnopqrstuvwxyz"[i] * 2 for i in range(26)) * 2), "filters.languages"),
        (Filters(task="make it short"), "filters.task"),
    ],
)
def test_filters_that_cannot_be(filters: Filters, field: str) -> None:
    """A negative size and what is no licence, language or task is INVALID_ARGUMENT, with the field and the wish."""
    with pytest.raises(InvalidArgument, match="wanted") as raised:
        check(filters)
    assert raised.value.field == field


def test_case_and_space_do_not_matter() -> None:
    """Words come out in lower case and once."""
    assert check(Filters((" JA", "jpn", "English"), "Permissive ", task="Summarization")) == Filters(
        ("ja", "en"), "permissive", task="summarization"
    )


def test_the_mask_is_of_the_index_at_hand(tmp_path: Path) -> None:
    """Two indexes with other entries under the same numbers have masks of their own."""
    first = _saved(tmp_path / "one", ENTRIES)
    second = _saved(tmp_path / "two", [*reversed(ENTRIES)])
    masks = [allowed(index, Filters(licence="permissive")).mask for index in (first, second)]
    assert masks[0] is not None and masks[1] is not None
    assert masks[0].tolist() == masks[1].tolist()[::-1]
