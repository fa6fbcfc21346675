"""The starter's embeddings that this machine keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catalogue.remembered import keep, recall

TEXTS = ["one", "two \ud800", "drei"]
VECTORS = np.eye(3, 8, dtype=np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "p2m"


def test_what_was_kept_is_recalled() -> None:
    """The same texts by the same encoder have the vectors that were kept; other texts, another order or another
    encoder have none."""
    assert recall(TEXTS, "a") is None
    keep(TEXTS, "a", VECTORS)
    found = recall(TEXTS, "a")
    assert found is not None and np.array_equal(found, VECTORS)
    assert recall(TEXTS, "b") is None and recall(TEXTS[::-1], "a") is None and recall([*TEXTS, ""], "a") is None


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_what_is_damaged_is_not_taken(cache: Path, damage: bytes | None) -> None:
    """A file that is empty, no array, cut or of other numbers is as none."""
    keep(TEXTS, "a", VECTORS)
    (file,) = cache.glob("*.npy")
    file.write_bytes(file.read_bytes()[:-8] if damage is None else damage)
    assert recall(TEXTS, "a") is None
    for wrong in (VECTORS * 2, VECTORS[:2], VECTORS * np.nan):
        keep(TEXTS, "a", wrong)
        assert recall(TEXTS, "a") is None


def test_few_are_kept(cache: Path) -> None:
    """Of the starters of many versions only the newest few stay."""
    for number in range(9):
        keep([str(number)], "a", VECTORS[:1])
    assert len(list(cache.iterdir())) == 4 and recall(["8"], "a") is not None


def test_no_place_to_keep_them_is_no_error(cache: Path) -> None:
    """Where the folder cannot be made, nothing is kept and nothing fails."""
    cache.write_text("a file where the folder should be")
    keep(TEXTS, "a", VECTORS)
    assert recall(TEXTS, "a") is None
