"""Rows out of a person's files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.kit import readers
from services.kit.errors import InvalidArgument, NotFound
from services.kit.rows import files, read_files, split_of
from services.kit.values import Row

PAIRS = [{"input": "one", "output": "1"}, {"input": 'zwei, "zwei"\nZeilen', "output": "ä"}]


def _written(folder: Path, name: str) -> Path:
    """PAIRS in the format that the name tells."""
    path = folder / name
    bare = name.removesuffix(".gz")
    if bare.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(PAIRS), path)
        return path
    if bare.endswith(".jsonl"):
        text = "".join(json.dumps(pair) + "\n" for pair in PAIRS)
    elif bare.endswith(".json"):
        text = json.dumps(PAIRS, indent=1)
    else:
        separator = "\t" if bare.endswith(".tsv") else ","
        quoted = [['"' + pair[name].replace('"', '""') + '"' for name in ("input", "output")] for pair in PAIRS]
        text = "\n".join(separator.join(line) for line in [["input", "output"], *quoted]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.gz", "a.json.gz"]
)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    """JSONL, JSON, CSV, TSV and Parquet, zipped too, give the same texts, quotes and line ends included."""
    found = read_files(_written(tmp_path, name))
    assert [(row.input, row.output) for row in found] == [(pair["input"], pair["output"]) for pair in PAIRS]
    assert {row.source for row in found} == {name}


def test_a_folder_is_read_split_by_split(tmp_path: Path) -> None:
    """A folder's files are read in order; a name with "test" in it is the test split; hidden files are left out."""
    for name in ("train.jsonl", "test-00000-of-00001.parquet", ".hidden.jsonl"):
        _written(tmp_path, name)
    (tmp_path / "README.md").write_text("about")
    assert [path.name for path in files(tmp_path)] == ["test-00000-of-00001.parquet", "train.jsonl"]
    assert [row.split for row in read_files(tmp_path)] == ["test", "test", "train", "train"]
    assert split_of(Path("latest.jsonl")) == "" and split_of(Path("my_dev.csv.gz")) == "validation"


def test_several_right_answers(tmp_path: Path) -> None:
    """`answers` lists all right outputs; without `output` the first of them is it; extra columns are ignored."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "q", "answers": ["a", "b"], "id": 3}\n')
    assert read_files(path) == [Row("q", "a", "a.jsonl", "", ("a", "b"))]


def test_numbers_are_texts(tmp_path: Path) -> None:
    """A number as input or output is its text."""
    (tmp_path / "a.jsonl").write_text('{"input": 12, "output": 1.5}\n')
    assert read_files(tmp_path / "a.jsonl")[0] == Row("12", "1.5", "a.jsonl")


@pytest.mark.parametrize(
    ("name", "content", "reason", "says"),
    [
        (
            "a.jsonl",
            b'{"input": "a", "output": "b"}\n{"input": "a"}\n',
            "MISSING_COLUMN",
            "line 2 has no 'output': it has input",
        ),
        ("a.csv", b"question,answer\n1,2\n", "MISSING_COLUMN", "it has question, answer"),
        ("a.jsonl", b'{"input": "a", "output": "b"}\n\n{"input": \n', "BAD_JSON", "line 3"),
        ("a.jsonl", b'["a", "b"]\n["a", "b"]\n', "BAD_JSON", "a.jsonl, line"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "BAD_JSON", "a.jsonl"),
        ("a.jsonl", b'{"input": "\xff"}\n', "NOT_UTF8", "line 1 is not UTF-8 .byte 12."),
        ("a.jsonl", b'{"input": "\\ud800", "output": "b"}\n', "NOT_UTF8", "surrogate"),
        ("a.jsonl", b"", "EMPTY_FILE", "no rows"),
        ("a.jsonl", b'{"input": null, "output": "b"}\n', "NOT_TEXT", "input is null"),
        ("a.jsonl", b'{"input": {"a": 1}, "output": "b"}\n', "NOT_TEXT", "input is a dict"),
        ("a.jsonl", b'{"input": " ", "output": "b"}\n', "EMPTY_INPUT", "line 1"),
        ("a.jsonl", b'{"input": "a", "output": "b", "answers": "c"}\n', "BAD_JSON", "line 1"),
        ("a.jsonl", b'{"input": "a", "output": "b", "answers": 3}\n', "BAD_ANSWERS", "list of texts"),
        ("a.csv", b'input,output\n"a,b\n', "BAD_CSV", "a.csv, line"),
        ("a.csv", b"input,output\na,b,c\n", "BAD_CSV", "line 2"),
        ("a.parquet", b"PAR1 not really", "BAD_PARQUET", "a.parquet"),
        ("a.jsonl.gz", b"not zipped", "NOT_GZIP", "a.jsonl.gz"),
        ("a.jsonl.gz", gzip.compress(b'{"input": "a", "output": "b"}\n' * 99)[:-20], "NOT_GZIP", "a.jsonl.gz"),
        ("a.txt", b"text", "UNKNOWN_FORMAT", "wanted one of .jsonl"),
    ],
)
def test_a_bad_file_says_where_and_what(tmp_path: Path, name: str, content: bytes, reason: str, says: str) -> None:
    """Whatever is wrong with a file is INVALID_ARGUMENT with the file's name, the line, and what was wanted."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidArgument, match=says) as raised:
        read_files(tmp_path / name)
    assert raised.value.reason == reason


def test_a_line_beyond_all_measure_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line above the limit is refused as soon as the limit is passed."""
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 1000)
    (tmp_path / "a.jsonl").write_bytes(b'{"input": "' + b"a" * 5000)
    with pytest.raises(InvalidArgument) as raised:
        read_files(tmp_path / "a.jsonl")
    assert raised.value.reason == "LINE_TOO_LONG"


def test_an_absent_file_is_not_found(tmp_path: Path) -> None:
    """A wrong path is NOT_FOUND, an empty folder says which files were wanted."""
    with pytest.raises(NotFound, match="no file or folder"):
        read_files(tmp_path / "none.jsonl")
    with pytest.raises(InvalidArgument, match="no data file"):
        read_files(tmp_path)


def test_a_split_is_told_by_folders_too(tmp_path: Path) -> None:
    """train/0.jsonl is the train split; the file's own name counts before its folder's."""
    for name in ("train/0.jsonl", "evaluation/1.jsonl", "train/valid.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(PAIRS[0]) + "\n")
    assert [row.split for row in read_files(tmp_path)] == ["test", "train", "validation"]


def test_a_link_that_leaves_its_folder_is_refused(tmp_path: Path) -> None:
    """A folder from elsewhere cannot have a file of this machine read; a link within it is a file like another."""
    (tmp_path / "secret.jsonl").write_text(json.dumps(PAIRS[0]) + "\n")
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps(PAIRS[0]) + "\n")
    (folder / "b.jsonl").symlink_to(folder / "a.jsonl")
    assert len(read_files(folder)) == 2
    (folder / "c.jsonl").symlink_to(tmp_path / "secret.jsonl")
    with pytest.raises(InvalidArgument, match=r"c\.jsonl is a link to a file outside of") as raised:
        read_files(folder)
    assert raised.value.reason == "LINK_LEAVES_FOLDER"


def test_a_persons_csv_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """A CSV file as spreadsheets save it, by semicolons, in Windows-1252 or UTF-16, is read like any other."""
    text = "input;output\nCafé;“ja”\n"
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        assert read_files(tmp_path / "a.csv") == [Row("Café", "“ja”", "a.csv")]


def test_a_csv_without_a_header_says_so(tmp_path: Path) -> None:
    """Values in the first line: the error asks for the columns' names there."""
    (tmp_path / "a.csv").write_text("How much is it?,12\nAnd that?,13\n")
    with pytest.raises(
        InvalidArgument, match="Put a first line with the columns' names in it, for example: input,output"
    ):
        read_files(tmp_path / "a.csv")
