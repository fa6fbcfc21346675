"""Tables that a service stored with a bug, or a stranger with intent, are refused and told."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from services.kit.errors import FailedPrecondition
from services.kit.tables import from_parquet, rows_to_table, table_to_rows, to_parquet
from services.kit.values import Row

NO_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
)


def read(columns: dict[str, Any]) -> list[Row]:
    return table_to_rows(from_parquet(to_parquet(pa.table(columns)), "the table"), "the table")


def test_rows_come_back_as_they_were() -> None:
    """Answers, source and split too."""
    rows = [Row("a", "b", "generated", "train", ("b", "c")), Row("d", "e", "", "", ())]
    assert table_to_rows(from_parquet(to_parquet(rows_to_table(rows)), "x"), "x") == rows


@pytest.mark.parametrize(
    ("columns", "reason", "says"),
    [
        ({"input": ["a"]}, "MISSING_COLUMN", "no column 'output'"),
        ({"input": ["a"], "output": [1]}, "NOT_TEXT", "'output' holds int64; wanted text"),
        ({"input": ["a"], "output": ["b"], "source": [1.5]}, "NOT_TEXT", "'source' holds double; wanted text"),
        ({"input": ["a"], "output": ["b"], "answers": [1]}, "NOT_TEXT", "holds int64; wanted lists of text"),
        ({"input": ["a"], "output": ["b"], "answers": ["c"]}, "NOT_TEXT", "holds string; wanted lists of text"),
        ({"input": ["a"], "output": ["b"], "answers": [[1]]}, "NOT_TEXT", "wanted lists of text"),
        ({"input": pa.nulls(1), "output": ["b"]}, "NOT_TEXT", "'input' holds null; wanted text"),
        ({"input": NO_UTF8, "output": ["b"]}, "NOT_UTF8", "column 'input' holds bytes that are no UTF-8"),
    ],
)
def test_what_is_no_row_is_refused(columns: dict[str, Any], reason: str, says: str) -> None:
    """Each column that is read must be there once and hold text; the error names it."""
    with pytest.raises(FailedPrecondition, match=says) as refused:
        read(columns)
    assert refused.value.reason == reason


def test_a_column_that_is_there_twice_is_refused() -> None:
    """Nobody could say which of them was meant."""
    table = pa.Table.from_arrays([pa.array([text]) for text in "abc"], names=["input", "output", "output"])
    with pytest.raises(FailedPrecondition, match="'output' twice"):
        table_to_rows(table, "the table")


def test_other_kinds_of_text_are_text() -> None:
    """Large strings, repeated ones stored once, and columns of nothing."""
    columns = {
        "input": pa.array(["a", "a"]).dictionary_encode(), "output": pa.array(["b", None], pa.large_string()),
        "source": pa.nulls(2), "answers": pa.array([["b"], None], pa.large_list(pa.large_string())),
    }  # fmt: skip
    assert table_to_rows(pa.table(columns), "x") == [Row("a", "b", "", "", ("b",)), Row("a", "", "", "", ())]
