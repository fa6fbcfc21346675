"""Rows as they come: whatever is in a table is text, or counted, or refused with a reason."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings
from services.kit.values import PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer.calls import DatasetKind, PrepareRequest, PrepareResult, TrainingSource
from services.trainer.prepare import prepare
from services.trainer.reading import MAX_BYTES, TEST, VALIDATION, Columns, Dataset, read


def _read(*tables: pa.Table) -> Columns:
    return read(Dataset(table, DatasetKind.USER, "user", f"Dataset {n}") for n, table in enumerate(tables, 1))


def _raw(*values: bytes) -> pa.Array:
    """A column of text with these bytes, which nobody has looked at."""
    return pa.Array.from_buffers(
        pa.string(), len(values), [None, *pa.array(values, pa.binary()).buffers()[1:]]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        ("", "empty"),
        (" \t\n\u3000", "empty"),
        ("\u200b\ufeff\u2060", "empty"),
        ("\x1b\x07", "empty"),
        ("nul \0 inside", "not_text"),
        ("x" * 10_000_000, "too_long"),
        ("é" * (MAX_BYTES // 2 + 1), "too_long"),
    ],
    ids=["None", "nothing", "spaces", "no width", "control", "NUL", "10 MB", "bytes, not characters"],
)
@pytest.mark.parametrize("column", ["input", "output"])
def test_a_row_that_is_no_text_is_counted(value: str | None, reason: str, column: str) -> None:
    """One bad value costs its row, counted under its reason, and no other row."""
    good = {"input": "a question", "output": "an answer"}
    found = _read(pa.Table.from_pylist([good, good | {column: value}, good]))
    assert found.left_out == {reason: 1}
    assert (found.input.to_pylist(), found.output.to_pylist()) == (["a question"] * 2, ["an answer"] * 2)


@pytest.mark.parametrize(
    "bad", [b"half \xed\xa0\x80 a pair", b"latin \xe9", b"cut \xe2\x82"], ids=["surrogate", "latin", "cut"]
)
@pytest.mark.parametrize("column", ["input", "output", "source", "split"])
def test_bytes_that_are_no_utf8_are_counted(bad: bytes, column: str) -> None:
    """Bytes that a Parquet file calls text and are none cost their row, in whichever column."""
    rows = 5_000
    columns = dict.fromkeys(("input", "output", "source", "split"), pa.array(["text"] * rows))
    columns[column] = _raw(*[b"text"] * (rows - 2), bad, b"text")
    found = _read(pa.table(columns))
    assert found.left_out == {"not_text": 1} and len(found) == rows - 1


@pytest.mark.parametrize(
    ("columns", "reason", "said"),
    [
        ({"input": ["a"]}, "MISSING_COLUMN", "no column 'output': its columns are input"),
        ({}, "MISSING_COLUMN", "no column 'input': its columns are none"),
        ({"input": [1.5, float("nan")], "output": ["a", "b"]}, "NOT_TEXT", "'input' holds double; wanted text"),
        ({"input": ["a"], "output": [3]}, "NOT_TEXT", "'output' holds int64; wanted text"),
        ({"input": ["a"], "output": [b"a"]}, "NOT_TEXT", "'output' holds binary; wanted text"),
        ({"input": [{"a": 1}], "output": ["a"]}, "NOT_TEXT", "'input' holds struct"),
        ({"input": ["a"], "output": ["a"], "answers": ["a"]}, "NOT_TEXT", "holds string; wanted lists of text"),
        ({"input": ["a"], "output": ["a"], "answers": [[1]]}, "NOT_TEXT", "'answers' holds list"),
        ({"input": ["a"], "output": ["a"], "split": [0]}, "NOT_TEXT", "'split' holds int64; wanted text"),
    ],
)  # fmt: skip
def test_a_column_that_is_no_text_is_refused(columns: dict[str, list[Any]], reason: str, said: str) -> None:
    """A table that no row can be read from is refused, with its number, the column, and what was wanted."""
    with pytest.raises(FailedPrecondition) as caught:
        _read(pa.table({"input": ["a"], "output": ["b"]}), pa.table(columns))
    assert caught.value.reason == reason
    assert "Dataset 2" in caught.value.message and said in caught.value.message


def test_a_column_twice_is_refused() -> None:
    """Which of two columns of one name is meant, nobody can tell."""
    with pytest.raises(FailedPrecondition) as caught:
        _read(pa.Table.from_arrays([pa.array(["a"])] * 3, ["input", "output", "input"]))
    assert caught.value.reason == "REPEATED_COLUMN"


def test_text_in_any_arrow_type_is_read() -> None:
    """Dictionaries, large and viewed strings, fixed lists and columns of nothing are read; None among answers goes."""
    table = pa.table(
        {
            "input": pa.array(["a", "b"]).dictionary_encode(),
            "output": pa.array(["x", "y"], pa.string_view()),
            "split": pa.array(["TEST", " dev "], pa.large_string()),
            "source": pa.nulls(2),
            "answers": pa.array([["x", None], None], pa.large_list(pa.string())),
        }
    )
    fixed = pa.table({"input": ["c"], "output": ["z"], "answers": pa.array([["z", "Z"]], pa.list_(pa.string(), 2))})
    nothing = pa.table({"input": pa.nulls(3), "output": ["a", "b", "c"]})
    found = _read(table, fixed, nothing, table.slice(0, 0))
    assert found.input.to_pylist() == ["a", "b", "c"]
    assert found.answers.to_pylist() == [["x"], [], ["z", "Z"]]
    assert found.given.tolist() == [TEST, VALIDATION, -1]
    assert found.left_out == {"empty": 3} and found.notes == ["Dataset 4 has no rows."]
    assert [source.name for source in found.sources] == ["user"]


# -- the whole call


def _prepare(settings: Settings, artifacts: Artifacts, *tables: pa.Table) -> PrepareResult:
    sources = tuple(TrainingSource(artifacts.put_table(table), DatasetKind.USER) for table in tables)
    return prepare(PrepareRequest("r/prepare", sources, spec=PromptSpec("Do it.")), WorkerContext(settings))


def test_hostile_rows_among_good_ones(settings: Settings, artifacts: Artifacts) -> None:
    """Bad rows, an empty dataset and a small bad one beside a good dataset: the good is stored, the rest counted."""
    good = [{"input": f"question {n}", "output": f"answer {n}", "answers": [f"answer {n}", None]} for n in range(60)]
    bad = [
        {"input": None, "output": "a"}, {"input": "b\0", "output": "b"}, {"input": "c" * 10_000_000, "output": "c"},
        {"input": "\u200b", "output": "d"}, {"input": "e", "output": None},
    ]  # fmt: skip
    table = pa.Table.from_pylist(good + bad)
    result = _prepare(settings, artifacts, table, table.slice(0, 0), pa.table({"input": ["f"], "output": ["g\0"]}))
    assert result.removed == {"empty": 3, "not_text": 2, "too_long": 1}
    assert sum(count.rows for count in result.counts) == 60
    assert "Dataset 2 (user) has no rows." in result.notes
    rows = [row for split in (result.train, result.validation, result.test) for row in artifacts.read_rows(split)]
    assert sorted(rows, key=lambda row: row.input)[0] in [
        Row("question 0", "answer 0", "user", split, ("answer 0",)) for split in ("train", "validation", "test")
    ]


def test_nothing_but_bad_rows(settings: Settings, artifacts: Artifacts) -> None:
    """Where no row is left, the reason says what became of them."""
    with pytest.raises(FailedPrecondition) as caught:
        _prepare(settings, artifacts, pa.table({"input": [None, "a\0"], "output": ["b", "c"]}))
    assert caught.value.reason == "TOO_FEW_ROWS" and "1 empty, 1 not_text" in caught.value.message
