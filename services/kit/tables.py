"""Datasets as tables: rows <-> a table <-> Parquet.

rows_to_table, table_to_rows     `values.Row` <-> columns input, output, source, split, answers
to_parquet, from_parquet         a table <-> bytes; the same table gives the same bytes
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from services.kit.errors import FailedPrecondition
from services.kit.values import Row

ROW_SCHEMA = pa.schema(
    [("input", pa.string()), ("output", pa.string()), ("source", pa.string()), ("split", pa.string()),
     ("answers", pa.list_(pa.string()))]
)  # fmt: skip


def to_parquet(table: pa.Table) -> bytes:
    """The table's bytes in Parquet, the same for the same table."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def from_parquet(data: bytes, name: str) -> pa.Table:
    """The table that the bytes hold. FailedPrecondition (NOT_PARQUET) when they hold none."""
    try:
        return pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:  # pyarrow says OSError of some damaged files
        raise FailedPrecondition("NOT_PARQUET", f"{name} is not a Parquet file: {error}") from error


def rows_to_table(rows: Iterable[Row]) -> pa.Table:
    """The Parquet table of a dataset."""
    columns = [
        {
            "input": _whole(row.input), "output": _whole(row.output), "source": _whole(row.source), "split": row.split,
            "answers": [_whole(answer) for answer in row.answers],
        }
        for row in rows
    ]  # fmt: skip
    return pa.Table.from_pylist(columns, schema=ROW_SCHEMA)


def _whole(text: str) -> str:
    """`text` without halves of surrogate pairs, which JSON can hold and UTF-8 can not."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def table_to_rows(table: pa.Table, name: str) -> list[Row]:
    """The rows of a dataset table. FailedPrecondition when `input` or `output` is missing or is no text."""
    for column in ("input", "output"):
        if column not in table.column_names:
            raise FailedPrecondition(
                "MISSING_COLUMN",
                f"{name} has no column {column!r}: its columns are {', '.join(table.column_names) or 'none'}.",
            )
        kind = table.schema.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise FailedPrecondition("NOT_TEXT", f"{name}: column {column!r} holds {kind}; wanted text.")
    return [
        Row(
            plain["input"] or "", plain["output"] or "", plain.get("source") or "", plain.get("split") or "",
            tuple(answer for answer in plain.get("answers") or () if answer is not None),
        )
        for plain in table.to_pylist()
    ]  # fmt: skip
