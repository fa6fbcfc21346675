"""Readers of data files: what people have, and what strangers send."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit import readers, unpack
from services.kit.errors import InvalidArgument
from services.kit.readers import DataFile, Layout, Tally, records

ROWS = [{"q": 'one, "two"\nthree', "l": "ä"}, {"q": "x", "l": "日本"}]


def _file(name: str, data: bytes) -> DataFile:
    return DataFile(name, lambda: io.BytesIO(data))


def _read(name: str, data: bytes, **options: Any) -> list[dict[str, Any]]:
    return [row for _, row in records(_file(name, data), **options)]


def _parquet(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


def _csv(rows: list[dict[str, Any]], separator: str) -> str:
    lines = [separator.join(rows[0])]
    lines += [separator.join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in rows]
    return "\n".join(lines) + "\n"


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("pack", [gzip.compress, _zstd, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.parquet"])
def test_a_packed_file_is_known_by_its_bytes(name: str, pack: Any) -> None:
    """gzip, zstd, bzip2 and xz are undone for every format, whether the name says so or not."""
    data = {
        "a.jsonl": LINES, "a.csv": _csv(ROWS, ",").encode(), "a.json": json.dumps(ROWS).encode(),
        "a.parquet": _parquet(pa.Table.from_pylist(ROWS)),
    }[name]  # fmt: skip
    ending = {gzip.compress: ".gz", _zstd: ".zst", bz2.compress: ".bz2", lzma.compress: ".xz"}[pack]
    assert _read(name, pack(data)) == _read(name + ending, pack(data)) == ROWS


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_the_separator_and_the_encoding_are_found(separator: str, encoding: str) -> None:
    """A CSV file is read whatever parts its fields and whichever of the usual encodings it is saved in."""
    rows = [{"text": f"Café déjà vu, “{n}”; naïve", "label": f"größer {n}"} for n in range(5)]
    assert _read("a.csv", _csv(rows, separator).encode(encoding)) == rows


def test_an_encoding_that_cannot_be_told_is_not_guessed() -> None:
    """Russian, Polish and Japanese in their old encodings are refused, not read as something else."""
    for text, encoding in (("текст,метка\nхорошо,да\n", "cp1251"), ("tekst,ocena\nżółć,ładny\n", "cp1250"),
                           ("本文,評価\n素晴らしい,良い\n", "cp932")):  # fmt: skip
        with pytest.raises(InvalidArgument, match=r"a\.csv is not UTF-8 .* Save the file as UTF-8") as raised:
            _read("a.csv", text.encode(encoding))
        assert raised.value.reason == "NOT_UTF8"
    assert _read("a.csv", b"a,b\nc,d\n", layout=Layout(encoding="no such")) == [{"a": "c", "b": "d"}]
    assert _read("a.csv", "本文,評価\n素晴らしい,良い\n".encode("cp932"), layout=Layout(encoding="cp932")) == [
        {"本文": "素晴らしい", "評価": "良い"}
    ]


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}, {"a": 2}]',
        '[\n {"a": 1},\n {"a": 2}\n]\n',
        '{"a": 1}\n{"a": 2}\n',
        '{"version": "1.1", "data": [{"a": 1}, {"a": 2}]}',
        '{\n "data": [\n  {"a": 1},\n  {"a": 2}\n ]\n}',
        '{\n "a": 1\n}\n{\n "a": 2\n}\n',
    ],
)
def test_every_shape_of_json(text: str) -> None:
    """A list, one object a line, a list inside an object, and objects over several lines are the same rows."""
    assert _read("a.json", text.encode()) == [{"a": 1}, {"a": 2}]


def test_a_long_json_list_is_read_piece_by_piece() -> None:
    """The items of a list of 30 MB come one by one, however the pieces cut them; memory stays below 4 MB."""
    row = {"text": "é" * 500, "n": [1.5, {"x": None}]}
    data = json.dumps([row | {"id": n} for n in range(10_000)], ensure_ascii=False).encode() * 1
    tracemalloc.start()
    count = 0
    for number, (_, found) in enumerate(records(_file("a.json", data))):
        assert found == row | {"id": number}
        count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 10_000 and peak < 4 << 20


def test_chat_rows_are_rows() -> None:
    """One object a line with a list of messages in it is a row, not a document."""
    row = {"messages": [{"role": "user", "content": "hi"}]}
    assert _read("a.json", (json.dumps(row) + "\n").encode() * 2) == [row, row]


@pytest.mark.parametrize(
    ("name", "data", "reason", "says"),
    [
        ("a.csv", b"PK\x03\x04rest", "WRONG_FORMAT", "a.csv is a zip archive"),
        ("a.jsonl", b"%PDF-1.7", "WRONG_FORMAT", "is a PDF"),
        ("a.csv", b"<HTML><body>", "WRONG_FORMAT", "is a web page"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid", "WRONG_FORMAT", "git lfs pull"),
        ("a.parquet", b"PAR1" + b"x" * 100, "BAD_PARQUET", "no Parquet file"),
        ("a.parquet", _parquet(pa.table({"a": ["x"] * 100}))[:-9], "BAD_PARQUET", "no Parquet file"),
        ("a.parquet", b"", "BAD_PARQUET", "no Parquet file"),
        ("a.jsonl.gz", b"{}", "NOT_GZIP", "whatever its name says"),
        ("a.jsonl.zst", _zstd(LINES * 99)[:-20], "NOT_GZIP", "no whole packed file"),
        ("a.jsonl.xz", lzma.compress(LINES * 99)[:-20], "NOT_GZIP", "no whole packed file"),
        ("a.jsonl.bz2", bz2.compress(LINES * 99)[:-20], "NOT_GZIP", "no whole packed file"),
        ("a.json", b'[{"a": 1}, {"a"', "BAD_JSON", "line 2 of its list"),
        ("a.json", b'[{"a": 1}', "BAD_JSON", "in the middle of its list"),
        ("a.json", b'{"a": [1,', "BAD_JSON", "a.json, line 1"),
        ("a.jsonl", b'{"a":' * 300 + b"1" + b"}" * 300, "TOO_DEEP", "deeper than 50 levels"),
        ("a.jsonl", b"[" * 200_000, "BAD_JSON", "cannot be read"),
        ("a.json", b"[" * 200_000, "BAD_JSON", "cannot be read"),
        ("a.jsonl", b'{"a": ' + b"1" * 5000 + b"}", "BAD_JSON", "cannot be read"),
        ("a.csv", b"great film,1\nbad film,0\n", "NO_HEADER", "Put a first line with the columns' names"),
        ("a.csv", b"x" * 300 + b",label\na,b\n", "NO_HEADER", "which is no name"),
        ("a.csv", b"a,b\n1,2,3\n", "BAD_CSV", "line 2 has 3 fields"),
        ("a.csv", b'a,b\n1,"2\n3,4\n', "BAD_CSV", "no CSV"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_why(name: str, data: bytes, reason: str, says: str) -> None:
    """Each damaged or disguised file is INVALID_ARGUMENT with its name, where, and what was wanted."""
    with pytest.raises(InvalidArgument, match=says) as raised:
        _read(name, data)
    assert raised.value.reason == reason and name in raised.value.message


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"])
def test_an_empty_file_has_no_rows(name: str) -> None:
    """An empty file, and one of blank lines, is read and has no rows."""
    assert _read(name, b"") == [] and (name == "a.txt" or _read(name, b"\n\n") == [])


def test_bad_rows_are_counted_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tally counts what is left out, each under its reason, and the good rows around them are all there."""
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 1000)
    good = b'{"a": "\\u0000b"}\n'
    bad = [
        b'{"a": "\xff"}\n',
        b'{"a": \n',
        b"[1]\n",
        b'{"a": "' + b"x" * 5000 + b'"}\n',
        b'{"a":' * 60 + b"1" + b"}" * 60 + b"\n",
    ]
    tally = Tally()
    data = good + b"".join(one + good * 2 for one in bad)
    rows = 0
    for _, row in records(_file("a.jsonl", data), bad=tally.bad):
        tally.good += 1
        rows += row == {"a": "\0b"}
    assert rows == 11
    assert tally.dropped == {
        "not UTF-8": 1, "not JSON": 1, "no JSON object": 1, "longer than 0 MiB": 1, "nested deeper than 50 levels": 1,
    }  # fmt: skip


def test_ragged_csv_rows_are_counted() -> None:
    """Rows with too many or too few fields, and a stray quote, are left out and counted."""
    tally = Tally()
    data = b'a,b\n1,2\n3\n4,5,6\n"7"x,8\n9,10\n11,12\n13,14\n'
    kept = []
    for _, row in records(_file("a.csv", data), bad=tally.bad):
        tally.good += 1
        kept.append(row["a"])
    assert kept == ["1", "9", "11", "13"]
    assert tally.dropped == {"not as many fields as the header": 2, "not CSV": 1}


def test_more_bad_than_good_is_no_dataset() -> None:
    """Where most rows cannot be read the first one's error is raised, with how many there are."""
    tally = Tally()
    with pytest.raises(InvalidArgument, match=r"a\.jsonl, line 1, column 1: no JSON .* And so on: 100 of 100 rows"):
        list(records(_file("a.jsonl", b"no\n" * 5000), bad=tally.bad))


def test_a_quote_that_is_never_closed_does_not_eat_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are joined into one field up to a limit, then the row is counted and the rest goes on."""
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 10_000)
    tally = Tally(good=1000)
    data = b'a,b\n1,"2\n' + b"3,4\n" * 20_000
    rows = sum(1 for _ in records(_file("a.csv", data), bad=tally.bad))
    assert 15_000 < rows < 18_000 and 0 < tally.dropped["not CSV"] < 10


def test_a_row_without_end_does_not_eat_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short fields that go on from line to line for ever are a bad row, and not one in memory."""
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 10_000)
    with pytest.raises(InvalidArgument, match="a row longer than"):
        _read("a.csv", b"a,b\n" + b'"x\n",' * 20_000)


def test_a_bomb_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than 200 times its size is stopped, whether its lines end or not, in every packing."""
    monkeypatch.setattr(unpack, "FREE_BYTES", 1 << 20)
    for data in (gzip.compress(bytes(64 << 20)), _zstd(b"{}\n" * (20 << 20)), bz2.compress(bytes(64 << 20))):
        with pytest.raises(InvalidArgument) as raised:
            for _ in records(_file("a.jsonl", data), bad=Tally(good=1 << 60).bad):
                pass
        assert raised.value.reason == "UNPACKS_TOO_FAR"


def test_columns_of_every_name() -> None:
    """Names with dots, brackets, emoji and blanks, a name twice, an empty one, and ten thousand of them."""
    names = ["a.b", "c[0]", "d<e>", "🎉", " f ", "a.b", ""]
    line = ",".join(names) + "\n" + ",".join("1234567") + "\n"
    [row] = _read("a.csv", line.encode())
    assert list(row) == ["a.b", "c[0]", "d<e>", "🎉", "f", "a.b.1", "column 7"]
    many = ",".join(f"n{n}" for n in range(10_000)) + "\n" + ",".join(["v"] * 10_000) + "\n"
    assert len(_read("a.csv", many.encode())[0]) == 10_000


def test_parquet_values_that_cannot_be_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes in a column of text that are no text, and values without measure, cost their rows alone."""
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 1000)
    column = pa.array([b"a", b"\xff\xfe", b"x" * 2000, b"b"])
    text = pa.Array.from_buffers(pa.string(), len(column), column.buffers())
    tally = Tally(good=10)
    found = [row["t"] for _, row in records(_file("a.parquet", _parquet(pa.table({"t": text}))), bad=tally.bad)]
    assert found == ["a", "b"]
    assert tally.dropped == {"a value that cannot be read": 1, "longer than 0 MiB": 1}


def test_of_parquet_only_the_columns_asked_for() -> None:
    """Columns that nobody asked for are not read."""
    table = pa.table({"a": ["x"], "b.c": ["y"], "d": [b"z"]})
    assert _read("a.parquet", _parquet(table), columns={"a", "b.c", "nothing"}) == [{"a": "x", "b.c": "y"}]


def test_a_wide_row_group_is_read_page_by_page() -> None:
    """Of a row group of 200 MB the first rows cost a fraction of it."""
    table = pa.table({"t": [f"{n} " + "x" * 20_000 for n in range(10_000)]})
    data = _parquet(table, compression="none", use_dictionary=False, row_group_size=10_000)
    assert len(data) > 190 << 20
    before = pa.total_allocated_bytes()
    del table
    rows = records(_file("a.parquet", data))
    for _ in range(100):
        next(rows)
    assert pa.total_allocated_bytes() < before + (64 << 20)
    rows.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("groups", "most"), [(1, 100), (4, 100), (20, 100), (100, 300), (20, 1000), (20, 5000)])
def test_some_rows_of_a_parquet_file_come_from_all_over_it(groups: int, most: int) -> None:
    """Of more rows than are taken those of row groups spread over the file come, with their own numbers, in order."""
    data = _parquet(pa.table({"n": range(1000)}), row_group_size=1000 // groups)
    found = list(records(_file("a.parquet", data), most=most))
    assert all(number == row["n"] + 1 for number, row in found)
    assert [number for number, _ in found] == sorted({number for number, _ in found})
    assert len(found) >= min(most, 1000)
    if groups >= 8:
        assert len({number // 100 for number, _ in found}) >= 8 and len(found) <= most + groups


def test_too_deep_a_schema_is_refused() -> None:
    """A Parquet column nested beyond measure is refused from its schema, before a value is read."""
    value: Any = "x"
    for _ in range(60):
        value = {"a": value}
    with pytest.raises(InvalidArgument) as raised:
        _read("a.parquet", _parquet(pa.Table.from_pylist([{"a": value}])))
    assert raised.value.reason == "TOO_DEEP"


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    """A missing file is NOT_FOUND."""
    with pytest.raises(Exception, match="There is no file"):
        list(records(tmp_path / "gone.csv"))


_WHOLE = {
    ".jsonl": LINES * 3, ".json": json.dumps(ROWS * 3).encode(), ".csv": _csv(ROWS * 3, ";").encode(),
    ".tsv": _csv(ROWS * 3, "\t").encode("utf-16"), ".parquet": _parquet(pa.Table.from_pylist(ROWS * 3)),
    ".jsonl.gz": gzip.compress(LINES * 3), ".csv.zst": _zstd(_csv(ROWS * 3, ",").encode()), ".txt": LINES,
}  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    ending=st.sampled_from(sorted(_WHOLE)),
    damage=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), max_size=4),
    cut=st.floats(0, 1),
    counted=st.booleans(),
)
def test_damage_anywhere_is_rows_or_one_error(
    ending: str, damage: list[tuple[float, bytes]], cut: float, counted: bool
) -> None:
    """Bytes changed anywhere, the end cut off: rows, or INVALID_ARGUMENT, and nothing else, counted or not."""
    data = bytearray(_WHOLE[ending])
    for place, piece in damage:
        begin = int(place * len(data))
        data[begin : begin + len(piece)] = piece
    if cut > 0.5:
        del data[int((2 - 2 * cut) * len(data)) :]
    with contextlib.suppress(InvalidArgument):
        options: dict[str, Any] = {"bad": Tally(good=10**9).bad} if counted else {}
        assert all(isinstance(row, dict) for row in _read(f"a{ending}", bytes(data), **options))


@settings(max_examples=200, deadline=None)
@given(ending=st.sampled_from(sorted(_WHOLE)), data=st.binary(max_size=300))
def test_any_bytes_are_rows_or_one_error(ending: str, data: bytes) -> None:
    """Any bytes at all under any name: rows, or INVALID_ARGUMENT."""
    with contextlib.suppress(InvalidArgument):
        _read(f"a{ending}", data)
