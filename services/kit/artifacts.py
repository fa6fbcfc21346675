"""Artifacts: content-addressed bytes in an object store.

    Store                    ten operations on keys and bytes: `files.FolderStore`, `s3.S3Store`
    Artifacts                one service's view: blobs, folders and tables under its own prefix, readable by all

    <service>/blobs/sha256/<digest>          bytes named by their digest
    <service>/results/<request_id>.json      what a finished request answered (`stage`)
    <service>/attempts/<request_id>.json     which attempt may record a result (`stage`)
    <service>/journal/<request_id>/...       paid answers (`journal`)
    <service>/checkpoints/<request_id>/...   two slots of a training in progress
    <service>/sweep.json                     what is just being removed (`keeping`)

A folder is a manifest, {"files": [{"path", "sha256", "size_bytes"}]}, whose blobs lie beside it. The digest is checked
on every read. Datasets are Parquet, weights safetensors, the rest JSON; nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from services.kit import keeping
from services.kit.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, from_os_error
from services.kit.settings import Settings
from services.kit.values import Artifact, Row

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = "application/vnd.apache.parquet"
JSON = "application/json"
FOLDER = "application/vnd.p2m.folder+json"

MAX_FILES = 10_000
"""Of one folder."""

_URI = re.compile(r"p2m://([a-z_]+)/blobs/sha256/([0-9a-f]{64})")
_KEY = re.compile(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*")


@dataclass(frozen=True)
class Entry:
    """A key, and what lies there."""

    key: str
    size: int
    """Bytes."""
    modified_at: float
    """When it was last written, Unix seconds by the store's clock."""


class Store(Protocol):
    """Keys and bytes. Keys are relative POSIX paths; a key is never also the folder of another. Every write, to a key
    or to a file, is atomic: a reader sees all of it or nothing.

    Errors: NotFound for an absent key, DiskFull, Unavailable when the store is out of reach, Unauthenticated or
    PermissionDenied when it refuses.
    """

    def put(self, key: str, data: bytes) -> None:
        """Writes `data` at `key`, replacing what is there."""

    def put_file(self, key: str, path: Path) -> None:
        """Writes a file's bytes at `key`."""

    def get(self, key: str) -> bytes:
        """The bytes at `key`."""

    def get_file(self, key: str, path: Path) -> None:
        """Writes the bytes at `key` to a file."""

    def size(self, key: str) -> int | None:
        """Bytes at `key`; None where there is nothing."""

    def stat(self, key: str) -> Entry | None:
        """What lies at `key`; None where there is nothing."""

    def list(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`, sorted."""

    def entries(self, prefix: str) -> Iterator[Entry]:
        """What lies at each key that begins with `prefix`, in any order."""

    def delete(self, key: str) -> None:
        """Removes `key`; nothing happens where it is absent."""


def open_store(settings: Settings) -> Store:
    """The store that the settings name: a folder, or a bucket ("s3://bucket")."""
    if settings.store.startswith("s3://"):
        from services.kit.s3 import S3Store

        return S3Store.from_settings(settings)
    from services.kit.files import FolderStore

    return FolderStore(Path(settings.store).expanduser() if settings.store else settings.home_folder / "store")


def check_key(key: str) -> str:
    """`key`, if it is one; InvalidArgument if it could leave the store, or is too long for a file system."""
    parts = key.split("/")
    if len(key) > 500 or not _KEY.fullmatch(key) or any(part in (".", "..") or len(part) > 200 for part in parts):
        raise InvalidArgument(
            "BAD_KEY",
            f"{key[:80]!r} is no key: wanted words of letters, digits, . _ = - joined by /, each of at most 200.",
        )
    return key


def check_prefix(prefix: str) -> str:
    """`prefix`, if a key can begin with it; InvalidArgument otherwise. The empty one lists the whole store."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


class Artifacts:
    """One service's artifacts: written under its own prefix, read from anybody's."""

    def __init__(self, store: Store, service: str) -> None:
        self.store = store
        self.service = service

    @classmethod
    def open(cls, settings: Settings, service: str) -> Artifacts:
        return cls(open_store(settings), service)

    # -- bytes and files

    def put_bytes(self, data: bytes, media_type: str = JSON) -> Artifact:
        digest = hashlib.sha256(data).hexdigest()
        key = f"{self.service}/blobs/sha256/{digest}"
        keeping.ensure(self.store, key, len(data), lambda: self.store.put(key, data))
        return Artifact(f"p2m://{key}", digest, len(data), media_type)

    def put_file(self, path: Path, media_type: str) -> Artifact:
        digest = _digest(path)
        key = f"{self.service}/blobs/sha256/{digest}"
        size = path.stat().st_size
        keeping.ensure(self.store, key, size, lambda: self.store.put_file(key, path))
        return Artifact(f"p2m://{key}", digest, size, media_type)

    def read_bytes(self, artifact: Artifact) -> bytes:
        """The artifact's bytes. DataLoss when they are not those that were stored."""
        key, digest = _parse(artifact)
        data: bytes = self._present(lambda: self.store.get(key), artifact)
        _check(hashlib.sha256(data).hexdigest(), digest, artifact.uri, len(data))
        return data

    def fetch(self, artifact: Artifact, into: Path, known: Mapping[str, Path] | None = None) -> Path:
        """Copies a file artifact to `into`, or a folder artifact's files under it; returns `into`.

        `known`: files of this file system by their digest, which a folder takes as links and does not fetch again.
        Nothing is left at `into` when a digest does not match (DataLoss).
        """
        into.parent.mkdir(parents=True, exist_ok=True)
        if artifact.media_type != FOLDER:
            self._fetch_file(artifact, into)
            return into
        entries = _entries(self.read_bytes(artifact), artifact)
        staging = Path(tempfile.mkdtemp(prefix=".fetch-", dir=into.parent))
        try:
            for path, blob in entries:
                target = staging / path
                target.parent.mkdir(parents=True, exist_ok=True)
                here = (known or {}).get(blob.sha256)
                if here is not None and _is(here, blob.sha256):
                    os.link(here, target)
                else:
                    self._fetch_file(blob, target)
            if into.exists():
                shutil.rmtree(into)
            staging.chmod(0o755)
            staging.rename(into)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return into

    def put_folder(self, path: Path) -> Artifact:
        """Stores every file under `path`, then the manifest that names them."""
        entries: list[dict[str, Any]] = []
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            blob = self.put_file(file, "application/octet-stream")
            entries.append(
                {"path": file.relative_to(path).as_posix(), "sha256": blob.sha256, "size_bytes": blob.size_bytes}
            )
        manifest = self.put_bytes(json.dumps({"files": entries}, sort_keys=True).encode(), FOLDER)
        total = sum(entry["size_bytes"] for entry in entries)
        return Artifact(manifest.uri, manifest.sha256, total, FOLDER)

    # -- tables. A service that has none needs no pyarrow.

    def put_table(self, table: pa.Table) -> Artifact:
        """Stores a table as Parquet. The same table gives the same bytes."""
        from services.kit.tables import to_parquet

        return self.put_bytes(to_parquet(table), PARQUET)

    def read_table(self, artifact: Artifact) -> pa.Table:
        from services.kit.tables import from_parquet

        return from_parquet(self.read_bytes(artifact), artifact.uri)

    def put_rows(self, rows: Sequence[Row]) -> Artifact:
        """Stores a dataset: input, output, source, split, answers."""
        from services.kit.tables import rows_to_table

        return self.put_table(rows_to_table(rows))

    def read_rows(self, artifact: Artifact) -> list[Row]:
        from services.kit.tables import table_to_rows

        return table_to_rows(self.read_table(artifact), artifact.uri)

    def _fetch_file(self, artifact: Artifact, into: Path) -> None:
        key, digest = _parse(artifact)
        self._present(lambda: self.store.get_file(key, into), artifact)
        if (found := _digest(into)) != digest:
            size = into.stat().st_size
            into.unlink()
            _check(found, digest, artifact.uri, size)

    def _present(self, read: Any, artifact: Artifact) -> Any:
        try:
            return read()
        except NotFound as error:
            raise NotFound("NO_SUCH_ARTIFACT", f"There is no artifact {artifact.uri} in the store.") from error
        except OSError as error:
            raise from_os_error(error, f"Reading {artifact.uri}") from error


def _parse(artifact: Artifact) -> tuple[str, str]:
    match = _URI.fullmatch(artifact.uri)
    if not match:
        raise InvalidArgument(
            "BAD_URI",
            f"{artifact.uri[:120]!r} is no artifact: wanted p2m://<service>/blobs/sha256/<digest>.",
            field="uri",
        )
    if artifact.sha256 and artifact.sha256 != match[2]:
        raise InvalidArgument(
            "BAD_URI", f"{artifact.uri} and its sha256 {artifact.sha256[:64]} differ.", field="sha256"
        )
    return artifact.uri.removeprefix("p2m://"), match[2]


def _entries(manifest: bytes, folder: Artifact) -> list[tuple[PurePosixPath, Artifact]]:
    """The files that a folder's manifest names. FailedPrecondition when it is none, or one lies outside of it."""
    _parse(folder)
    prefix = folder.uri.rpartition("/")[0]
    entries = []
    try:
        for entry in json.loads(manifest)["files"]:
            path, digest = PurePosixPath(entry["path"]), str(entry["sha256"])
            if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in entry["path"] or _long(path):
                raise ValueError(f"the path {entry['path'][:80]!r}")
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"the digest {digest[:80]!r}")
            entries.append((path, Artifact(f"{prefix}/{digest}", digest, int(entry["size_bytes"]))))
        files = {path for path, _ in entries}
        if len(files) != len(entries) or len(files) > MAX_FILES or any(files & {*path.parents} for path in files):
            raise ValueError(f"a file twice, a file that is also a folder, or more than {MAX_FILES:,} files")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise FailedPrecondition("BAD_MANIFEST", f"{folder.uri} is no folder's manifest: {str(error)[:300]}") from error
    return entries


def _long(path: PurePosixPath) -> bool:
    """Whether a file system might not take the path."""
    return len(str(path).encode()) > 1_000 or any(len(part.encode()) > 200 for part in path.parts)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and _digest(path) == digest


def _check(found: str, wanted: str, uri: str, size: int) -> None:
    if found != wanted:
        raise DataLoss(
            "DIGEST_MISMATCH",
            f"{uri} was damaged: its {size} bytes have the digest {found}. Delete that object and run the stage again.",
        )
