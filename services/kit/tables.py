"""Datasets as tables: rows <-> a table <-> Parquet.

rows_to_table, table_to_rows     `values.Row` <-> columns input, output, source, split, answers
check_columns, texts             what a table must be to be read so; one column's texts
to_parquet, from_parquet         a table <-> bytes; the same table gives the same bytes
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.kit.errors import FailedPrecondition
from services.kit.values import Row

ROW_SCHEMA = pa.schema(
    [("input", pa.string()), ("output", pa.string()), ("source", pa.string()), ("split", pa.string()),
     ("answers", pa.list_(pa.string()))]
)  # fmt: skip
# More than any stage is made for; a table is wholly in memory.
MAX_ROWS = 5_000_000
MAX_TABLE_BYTES = 1 << 30
_CHUNK = 65_536


def to_parquet(table: pa.Table) -> bytes:
    """The table's bytes in Parquet, the same for the same table."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def from_parquet(data: bytes, name: str) -> pa.Table:
    """The table that the bytes hold. FailedPrecondition: NOT_PARQUET when they hold none, TOO_LARGE_TABLE when they
    unpack to more than MAX_ROWS rows or MAX_TABLE_BYTES: a few kilobytes can say a text a billion times."""
    try:
        _check_size(data, name)
        return pq.read_table(io.BytesIO(data))
    # pyarrow says OSError of some damaged files; of others, that a value is none or that memory is missing.
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        raise FailedPrecondition("NOT_PARQUET", f"{name} is not a Parquet file: {str(error)[:300]}") from error


def _check_size(data: bytes, name: str) -> None:
    """Measures a table by its footer, then its texts while what repeats in them is still stored once."""
    about = pq.ParquetFile(io.BytesIO(data)).metadata
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    rows, size = about.num_rows, sum(group.total_byte_size for group in groups)
    values = max((group.column(place).num_values for group in groups for place in range(about.num_columns)), default=0)
    fits = rows <= MAX_ROWS and values <= MAX_ROWS and size <= MAX_TABLE_BYTES
    if fits and max(rows, values) * size > MAX_TABLE_BYTES:
        # Only what has many values can grow so much.
        columns = [about.schema.column(place) for place in range(about.num_columns)]
        paths = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        packed = pq.ParquetFile(io.BytesIO(data), read_dictionary=paths)
        size = sum(_unpacked(part.column(0)) for path in paths for part in packed.iter_batches(_CHUNK, columns=[path]))
    if not fits or size > MAX_TABLE_BYTES:
        raise FailedPrecondition(
            "TOO_LARGE_TABLE", f"{name} unpacks to {rows:,} rows, {values:,} values and {size:,} bytes; wanted at most "
            f"{MAX_ROWS:,} rows and values, and {MAX_TABLE_BYTES:,} bytes.",
        )  # fmt: skip


def _unpacked(texts: pa.Array) -> int:
    """Bytes of the texts, each time that they are said."""
    while pa.types.is_list(texts.type) or pa.types.is_large_list(texts.type):
        texts = texts.flatten()
    if not pa.types.is_dictionary(texts.type):
        return int(texts.nbytes)
    return pc.sum(pc.binary_length(texts.dictionary).cast(pa.int64()).take(texts.indices)).as_py() or 0


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
    """The rows of a dataset table. FailedPrecondition as of `check_columns` and `texts`."""
    check_columns(table, name)
    columns = [column for column in ROW_SCHEMA.names if column in table.column_names]
    values = zip(*(texts(table, column, name) for column in columns), strict=True)
    return [
        Row(
            plain["input"] or "", plain["output"] or "", plain.get("source") or "", plain.get("split") or "",
            tuple(answer for answer in plain.get("answers") or () if answer is not None),
        )
        for plain in (dict(zip(columns, row, strict=True)) for row in values)
    ]  # fmt: skip


def check_columns(table: pa.Table, name: str, nothing: bool = False) -> None:
    """FailedPrecondition where `input` or `output` is missing, a column of a row's stands there twice, or one holds no
    text (`answers`: no lists of text). A column in which there is nothing has no type: of the others it is taken, of
    these two where `nothing` is."""
    names = table.column_names
    for column in ROW_SCHEMA.names:
        if names.count(column) > 1:
            raise FailedPrecondition("REPEATED_COLUMN", f"{name} has the column {column!r} twice; wanted one.")
        if column in names:
            _check_type(table, column, name, nothing or column not in ("input", "output"))
        elif column in ("input", "output"):
            raise FailedPrecondition(
                "MISSING_COLUMN",
                f"{name} has no column {column!r}: its columns are {', '.join(names)[:300] or 'none'}.",
            )


def texts(table: pa.Table, column: str, name: str) -> list[Any]:
    """A column's texts (of `answers`: lists of texts), None where there is none. FailedPrecondition where it holds
    something else, or bytes that are no UTF-8: Parquet calls text whatever its writer called so."""
    _check_type(table, column, name, nothing=True)
    try:
        return list(table[column].to_pylist())
    except UnicodeDecodeError as error:
        raise FailedPrecondition("NOT_UTF8", f"{name}: column {column!r} holds bytes that are no UTF-8.") from error


def _check_type(table: pa.Table, column: str, name: str, nothing: bool) -> None:
    kind = table.schema.field(column).type
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if column == "answers":
        item = plain.value_type if _is_list(plain) else None
        fits = item is not None and (_is_text(item) or pa.types.is_null(item))
    else:
        fits = _is_text(plain)
    if not (fits or (nothing and pa.types.is_null(plain))):
        wanted = "lists of text" if column == "answers" else "text"
        raise FailedPrecondition("NOT_TEXT", f"{name}: column {column!r} holds {str(kind)[:200]}; wanted {wanted}.")


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_list(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))
