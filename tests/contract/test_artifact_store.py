"""The artifact store's contract: the same tests for a folder and for a real S3 server."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from services.kit.artifacts import FOLDER, JSON, Artifacts, Store, open_store
from services.kit.errors import (
    DataLoss,
    DiskFull,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from services.kit.settings import Settings
from services.kit.values import Artifact, Row
from tests.support.seaweed import Seaweed, free_ports

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return open_store(Settings(home=tmp_path / "home"))
    server: Seaweed = request.getfixturevalue("s3_server")
    return open_store(server.settings(tmp_path / "home", store=f"s3://test-{uuid.uuid4().hex[:12]}"))


@pytest.fixture
def own(store: Store) -> Artifacts:
    return Artifacts(store, "tests")


# -- keys and bytes


def test_what_was_put_is_got(store: Store) -> None:
    """A key gives back the bytes that were put there last, empty ones too."""
    store.put("tests/a/one.json", b"1")
    store.put("tests/a/one.json", b"two")
    store.put("tests/a/empty", b"")
    assert store.get("tests/a/one.json") == b"two"
    assert store.get("tests/a/empty") == b""
    assert (store.size("tests/a/one.json"), store.size("tests/a/empty")) == (3, 0)


def test_files_go_in_and_out(store: Store, tmp_path: Path) -> None:
    """A file of 20 MB, which S3 takes in parts, comes back byte for byte, over an older file too."""
    data = os.urandom(1 << 20) * 20
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "out").write_bytes(b"older")
    store.put_file("tests/big", tmp_path / "in")
    store.get_file("tests/big", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    assert store.size("tests/big") == len(data)
    store.put("tests/big", data[::-1])
    assert store.get("tests/big") == data[::-1]


def test_an_absent_key_is_not_found(store: Store, tmp_path: Path) -> None:
    """An absent key has no size and raises NotFound when read; nothing is written; deleting it is no error."""
    for present in (False, True):
        assert store.size("tests/absent") is None
        with pytest.raises(NotFound):
            store.get("tests/absent")
        with pytest.raises(NotFound):
            store.get_file("tests/absent", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        store.delete("tests/absent")
        if not present:
            store.put("tests/there", b"")  # the same, in a store that is no longer empty


def test_lists_by_prefix(store: Store) -> None:
    """`list` gives the keys that begin with a prefix, sorted, whether or not it ends at a slash."""
    assert store.list("tests/") == []
    for key in ("tests/b/2", "tests/b/10", "tests/b/1", "tests/bc", "other/b/1"):
        store.put(key, b"x")
    assert store.list("tests/b/") == ["tests/b/1", "tests/b/10", "tests/b/2"]
    assert store.list("tests/b") == ["tests/b/1", "tests/b/10", "tests/b/2", "tests/bc"]
    assert store.list("") == ["other/b/1", "tests/b/1", "tests/b/10", "tests/b/2", "tests/bc"]
    assert store.list("nobody/") == []


def test_lists_more_than_a_page(store: Store) -> None:
    """More keys than S3 lists at once (1,000) are all listed."""
    keys = [f"tests/journal/{number:06}" for number in range(1_050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), keys))
    assert store.list("tests/journal/") == keys


def test_a_deleted_key_is_gone(store: Store) -> None:
    """After `delete` the key is not found and not listed."""
    store.put("tests/a", b"x")
    store.delete("tests/a")
    assert store.size("tests/a") is None
    assert store.list("tests/") == []


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", "ä", "a b", "a\0", "x" * 201, "a/" * 300]
)
def test_a_bad_key_is_refused(store: Store, key: str, tmp_path: Path) -> None:
    """A key that could leave the store, or that a file system cannot hold, is InvalidArgument in every operation."""
    operations: list[Callable[[], object]] = [
        lambda: store.put(key, b"x"),
        lambda: store.put_file(key, tmp_path / "in"),
        lambda: store.get(key),
        lambda: store.get_file(key, tmp_path / "out"),
        lambda: store.size(key),
        lambda: store.delete(key),
    ]
    (tmp_path / "in").write_bytes(b"x")
    for operation in operations:
        with pytest.raises(InvalidArgument, match="is no key"):
            operation()
    with pytest.raises(InvalidArgument):
        store.list("../")


def test_a_put_is_atomic(store: Store) -> None:
    """A reader beside eight writers of one key sees one writer's bytes whole, never a mixture or a part."""
    values = [bytes([65 + number]) * 300_000 for number in range(8)]
    store.put("tests/contended", values[0])
    ended = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not ended.is_set():
            seen.append(store.get("tests/contended"))

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            list(pool.map(lambda value: store.put("tests/contended", value), values))
    ended.set()
    reader.join(30)
    assert seen and set(seen) <= set(values)
    assert store.get("tests/contended") in values
    assert store.list("tests/") == ["tests/contended"]


# -- artifacts


def test_bytes_and_tables_come_back(own: Artifacts) -> None:
    """Bytes, tables and rows are read as they were stored, by their digest; the same content has the same address."""
    blob = own.put_bytes(b'{"a": 1}')
    assert own.read_bytes(blob) == b'{"a": 1}'
    assert blob == own.put_bytes(b'{"a": 1}')
    assert blob.uri == f"p2m://tests/blobs/sha256/{blob.sha256}" and blob.size_bytes == 8
    rows = [Row("how much?", "5 €", "s", "test", ("5 €", "5 EUR")), Row("", "", "", "", ())]
    assert own.read_rows(own.put_rows(rows)) == rows
    table = pa.table({"input": ["a"], "output": ["b"], "real": [True]})
    assert own.read_table(own.put_table(table)).to_pylist() == table.to_pylist()
    assert own.put_table(table) == own.put_table(table)


def test_broken_text_is_stored_as_text(own: Artifacts) -> None:
    """Half of a surrogate pair, which an LLM's JSON can hold, becomes U+FFFD; a whole pair becomes its character."""
    rows = [Row(json.loads('"a\\ud83d"'), "\ud83d\ude00")]
    assert own.read_rows(own.put_rows(rows)) == [Row("a\ufffd", "\U0001f600")]


def test_any_service_reads_an_artifact(store: Store) -> None:
    """What one service stored, another reads by its uri alone."""
    artifact = Artifacts(store, "generator").put_rows([Row("a", "b")])
    assert Artifacts(store, "trainer").read_rows(Artifact(artifact.uri)) == [Row("a", "b")]


def test_a_folder_comes_back(own: Artifacts, tmp_path: Path) -> None:
    """A folder with folders in it is stored and fetched whole, over an older one too; its size is that of its files."""
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer" / "vocab.txt").write_bytes(os.urandom(1000))
    artifact = own.put_folder(folder)
    assert (artifact.media_type, artifact.size_bytes) == (FOLDER, 1002)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale").write_text("x")
    for _ in range(2):
        own.fetch(artifact, tmp_path / "out")
        found = {
            path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
        }
        assert found == {"config.json", "tokenizer/vocab.txt"}
    assert (tmp_path / "out/tokenizer/vocab.txt").read_bytes() == (folder / "tokenizer/vocab.txt").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:10] + b"\x00" + data[11:], lambda data: b""]
)
def test_a_damaged_blob_is_data_loss(own: Artifacts, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """A truncated, flipped or emptied object raises DataLoss however it is read, and leaves no file behind."""
    artifact = own.put_rows([Row(f"input {number}", f"output {number}") for number in range(50)])
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(500))
    model = own.put_folder(folder)
    for digest in (artifact.sha256, own.put_file(folder / "weights", "x").sha256):
        key = f"tests/blobs/sha256/{digest}"
        own.store.put(key, damage(own.store.get(key)))
    with pytest.raises(DataLoss, match="damaged"):
        own.read_rows(artifact)
    with pytest.raises(DataLoss):
        own.fetch(artifact, tmp_path / "rows.parquet")
    with pytest.raises(DataLoss):
        own.fetch(model, tmp_path / "fetched")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["model"]


def test_a_truncated_blob_is_mended_by_putting_it_again(own: Artifacts) -> None:
    """Running the stage again, as the error says, replaces an object whose size is wrong."""
    artifact = own.put_bytes(b"whole")
    own.store.put(f"tests/blobs/sha256/{artifact.sha256}", b"who")
    own.put_bytes(b"whole")
    assert own.read_bytes(artifact) == b"whole"


def test_a_wrong_reference_says_what_is_wrong(own: Artifacts) -> None:
    """An absent artifact is NotFound by its uri; a uri of another form, or with another digest, is InvalidArgument."""
    absent = "p2m://tests/blobs/sha256/" + "0" * 64
    with pytest.raises(NotFound, match=absent):
        own.read_bytes(Artifact(absent))
    for wrong in ("", "file:///etc/passwd", "p2m://tests/../blobs/sha256/" + "0" * 64, absent[:-1]):
        with pytest.raises(InvalidArgument, match="is no artifact"):
            own.read_bytes(Artifact(wrong))
    with pytest.raises(InvalidArgument, match="differ"):
        own.read_bytes(dataclasses.replace(own.put_bytes(b"x"), sha256="1" * 64))


@pytest.mark.parametrize(
    "manifest",
    [
        b"no json", b"[]", b'{"files": [{}]}', b'{"files": [{"path": "", "sha256": "", "size_bytes": 0}]}',
        json.dumps({"files": [{"path": "../up", "sha256": "0" * 64, "size_bytes": 1}]}).encode(),
        json.dumps({"files": [{"path": "/etc/x", "sha256": "0" * 64, "size_bytes": 1}]}).encode(),
        json.dumps({"files": [{"path": "a\0", "sha256": "0" * 64, "size_bytes": 1}]}).encode(),
        json.dumps({"files": [{"path": "a", "sha256": "../../x", "size_bytes": 1}]}).encode(),
    ],
)  # fmt: skip
def test_a_hostile_manifest_is_refused(own: Artifacts, tmp_path: Path, manifest: bytes) -> None:
    """A folder's manifest that is none, or that names files outside of the folder, is refused and writes nothing."""
    artifact = own.put_bytes(manifest, FOLDER)
    with pytest.raises(FailedPrecondition, match="manifest"):
        own.fetch(artifact, tmp_path / "out")
    assert [path for path in tmp_path.rglob("*") if "home" not in path.parts] == []


def test_a_blob_that_is_no_table_is_refused(own: Artifacts) -> None:
    """A dataset artifact that is no Parquet, or lacks a column, or holds no text, is FailedPrecondition and says so."""
    with pytest.raises(FailedPrecondition, match="not a Parquet file"):
        own.read_rows(own.put_bytes(b"PAR1 not really PAR1", JSON))
    with pytest.raises(FailedPrecondition, match="no column 'output'"):
        own.read_rows(own.put_table(pa.table({"input": ["a"]})))
    with pytest.raises(FailedPrecondition, match="'output' holds int64"):
        own.read_rows(own.put_table(pa.table({"input": ["a"], "output": [1]})))


# -- what goes wrong around a folder


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """On a full file system a write raises DiskFull, leaves no part behind, and what was there stays."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {made.stderr.strip()}")
    try:
        store = open_store(Settings(home=tmp_path, store=str(mount / "store")))
        _fill_and_check(store, mount, 1 << 20)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_file_size_limit_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """Where the kernel refuses to let a file grow, the write raises DiskFull and leaves no part behind."""
    code = (
        "import resource, sys; from pathlib import Path; from tests.contract import test_artifact_store as t\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); folder = Path({str(tmp_path)!r})\n"
        "t._fill_and_check(t.open_store(t.Settings(home=folder, store=str(folder / 'store'))), folder, 1 << 20)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] in (resource.RLIM_INFINITY, -1)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


def _fill_and_check(store: Store, folder: Path, too_much: int) -> None:
    store.put("tests/kept", b"kept")
    with pytest.raises(DiskFull, match="Free some space") as raised:
        store.put("tests/kept", b"x" * too_much)
    cause = raised.value.__cause__
    assert isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EFBIG)
    own = Artifacts(store, "tests")
    with pytest.raises(DiskFull):
        own.put_bytes(b"y" * too_much)
    assert store.get("tests/kept") == b"kept"
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["kept"]


# -- what goes wrong around a server


def test_wrong_credentials_are_said(s3_server: Seaweed, tmp_path: Path) -> None:
    """An unknown key, a wrong secret and no key at all are refused by name: which setting to look at."""
    for changes in ({"s3_access_key": "nobody"}, {"s3_secret_key": "wrong"}):
        store = open_store(s3_server.settings(tmp_path, **changes))
        with pytest.raises(Unauthenticated, match="P2M_S3_ACCESS_KEY"):
            store.put("tests/a", b"x")
        with pytest.raises((Unauthenticated, PermissionDenied), match="P2M_S3_ACCESS_KEY"):
            store.size("tests/a")  # a HEAD request, whose answer has no body to say more
        with pytest.raises(Unauthenticated):
            store.list("tests/")
    with pytest.raises(PermissionDenied):
        open_store(s3_server.settings(tmp_path, s3_access_key="", s3_secret_key="")).get("tests/a")


def test_a_server_that_is_down_is_unavailable_soon(s3_server: Seaweed, tmp_path: Path) -> None:
    """With nobody at the endpoint every operation is Unavailable within 5 s and names the endpoint."""
    endpoint = f"127.0.0.1:{free_ports(1)[0]}"
    store = open_store(s3_server.settings(tmp_path, s3_endpoint=endpoint))
    for operation in (lambda: store.put("tests/a", b"x"), lambda: store.get("tests/a"), lambda: store.list("tests/")):
        began = time.monotonic()
        with pytest.raises(Unavailable, match=endpoint):
            operation()
        assert time.monotonic() - began < 5


def test_a_server_that_is_no_s3_server_is_unavailable(s3_server: Seaweed, tmp_path: Path) -> None:
    """A web server that does not speak S3 (here, the filer's port) is not mistaken for an empty store."""
    store = open_store(s3_server.settings(tmp_path, s3_endpoint=s3_server.filer))
    with pytest.raises((Unavailable, PermissionDenied, Unauthenticated, FailedPrecondition)):
        store.put("tests/a", b"x")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"store": "s3://"}, "s3://<bucket>"),
        ({"store": "s3://Bad_Bucket"}, "s3://<bucket>"),
        ({"s3_endpoint": ""}, "host:port"),
        ({"s3_endpoint": "http://127.0.0.1:9000"}, "host:port"),
    ],
)
def test_a_wrong_setting_is_said_before_any_request(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    """A store setting that cannot work is FailedPrecondition and shows the form that is wanted."""
    with pytest.raises(FailedPrecondition, match=said):
        open_store(Settings(**({"home": tmp_path, "store": "s3://bucket", "s3_endpoint": "127.0.0.1:1"} | changes)))


def test_nobody_reads_the_server_without_a_signature(s3_server: Seaweed, tmp_path: Path) -> None:
    """An unsigned GET is refused by the S3 gateway and by the filer beneath it, which knows the same objects."""
    store = open_store(s3_server.settings(tmp_path))
    store.put("tests/secret", b"secret")
    assert store.get("tests/secret") == b"secret"
    for url in (
        f"http://{s3_server.endpoint}/p2m-tests/tests/secret",
        f"http://{s3_server.filer}/buckets/p2m-tests/tests/secret",
        f"http://{s3_server.filer}/buckets/p2m-tests/tests/?limit=10",
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=5)
        assert refused.value.code in (401, 403), url
