"""Locked splits that get more training rows: what is measured on stays, and nothing of it is trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings
from services.kit.values import Row
from services.kit.worker import WorkerContext
from services.trainer.calls import DatasetKind, LockedSplits, PrepareRequest, PrepareResult, TrainingSource
from services.trainer.prepare import prepare
from tests.support.teacher import WORDS


def _rows(number: int, word: str = "item") -> list[Row]:
    return [Row(f"{word} number {n}", f"output {n}", "generated") for n in range(number)]


def _prepare(settings: Settings, rows: list[Row], **options: Any) -> PrepareResult:
    stored = Artifacts.open(settings, "tests").put_rows(rows)
    sources = (TrainingSource(stored, DatasetKind.GENERATED),)
    return prepare(PrepareRequest("run/prepare", sources, **options), WorkerContext(settings))


def _locked(before: PrepareResult) -> LockedSplits:
    return LockedSplits(before.train, before.validation, before.test, before.counts)


def test_only_the_training_split_grows(settings: Settings, artifacts: Artifacts) -> None:
    """Test and validation artifacts are the same to the byte; the training rows that were there come first, unchanged;
    new rows follow but for those that repeat a row of a split, and those are counted by what they repeat.
    """
    before = _prepare(settings, _rows(100))
    split = {name: artifacts.read_rows(getattr(before, name)) for name in ("train", "validation", "test")}
    # No key of the new rows was drawn for training: all are new to the lock, and 20 % would have become test rows.
    repeats = [
        split["test"][0],
        replace(split["test"][1], input=split["test"][1].input.upper()),
        split["validation"][0],
        split["train"][0],
    ]
    after = _prepare(settings, [*_rows(30, "thing"), *repeats], locked=_locked(before))
    assert (after.validation, after.test) == (before.validation, before.test)
    train = artifacts.read_rows(after.train)
    assert train[: len(split["train"])] == split["train"]
    assert {row.input for row in train[len(split["train"]) :]} == {row.input for row in _rows(30, "thing")}
    assert after.removed == {"duplicate": 1, "in_test": 2, "in_validation": 1}
    assert artifacts.read_table(after.train).schema == artifacts.read_table(before.train).schema
    rows = {one.split: one.rows for one in after.counts}
    assert rows == {"train": len(train), "validation": len(split["validation"]), "test": len(split["test"])}


def test_near_a_test_row_is_not_trained_on(settings: Settings, artifacts: Artifacts) -> None:
    """A new row that differs from a test row in one word of many is left out, and kept where near rows are wanted."""
    words = " ".join(WORDS[:60])
    before = _prepare(
        settings,
        [Row(f"{words} {n} {n * n} {n * 7919}", "x", "generated") for n in range(60)],
        keep_near_duplicates=True,
    )
    test = artifacts.read_rows(before.test)[0]
    near = [Row(test.input.replace(WORDS[30], "horse"), "x", "generated"), *_rows(5)]
    kept = _prepare(settings, near, locked=_locked(before), keep_near_duplicates=True)
    gone = _prepare(settings, near, locked=_locked(before))
    assert gone.removed == {"in_test": 1} and not kept.removed
    assert [(one.repeats, one.near, one.rows) for one in gone.leaks] == [("test", True, 1)]


def test_a_copied_training_row_stays_twice(settings: Settings, artifacts: Artifacts) -> None:
    """Rows that a weight put into the training split twice are still there twice."""
    before = _prepare(settings, _rows(50), mix={"generated": 2.0})
    after = _prepare(settings, _rows(5, "thing"), locked=_locked(before))
    assert len(artifacts.read_rows(after.train)) == len(artifacts.read_rows(before.train)) + 5


def test_nothing_new_is_refused(settings: Settings) -> None:
    """Where every row repeats one that is there, there is nothing to train again for, and the message says why."""
    before = _prepare(settings, _rows(50))
    with pytest.raises(FailedPrecondition, match="Ask for more") as caught:
        _prepare(settings, _rows(50), locked=_locked(before))
    assert caught.value.reason == "NOTHING_NEW"
