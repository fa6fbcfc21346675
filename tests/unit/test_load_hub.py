"""Datasets loaded from a hub that is slow, busy, broken, gated, hostile, or as it should be."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.dataset_retriever.load import Loaded, Loading, Wanted
from services.kit import worker
from services.kit.errors import Unavailable
from services.kit.settings import Settings
from services.kit.values import Progress
from tests.support.hub import Fault, Hub, Repository
from tests.support.loads import Job, Outcome, Outcomes, Several, digest_of

ROWS = [{"q": f"question {n} " + "x" * 400, "l": f"answer {n}"} for n in range(6000)]
PATIENCE_S = 3.0
SCRIPT = b"raise SystemExit('this must never run')"


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, **options)
    return buffer.getvalue()


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


FEW = [{"q": f"q{n}", "l": f"a{n}"} for n in range(5)]
CONFIGS = b"""---
license: apache-2.0
configs:
- config_name: easy
  data_files:
  - {split: train, path: "e/*.jsonl"}
  - {split: test, path: other.jsonl}
- config_name: hard
  data_files: h.jsonl
---
"""
LABELS = b"""---
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': 'no', '1': 'yes'}}}
---
"""


def _fill(hub: Hub) -> dict[str, Repository]:
    """The hub's datasets, and what is to go wrong with each."""
    added: dict[str, Repository] = {}

    def add(name: str, files: dict[str, bytes], **facts: Any) -> None:
        added[name] = hub.add("datasets", f"acme/{name}", files, **facts)

    large = _jsonl(ROWS)
    for name in ("clean", "broken", "changed", "capped", "slow"):
        add(name, {"train.jsonl": large}, card={"license": ["mit", "apache-2.0"]})
    for fault in (
        Fault(cut=300_000), Fault(status=429, retry_after=1), Fault(cut=700_000), Fault(status=500),
        Fault(short=200_000), Fault(no_range=True, cut=1_500_000), Fault(cut=0),
    ):  # fmt: skip
        hub.fault("/api/resolve-cache/datasets/acme/broken/*/train.jsonl", fault)
    hub.fault("/datasets/acme/changed/resolve/*/train.jsonl", Fault(), times=1)
    hub.fault("/datasets/acme/changed/resolve/*/train.jsonl", Fault(etag="another"))
    hub.fault("/api/resolve-cache/datasets/acme/slow/*", Fault(bytes_per_s=20_000), times=99)
    for name in ("busy", "busy_file", "busy_tree", "down"):
        add(name, {"train.jsonl": _jsonl(FEW)})
    hub.fault("/api/datasets/acme/busy", Fault(status=429, retry_after=3600), times=99)
    hub.fault("/api/datasets/acme/busy_tree/tree/*", Fault(status=429, retry_after=600), times=99)
    hub.fault("/datasets/acme/busy_file/resolve/*/train.jsonl", Fault(status=429, retry_after=1800), times=99)
    hub.fault("/datasets/acme/down/resolve/*/train.jsonl", Fault(status=503), times=99)
    add("gated", {"train.jsonl": _jsonl(FEW)}, gated=True)
    add("private", {"train.jsonl": _jsonl(FEW)}, private=True)
    copy = {"default/train/0000.parquet": _parquet(FEW[:3]), "default/train/0001.parquet": _parquet(FEW[3:])}
    add("scripted", {"scripted.py": SCRIPT, "raw.json": b"{}"}, branches={"refs/convert/parquet": copy})
    add(
        "arrow",
        {"data.arrow": b"ARROW1"},
        branches={"refs/convert/parquet": {"c/partial-train/0.parquet": copy["default/train/0000.parquet"]}},
    )
    add("script_alone", {"script_alone.py": SCRIPT, "README.md": b""})
    add(
        "configs",
        {
            "README.md": CONFIGS,
            "e/1.jsonl": _jsonl(FEW[:2]),
            "e/2.jsonl": _jsonl(FEW[2:3]),
            "other.jsonl": _jsonl(FEW[3:4]),
            "h.jsonl": _jsonl(FEW[4:]),
        },
    )
    add("labels", {"README.md": LABELS, "train.csv": b"text;label\ngood;1\nbad;0\n"})
    for name, data in {
        "a.jsonl.gz": gzip.compress(_jsonl(FEW)), "a.jsonl.zst": _zstd(_jsonl(FEW)), "a.json": json.dumps(FEW).encode(),
        "a.csv": b"q,l\n" + b"".join(f"{one['q']},{one['l']}\n".encode() for one in FEW), "a.parquet": _parquet(FEW),
        "a.tsv": b"q\tl\n" + b"".join(f"{one['q']}\t{one['l']}\n".encode() for one in FEW),
    }.items():  # fmt: skip
        add(f"as_{name.partition('.')[2].replace('.', '_')}", {name: data})
    pictures = [{"q": f"q{n}", "l": f"a{n}", "picture": bytes([n]) * 400_000} for n in range(20)]
    add("pictures", {"train.parquet": _parquet(pictures, compression="none", use_dictionary=False)})
    add(
        "many", {f"train-{n:02}.jsonl": _jsonl([{"q": f"q{n} {m}", "l": str(n)} for m in range(10)]) for n in range(30)}
    )
    add("cut_parquet", {"train.parquet": _parquet(FEW)[:-30]})
    add("zipped", {"train.csv": b"PK\x03\x04" + bytes(100)})
    add("web_page", {"train.jsonl": b"<!DOCTYPE html><html>Sign in</html>"})
    add("bomb", {"train.jsonl.gz": gzip.compress(bytes(400 << 20))})
    add("one_bad_of_three", {"a.parquet": _parquet(FEW), "b.parquet": _parquet(FEW)[:-30], "c.parquet": _parquet(FEW)})
    add("two_formats", {"train.csv": b"q,l\na,b\n", "test.jsonl": _jsonl(FEW)}, branches={"refs/convert/parquet": copy})
    add("half_bad", {"train.jsonl": b'{"q": "a", "l": "b"}\n\xff\xfe\n{"q": "a", "l": "b"}\n'})
    hub.aliases["old"] = "acme/as_csv"
    hub.tokens = {"hf_secret": {"acme/gated", "acme/private"}, "hf_stranger": set()}
    return added


class World:
    """What came of every job, and what the hub was asked for."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.added: dict[str, Repository] = {}
        self.hub = Hub()

    def __getitem__(self, name: str) -> Outcome:
        return self.outcomes[name]


def _load(out: Path, name: str, **changes: Any) -> Job:
    wanted = Wanted(
        {"id": name if "/" in name or name == "old" else f"acme/{name}"},
        changes.pop("config", ""),
        "",
        changes.pop("revision", ""),
    )
    where = str(out / f"{name.replace('/', '_')}.parquet")
    inputs, output = changes.pop("columns", (("q",), "l"))
    return Job(loading=Loading(wanted, inputs, output, out=where, **changes))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Every job of this file's first part, done in three children: without a token, with one, with a wrong one."""
    folder = tmp_path_factory.mktemp("hub")
    world = World()

    async def everything() -> None:
        async with world.hub as hub:
            world.added = _fill(hub)
            base = Settings(
                home=folder / "home", hub_offline=False, hub_url=hub.url, hub_cache=folder / "cache",
                hub_patience_s=PATIENCE_S, hub_token="", openai_base_url="", openai_api_key="", grace_s=5,
            )  # fmt: skip
            plain: dict[str, Job] = {
                name: _load(folder, name, max_rows=6000)
                for name in (
                    "clean", "broken", "changed", "busy", "busy_file", "busy_tree", "down", "gated",
                    "private", "scripted", "arrow", "script_alone", "as_jsonl_gz", "as_jsonl_zst", "as_json",
                    "as_csv", "as_parquet", "as_tsv", "pictures", "cut_parquet", "zipped", "web_page", "bomb",
                    "half_bad", "old", "absent", "many",
                )
            }  # fmt: skip
            plain |= {
                "capped": _load(folder, "capped", max_bytes=1_500_000),
                "slow": _load(folder, "slow", max_seconds=2.0),
                "easy": _load(folder, "configs", config="easy"),
                "no_config": _load(folder, "configs", config="easiest"),
                "no_revision": _load(folder, "configs", revision="v9"),
                "labels": _load(folder, "labels", columns=(("text",), "label")),
                "few_of_many": _load(folder, "many", max_rows=20),
                "one_bad_of_three": _load(folder, "one_bad_of_three"),
                "two_formats": _load(folder, "two_formats"),
                "look_pictures": Job(Wanted({"id": "acme/pictures"})),
                "by_datasets": Job(Wanted({"id": "acme/clean"}), by_datasets=True),
            }
            await _do(world, plain, base)
            again = {"copy_again": _load(folder, "scripted", revision=world["scripted"].loaded.revision)}  # type: ignore[union-attr]
            good = base.model_copy(update={"hub_token": _secret("hf_secret")})
            await _do(world, again | {f"{name}_good": _load(folder, name) for name in ("gated", "private")}, good)
            for token, called in (("hf_stranger", "stranger"), ("hf_wrong", "wrong")):
                other = base.model_copy(update={"hub_token": _secret(token)})
                await _do(world, {f"gated_{called}": _load(folder, "gated")}, other)

    asyncio.run(everything())
    return world


def _secret(text: str) -> Any:
    return Settings(hub_token=text).hub_token


async def _do(world: World, jobs: dict[str, Job], settings: Settings) -> None:
    done = await worker.run("tests.support.loads:several", Several(tuple(jobs.values())), Outcomes, settings)
    world.outcomes |= dict(zip(jobs, done.outcomes, strict=True))


def _pairs(outcome: Outcome) -> list[tuple[str, str]]:
    assert outcome.loaded is not None, f"{outcome.reason}: {outcome.message}"
    return [(row.input, row.output) for row in outcome.rows]


def test_a_clean_load_is_complete_and_repeatable(world: World) -> None:
    """Every row comes, with the licences and the commit, and they are the rows that `datasets` itself reads."""
    done = world["clean"]
    assert _pairs(done) == [(row["q"], row["l"]) for row in ROWS]
    assert done.loaded is not None and done.loaded.licence == "mit, apache-2.0" and done.loaded.notes == ()
    assert done.loaded.revision == world.added["clean"].commit
    assert world["by_datasets"].digest == digest_of([dict(row) for row in ROWS])


def test_a_broken_connection_goes_on_where_it_broke(world: World) -> None:
    """Cut four times, refused, failed, given short, given whole for a part: the rows are those of a clean load."""
    assert _pairs(world["broken"]) == _pairs(world["clean"])
    pattern = "/api/resolve-cache/datasets/acme/broken/*/train.jsonl"
    begins = [int(one.removeprefix("bytes=").partition("-")[0]) for one in world.hub.ranges(pattern)]
    assert len(begins) > 7 and begins[1] == 300_000 and begins == sorted(begins)


def test_a_file_that_changes_while_it_is_read(world: World) -> None:
    """Another ETag in the middle: UNAVAILABLE, to be tried again, and never rows of two versions."""
    assert (world["changed"].code, world["changed"].reason) == ("UNAVAILABLE", "CHANGED_ON_HUB")


@pytest.mark.parametrize(("name", "wait"), [("busy", 3600), ("busy_file", 1800), ("busy_tree", 600)])
def test_a_hub_that_asks_for_more_than_patience(world: World, name: str, wait: float) -> None:
    """429 with a Retry-After beyond the patience: UNAVAILABLE at once, with the time to wait, and what helps."""
    refused = world[name]
    assert (refused.code, refused.reason, refused.retry_after) == ("UNAVAILABLE", "HUB_BUSY", wait)
    assert "HF_TOKEN" in refused.message and refused.seconds < PATIENCE_S


def test_a_hub_that_is_down(world: World) -> None:
    """503 for longer than the patience: UNAVAILABLE with what to do, and it was tried more than once."""
    refused = world["down"]
    assert (refused.code, refused.reason) == ("UNAVAILABLE", "HUB_UNREACHABLE") and "answers 503" in refused.message
    assert 0 < refused.seconds < 10 * PATIENCE_S and refused.retry_after >= 1
    assert sum("/acme/down/resolve/" in one.path and one.method == "GET" for one in world.hub.asked) > 1


def test_gated_and_private(world: World) -> None:
    """Gated: the page to accept the terms at, and what to set. Private looks like absent. With the token both load."""
    refused, url = world["gated"], world.hub.url
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "GATED")
    assert f"{url}/datasets/acme/gated" in refused.message and "HF_TOKEN" in refused.message
    assert (world["private"].code, world["absent"].code) == ("NOT_FOUND", "NOT_FOUND")
    assert _pairs(world["gated_good"]) == _pairs(world["private_good"]) == [(row["q"], row["l"]) for row in FEW]


def test_a_token_without_access_and_a_wrong_one(world: World) -> None:
    """A token that may not read it: accept the terms; a wrong one: check it."""
    stranger, wrong = world["gated_stranger"], world["gated_wrong"]
    assert (stranger.code, stranger.reason) == ("FAILED_PRECONDITION", "GATED")
    assert "the token (HF_TOKEN) has no access: accept its terms at" in stranger.message
    assert (wrong.code, wrong.reason) == ("FAILED_PRECONDITION", "HUB_TOKEN") and "hf_wrong" not in wrong.message


def test_the_token_stays_at_the_hub(world: World) -> None:
    """The other host, to which large files are redirected, never sees the token, which the hub does."""
    assert any(one.token == "hf_secret" for one in world.hub.asked)
    assert any(one.cdn for one in world.hub.asked) and not any(one.token for one in world.hub.asked if one.cdn)


def test_a_scripted_dataset_comes_from_the_hubs_copy(world: World) -> None:
    """A dataset with a program is read from the hub's Parquet copy, by its commit; a note says so."""
    done = world["scripted"]
    assert sorted(_pairs(done)) == sorted((row["q"], row["l"]) for row in FEW)
    assert done.loaded is not None and "scripted.py" in done.loaded.notes[0]
    assert done.loaded.revision.startswith("refs/convert/parquet@")
    again = world["copy_again"]
    assert _pairs(again) == _pairs(done) and again.loaded is not None
    assert again.loaded.revision == done.loaded.revision


def test_a_copy_in_part_says_so(world: World) -> None:
    """Of a dataset in a format that is not read here the hub's copy is taken, and that it is partial is said."""
    done = world["arrow"]
    assert len(_pairs(done)) == 3 and done.loaded is not None
    assert "no file of rows" in done.loaded.notes[0] and "only the first part" in done.loaded.notes[1]


def test_a_script_without_a_copy_is_explained(world: World) -> None:
    """No copy: the error names the program and says that it is not run."""
    refused = world["script_alone"]
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "SCRIPT_ONLY")
    assert "script_alone.py" in refused.message


def test_files_are_found_as_the_readme_says(world: World) -> None:
    """README `configs:` tell which files make which split; an unknown name lists the known ones, and so a revision."""
    done = world["easy"]
    assert done.loaded is not None and done.loaded.splits == {"train": 3, "test": 1}
    assert world["no_config"].code == "NOT_FOUND" and "it has easy, hard" in world["no_config"].message
    assert (world["no_revision"].code, world["no_revision"].reason) == ("NOT_FOUND", "NO_SUCH_REVISION")


@pytest.mark.parametrize("kind", ["jsonl_gz", "jsonl_zst", "json", "csv", "parquet", "tsv"])
def test_every_format_of_the_hub(world: World, kind: str) -> None:
    """JSONL packed, a JSON list, CSV, TSV and Parquet give the same rows."""
    assert _pairs(world[f"as_{kind}"]) == [(row["q"], row["l"]) for row in FEW]


def test_an_old_name_leads_to_the_dataset(world: World) -> None:
    """A renamed dataset is found by its old name."""
    assert len(_pairs(world["old"])) == 5


def test_labels_in_a_text_file_have_their_names(world: World) -> None:
    """A CSV file's 0 and 1 are the class labels that the README names; its separator is found."""
    assert _pairs(world["labels"]) == [("good", "yes"), ("bad", "no")]


def test_limits_end_a_load_and_say_so(world: World) -> None:
    """At most so many bytes, at most so many seconds: what was read is the result, and a note says what it is."""
    capped = world["capped"]
    assert capped.loaded is not None and 2000 < sum(capped.loaded.splits.values()) + capped.loaded.dropped.get(
        "more than max_rows", 0
    ) < len(ROWS)
    assert any("limit of 1.5 MB" in note for note in capped.loaded.notes)
    assert any("a sample of" in note for note in capped.loaded.notes)
    slow = world["slow"]
    assert slow.seconds < 5 and (slow.loaded is not None or slow.reason == "LOAD_CAP")


def test_what_is_not_asked_for_is_not_fetched(world: World) -> None:
    """Of 8 MB of pictures beside two columns of text less than a part is fetched, for a look and a load."""
    assert len(_pairs(world["pictures"])) == 20
    contents = world["look_pictures"].contents
    assert contents is not None and [column.name for column in contents.columns] == ["q", "l", "picture"]
    fetched = sum(_length(one) for one in world.hub.ranges("/cdn/*train.parquet"))
    assert 0 < fetched < 7_000_000


def _length(spread: str) -> int:
    begin, _, end = spread.removeprefix("bytes=").partition("-")
    return int(end) - int(begin) + 1


def test_a_sample_is_of_many_files(world: World) -> None:
    """Of a split in thirty files all can be read, and few rows are of more than a few files."""
    assert len(_pairs(world["many"])) == 300
    assert len({output for _, output in _pairs(world["few_of_many"])}) > 8


@pytest.mark.parametrize(
    ("name", "reason", "says"),
    [
        ("cut_parquet", "BAD_PARQUET", "train.parquet is no Parquet file that can be read"),
        ("zipped", "WRONG_FORMAT", "train.csv is a zip archive"),
        ("web_page", "WRONG_FORMAT", "train.jsonl is a web page"),
        ("bomb", "UNPACKS_TOO_FAR", "train.jsonl.gz unpacks to more than 200 times"),
    ],
)
def test_a_hostile_file_is_one_clear_error(world: World, name: str, reason: str, says: str) -> None:
    """FAILED_PRECONDITION with the file's name, what it is, and what was wanted."""
    refused = world[name]
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", reason) and says in refused.message


def test_one_bad_file_of_several_is_left_out(world: World) -> None:
    """The rows of the good files come, and a note names the bad one and what is wrong with it."""
    done = world["one_bad_of_three"]
    assert len(_pairs(done)) == 10 and done.loaded is not None
    assert any("Not all of b.parquet was read" in note and "Parquet" in note for note in done.loaded.notes)


def test_files_that_follow_no_rule_come_from_the_hubs_copy(world: World) -> None:
    """Where `datasets` itself cannot tell what the files are, the hub's copy is taken, and it is said."""
    done = world["two_formats"]
    assert len(_pairs(done)) == 5 and done.loaded is not None and "follow no rule" in done.loaded.notes[0]


def test_bad_rows_are_counted(world: World) -> None:
    """A row that is no text is left out, and counted by its reason."""
    assert len(_pairs(world["half_bad"])) == 2 and world["half_bad"].loaded is not None
    assert world["half_bad"].loaded.dropped == {"not UTF-8": 1}


def test_memory_is_bounded(world: World) -> None:
    """All of this, a bomb of 400 MB and 2.6 MB of rows among it, took less than 450 MB in one child."""
    assert max(outcome.peak_mb for outcome in world.outcomes.values()) < 450


# -- what needs a child of its own


def _online(hub: Hub, tmp_path: Path, **changes: Any) -> Settings:
    return Settings(
        home=tmp_path / "home", hub_offline=False, hub_url=hub.url, hub_cache=tmp_path / "cache", hub_token="",
        hub_patience_s=PATIENCE_S, openai_base_url="", openai_api_key="", **changes,
    )  # fmt: skip


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.02)


async def test_a_cancel_ends_a_dripping_body(tmp_path: Path) -> None:
    """Cancelled in the middle of a body of a byte now and then, a load is over within 2 s, long before the grace."""
    async with Hub() as hub:
        hub.add("datasets", "acme/slow", {"train.jsonl": _jsonl(ROWS)})
        hub.fault("/api/resolve-cache/*", Fault(bytes_per_s=50.0))
        request = _load(tmp_path, "slow").loading
        call = worker.run("services.dataset_retriever.load:load", request, Loaded, _online(hub, tmp_path, grace_s=30))
        task = asyncio.ensure_future(call)
        await _until(lambda: any("resolve-cache" in one.path and one.method == "GET" for one in hub.asked))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begun < 2


async def test_a_killed_load_goes_on(tmp_path: Path) -> None:
    """What was fetched before the process was killed is not fetched again, and the rows are complete."""
    data = _jsonl(ROWS)
    async with Hub() as hub:
        hub.add("datasets", "acme/killed", {"train.jsonl": data})
        hub.fault("/api/resolve-cache/*", Fault(bytes_per_s=1_500_000), times=9)
        settings, job = _online(hub, tmp_path), _load(tmp_path, "killed", max_rows=len(ROWS))
        others = set(psutil.Process().children())  # of earlier tests
        task = asyncio.ensure_future(worker.run("tests.support.loads:several", Several((job,)), Outcomes, settings))
        await _until(lambda: len(list((tmp_path / "home" / "downloads" / "blocks").glob("*/[0-9]"))) >= 1)
        [child] = set(psutil.Process().children()) - others
        child.kill()
        with pytest.raises(Unavailable, match="killed"):
            await task
        before = len(hub.ranges("/api/resolve-cache/*"))
        done = await worker.run("tests.support.loads:several", Several((job,)), Outcomes, settings)
        after = hub.ranges("/api/resolve-cache/*")[before:]
        assert _pairs(done.outcomes[0]) == [(row["q"], row["l"]) for row in ROWS]
        assert after and sum(map(_length, after)) <= len(data) - (1 << 20)


async def test_a_large_dataset_takes_little_memory(tmp_path: Path) -> None:
    """3,000 rows of 200,000, as JSONL and as Parquet: the child stays below 300 MB and fetches what it samples."""
    rows = [{"q": f"question {n} " + "lorem ipsum " * 20, "l": f"answer {n}"} for n in range(200_000)]
    files = {
        "jsonl": {"train.jsonl": _jsonl(rows)},
        "parquet": {"train.parquet": _parquet(rows, row_group_size=10_000)},
    }
    async with Hub() as hub:
        for name, data in files.items():
            hub.add("datasets", f"acme/{name}", data)
        jobs = tuple(_load(tmp_path, name) for name in files)
        done = await worker.run("tests.support.loads:several", Several(jobs), Outcomes, _online(hub, tmp_path))
    for outcome in done.outcomes:
        assert outcome.loaded is not None and outcome.loaded.splits == {"train": 3000}
        assert outcome.loaded.dropped == {"more than max_rows": 47_000} and outcome.peak_mb < 300
        assert "a sample of 50,000" in outcome.loaded.notes[0]


async def test_the_token_is_not_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With every log line on, the token is in no log, no file and no message."""
    async with Hub() as hub:
        hub.add("datasets", "acme/gated", {"train.jsonl": _jsonl(FEW)}, gated=True)
        hub.tokens = {"hf_secret": {"acme/gated"}}
        settings = _online(hub, tmp_path, log_level="DEBUG").model_copy(update={"hub_token": _secret("hf_secret")})
        job = _load(tmp_path, "gated")
        done = await worker.run("tests.support.loads:several", Several((job,)), Outcomes, settings)
        assert _pairs(done.outcomes[0]) and any(one.token == "hf_secret" for one in hub.asked)
    said = capfd.readouterr()
    assert "hf_secret" not in said.out + said.err + repr(done) + repr(settings)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"hf_secret" in path.read_bytes()]


async def test_progress_tells_rows_bytes_and_seconds(tmp_path: Path) -> None:
    """Progress counts rows, and says how many bytes came in how many seconds."""
    told: list[Progress] = []
    async with Hub() as hub:
        hub.add("datasets", "acme/rows", {"train.jsonl": _jsonl(ROWS)})
        request = _load(tmp_path, "rows").loading
        await worker.run("services.dataset_retriever.load:load", request, Loaded, _online(hub, tmp_path), told.append)
    assert [one.done for one in told] == sorted(one.done for one in told) and told[-1].done > 5000
    assert {metric.name for metric in told[-1].metrics} == {"bytes", "seconds"} and " MB, " in told[-1].message
