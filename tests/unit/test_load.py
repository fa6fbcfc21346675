"""Datasets brought in: from folders, and from a hub."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.dataset_retriever import load
from services.dataset_retriever.load import Contents, Loaded, Loading, Wanted
from services.dataset_retriever.source import best_config
from services.kit import worker
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, P2MError
from services.kit.settings import Settings
from services.kit.tables import table_to_rows
from services.kit.values import Row
from services.kit.worker import WorkerContext
from tests.support.hub import Hub


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _folder(path: Path, **files: bytes) -> dict[str, Any]:
    """A catalogue entry of a folder with these files; "train" is train.jsonl."""
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / f"{name}.jsonl").write_bytes(data)
    return {"id": "mine", "location": f"folder:{path}", "licence": "mit"}


def _loaded(
    entry: dict[str, Any], inputs: list[str], output: str, settings: Settings, out: Path, most: int = 3000
) -> Any:
    request = Loading(Wanted(entry), tuple(inputs), output, most, str(out))
    done = load.load(request, WorkerContext(settings))
    return done, table_to_rows(pq.read_table(out), "rows")


def test_a_folder_is_looked_into(settings: Settings, tmp_path: Path) -> None:
    """Columns and types come from the first rows, splits from the files' names."""
    entry = _folder(tmp_path / "d", train=_jsonl([{"q": "a", "n": 1, "a": {"text": ["x"]}}]), test=_jsonl([{"q": "b"}]))
    found = load.look(Wanted(entry), WorkerContext(settings))
    assert [(column.name, column.type) for column in found.columns] == [
        ("q", "string"),
        ("n", "int64"),
        ("a.text", "list<string>"),
    ]
    assert found.splits.keys() == {"train", "test"} and found.licence == "mit"
    assert json.loads(found.rows[0])["q"] == "a"


def test_the_own_test_split_stays_test(settings: Settings, tmp_path: Path) -> None:
    """Rows keep their split and bear the dataset's id as their source."""
    entry = _folder(tmp_path / "d", train=_jsonl([{"q": "a", "l": "x"}]), test=_jsonl([{"q": "b", "l": "y"}]))
    done, rows = _loaded(entry, ["q"], "l", settings, tmp_path / "out")
    assert rows == [Row("b", "y", "mine", "test"), Row("a", "x", "mine", "train")]
    assert done == Loaded({"test": 1, "train": 1}, {}, "mit")


def test_rows_without_input_or_output_are_counted(settings: Settings, tmp_path: Path) -> None:
    """None, empty and unlabelled rows are left out, each under its reason."""
    rows = [{"q": "a", "l": 0}, {"q": None, "l": 0}, {"q": "b", "l": None}, {"q": "c", "l": -1}, {"q": " ", "l": 1}]
    entry = _folder(tmp_path / "d", train=_jsonl(rows))
    entry["configs"] = [
        {
            "name": "default",
            "features": {"q": "string", "l": "class_label"},
            "class_names": {"l": ["no", "yes"]},
            "splits": {},
        }
    ]
    done, kept = _loaded(entry, ["q"], "l", settings, tmp_path / "out")
    assert [(row.input, row.output) for row in kept] == [("a", "no")]
    assert done.dropped == {"no input": 2, "no output": 2}


def test_a_sample_is_of_the_whole_split(settings: Settings, tmp_path: Path) -> None:
    """A split sorted by its label is sampled from end to end, in its order, and the same way each time."""
    entry = _folder(tmp_path / "d", train=_jsonl([{"q": f"q{n}", "l": str(n // 500)} for n in range(1000)]))
    done, kept = _loaded(entry, ["q"], "l", settings, tmp_path / "one", 100)
    assert len(kept) == 100 and done.dropped == {"more than max_rows": 900}
    assert 30 < sum(row.output == "0" for row in kept) < 70
    assert [int(row.input[1:]) for row in kept] == sorted(int(row.input[1:]) for row in kept)
    assert _loaded(entry, ["q"], "l", settings, tmp_path / "two", 100)[1] == kept


@pytest.mark.parametrize(
    ("row", "inputs", "output", "error", "says"),
    [
        ({"q": "a", "l": "b"}, ["missing"], "l", InvalidArgument, "no column 'missing'; it has: q, l"),
        ({"q": "a", "l": "b"}, ["q"], "q", InvalidArgument, "none of them the output"),
        ({"q": "a", "l": "b"}, [], "l", InvalidArgument, "one or more input columns"),
        ({"q": "a", "l": None}, ["q"], "l", InvalidArgument, "l of mine is null, which has no text"),
        (
            {"q": "a", "l": ""},
            ["q"],
            "l",
            FailedPrecondition,
            "No row of mine is left for these columns: 1 with no output",
        ),
    ],
)
def test_columns_that_cannot_be_used(
    settings: Settings,
    tmp_path: Path,
    row: dict[str, Any],
    inputs: list[str],
    output: str,
    error: type[P2MError],
    says: str,
) -> None:
    """A missing column, one of Nones, no input, the output twice: each says what is wrong and what there is."""
    entry = _folder(tmp_path / "d", train=_jsonl([row]))
    with pytest.raises(error, match=says):
        _loaded(entry, inputs, output, settings, tmp_path / "out")


def test_a_dataset_of_nones_has_no_text(settings: Settings, tmp_path: Path) -> None:
    """Where no column holds a text, looking says so and names the columns with their types."""
    entry = _folder(tmp_path / "d", train=_jsonl([{"a": None, "b": [None]}]))
    with pytest.raises(FailedPrecondition, match=r"no column of text; its columns are: a \(null\), b \(list<null>\)"):
        load.look(Wanted(entry), WorkerContext(settings))


def test_damaged_and_absent_folders(settings: Settings, tmp_path: Path) -> None:
    """A broken file is FAILED_PRECONDITION with file and line; no folder and no such configuration are NOT_FOUND."""
    entry = _folder(tmp_path / "d", train=b'{"q": "a"}\n{"q"\n{"q"')
    with pytest.raises(FailedPrecondition, match=r"train\.jsonl, line 2"):
        load.look(Wanted(entry), WorkerContext(settings))
    with pytest.raises(NotFound, match="no configuration 'x'"):
        load.look(Wanted(entry, "x"), WorkerContext(settings))
    with pytest.raises(NotFound, match="no such folder"):
        load.look(Wanted({"id": "gone", "location": f"folder:{tmp_path}/none"}), WorkerContext(settings))


def test_the_configuration_that_the_task_names() -> None:
    """The configuration with most of the task's words in its name; else "default"; else the first."""
    assert best_config(["emoji", "sentiment", "default"], "Say the sentiment of a tweet.") == "sentiment"
    assert best_config(["emoji", "default"], "Translate.") == "default" and best_config(["b", "a"], "x") == "b"


def _parquet() -> bytes:
    """One file with a class label, nested answers, a translation and an image, as `datasets` writes them."""
    features = {
        "question": {"dtype": "string", "_type": "Value"},
        "answers": {"text": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}},
        "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
        "translation": {"languages": ["de", "en"], "_type": "Translation"},
        "image": {"_type": "Image"},
    }
    table = pa.Table.from_pylist(
        [
            {
                "question": f"q{number}", "answers": {"text": ["a", "b"]}, "label": number % 2,
                "translation": {"de": "ja", "en": "yes"}, "image": {"bytes": b"png", "path": "a.png"},
            }
            for number in range(4)
        ]
    )  # fmt: skip
    table = table.set_column(2, "label", table["label"].cast(pa.int64()))
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


async def test_a_hub_dataset_is_streamed(settings: Settings, tmp_path: Path) -> None:
    """Parquet on the hub: nested columns, labels by name, an image that is shown and never used, several answers."""
    async with Hub() as hub:
        files = {"data/test-00000-of-00001.parquet": _parquet()}
        commit = hub.add("datasets", "acme/qa", files, card={"license": "mit"}).commit
        online = _online(settings, hub.url, tmp_path)
        found = await worker.run("services.dataset_retriever.load:look", Wanted({"id": "acme/qa"}), Contents, online)
        kinds = {column.name: column.type for column in found.columns}
        assert kinds == {
            "question": "string", "answers.text": "list<string>", "label": "class_label", "translation.de": "string",
            "translation.en": "string", "image": "image",
        }  # fmt: skip
        request = Loading(Wanted({"id": "acme/qa"}), ("question", "label"), "answers.text", 10, str(tmp_path / "out"))
        done = await worker.run("services.dataset_retriever.load:load", request, Loaded, online)
    rows = table_to_rows(pq.read_table(tmp_path / "out"), "rows")
    assert done == Loaded({"test": 4}, {}, "mit", commit)
    assert rows[1] == Row("question: q1\nlabel: yes", "a", "acme/qa", "test", ("a", "b"))


@pytest.mark.parametrize(
    ("files", "gated", "error", "reason"),
    [
        ({"qa.py": b"import os", "README.md": b""}, False, FailedPrecondition, "SCRIPT_ONLY"),
        ({"a.png": b""}, False, FailedPrecondition, "NO_DATA_FILES"),
        ({"train.jsonl": b"{}"}, True, FailedPrecondition, "GATED"),
        (None, False, NotFound, "NOT_ON_HUB"),
    ],
)
async def test_what_the_hub_cannot_give(
    settings: Settings, tmp_path: Path, files: dict[str, bytes] | None, gated: bool, error: type[P2MError], reason: str
) -> None:
    """Script-only, gated, without data, unknown: each has its reason, and no file was fetched."""
    async with Hub() as hub:
        if files is not None:
            hub.add("datasets", "acme/qa", files, gated=gated)
        with pytest.raises(error) as raised:
            wanted = Wanted({"id": "acme/qa"})
            await worker.run(
                "services.dataset_retriever.load:look", wanted, Contents, _online(settings, hub.url, tmp_path)
            )
        assert raised.value.reason == reason
        assert not [request for request in hub.requests if "/resolve/" in request]


async def test_no_hub_at_all(settings: Settings, tmp_path: Path) -> None:
    """A hub that is switched off is FAILED_PRECONDITION, one that does not answer UNAVAILABLE."""
    for own, reason in (
        (settings, "HUB_OFFLINE"),
        (_online(settings, "http://127.0.0.1:9", tmp_path), "HUB_UNREACHABLE"),
    ):
        with pytest.raises(P2MError) as raised:
            await worker.run("services.dataset_retriever.load:look", Wanted({"id": "acme/qa"}), Contents, own)
        assert raised.value.reason == reason


def _online(settings: Settings, url: str, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"hub_offline": False, "hub_url": url, "hub_cache": tmp_path / "hub"})


def test_a_hostile_folder_costs_its_bad_rows_alone(settings: Settings, tmp_path: Path) -> None:
    """A row of 50 MB, deep nesting, NULs, bad UTF-8, half a JSON object, ten thousand columns: rows, and counts."""
    good = [{"q": f"a\0{n}", "l": "x"} for n in range(9)] + [
        {f"c{n}": "v" for n in range(10_000)} | {"q": "w", "l": "y"}
    ]
    bad = (
        b'{"q": "' + b"x" * 50_000_000 + b'", "l": "x"}\n', b'{"q": ' + b"[" * 900 + b"]" * 900 + b"}\n",
        b'{"q": "\xff\xfe"}\n', b'{"q": "half\n', b'{"q": ' + b"9" * 5000 + b"}\n",
    )  # fmt: skip
    entry = _folder(tmp_path / "d", train=_jsonl(good) + b"".join(bad))
    done, rows = _loaded(entry, ["q"], "l", settings, tmp_path / "out")
    assert [row.input for row in rows] == [f"a{n}" for n in range(9)] + ["w"]
    assert done.dropped == {
        "longer than 16 MiB": 1, "nested deeper than 50 levels": 1, "not UTF-8": 1, "not JSON": 2,
    }  # fmt: skip
    found = load.look(Wanted(entry), WorkerContext(settings))
    assert sum(map(len, found.rows)) < 1_000_000 and len(found.columns) == 10_002


def test_columns_with_names_of_every_kind(settings: Settings, tmp_path: Path) -> None:
    """Dots, brackets and emoji in the names of columns are no path and no type; what is nested is reached as well."""
    row = {"a.b": "one", "c<d>": "two", "🎉": "three", "e": {"f": "four", "g<h>,i:": "never"}}
    entry = _folder(tmp_path / "d", train=_jsonl([row]))
    found = load.look(Wanted(entry), WorkerContext(settings))
    assert [column.name for column in found.columns] == ["a.b", "c<d>", "🎉", "e.f"]
    _, rows = _loaded(entry, ["a.b", "c<d>", "e.f"], "🎉", settings, tmp_path / "out")
    assert rows[0].output == "three" and all(part in rows[0].input for part in ("one", "two", "four"))


def test_texts_beyond_measure_are_cut_or_left_out(settings: Settings, tmp_path: Path) -> None:
    """A very long input is cut, which a note says; a very long output is left out, and counted."""
    rows = [{"q": "x" * 200_000, "l": "short"}, {"q": "short", "l": "x" * 200_000}]
    done, kept = _loaded(_folder(tmp_path / "d", train=_jsonl(rows)), ["q"], "l", settings, tmp_path / "out")
    assert [len(row.input) for row in kept] == [load.MAX_CHARACTERS]
    assert done.dropped == {"an output longer than 65,536 characters": 1}
    assert done.notes == ("Of mine, 1 input had more than 65,536 characters, and what follows them was cut.",)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("train.csv", b"PK\x03\x04", "WRONG_FORMAT"), ("train.parquet", b"PAR1", "BAD_PARQUET"),
        ("train.jsonl.gz", b"\x1f\x8b\x08", "NOT_GZIP"), ("train.csv", b"hello there,7\n", "NO_HEADER"),
        ("train.jsonl", b"", "NO_TEXT"), ("notes.pdf", b"", "NO_DATA_FILES"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_dataset(settings: Settings, tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    """Each is FAILED_PRECONDITION with its reason: the request was right, the folder is not."""
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FailedPrecondition) as raised:
        load.look(Wanted({"id": "mine", "location": f"folder:{tmp_path}"}), WorkerContext(settings))
    assert raised.value.reason == reason
