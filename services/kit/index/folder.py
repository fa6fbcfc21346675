"""An index's folder: its versions, which of them counts, and whether a version is what was written.

A version's name is the digest of its manifest, so that what is the same has one name wherever it was built. `current`
is replaced in one step: a reader sees the old or the new version whole. The version before the current one is kept, for
those who are opening it; older ones go. Who has a version mapped keeps it: its blocks are freed with the last mapping.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.kit.errors import DataLoss
from services.kit.wire import from_json, to_json

FORMAT = 3

_MANIFEST = "manifest.json"
_POINTER = "current"
_STAGING = ".staging-"
# What is left of a build that was killed.
_STALE_S = 24 * 3600.0
# Hashing more than this at every start would take longer than all else of it.
_HASHED_BYTES = 256 << 20
_CHUNK = 4 << 20


@dataclass(frozen=True)
class Manifest:
    """What an index says of itself."""

    format: int = FORMAT
    entries: int = 0
    source: str = ""
    """Digest of what the entries came from; who builds an index chooses it."""
    encoder: str = ""
    """Digest of the encoder's weights; "" where nothing was encoded."""
    dimension: int = 0
    approximate: bool = False
    """Whether the nearest entries are found among quantised vectors, most but not all of them."""
    k1: float = 0.0
    b: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    """Of the libraries that wrote it."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each file, by its path in the version's folder."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of each file."""


def current(folder: Path) -> Path | None:
    """The folder of the version that counts; None where there is none."""
    try:
        return folder / (folder / _POINTER).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of the version that counts; None where there is none. DataLoss where it is no manifest."""
    version = current(folder) or folder  # before there were versions the files lay in the folder itself
    try:
        return from_json((version / _MANIFEST).read_bytes(), Manifest)
    except (FileNotFoundError, NotADirectoryError) as error:
        if version != folder:
            raise damaged(folder) from error
        return None
    except ValueError as error:
        raise damaged(folder) from error


def damaged(folder: Path) -> DataLoss:
    return DataLoss(
        "INDEX_DAMAGED",
        f"The index at {folder} is not what was built: delete that folder, or run p2m catalogue build again.",
    )


def described(version: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Digest and size of every file of a version but its manifest."""
    sizes = _sizes(version)
    return {name: _digest(version / name) for name in sizes}, sizes


def check(version: Path, manifest: Manifest, between: Callable[[], None] | None = None) -> None:
    """DataLoss where a file is missing, has another size, or other bytes.

    The bytes are read only up to 256 MB of files, else where there is something to do `between` every 4 MB: to wait, so
    that other work goes on, or to raise.
    """
    if _sizes(version) != manifest.sizes:
        raise damaged(version.parent)
    if between or sum(manifest.sizes.values()) <= _HASHED_BYTES:
        for name, digest in manifest.files.items():
            if _digest(version / name, between) != digest:
                raise damaged(version.parent)


def write_manifest(version: Path, manifest: Manifest) -> None:
    (version / _MANIFEST).write_text(to_json(manifest))


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, then to `place`; gone in the end where it was not placed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def place(filled: Path, folder: Path) -> Path:
    """Makes a filled staging folder the version that counts, and removes those before the last; its new path.

    The folder holds a manifest, and the files that it names.
    """
    version = folder / hashlib.sha256((filled / _MANIFEST).read_bytes()).hexdigest()[:16]
    with locked(folder, fcntl.LOCK_EX):
        before = current(folder)
        if version.exists():  # the same again: what lies there may be damaged
            version.rename(folder / f"{version.name}.old")
        filled.rename(version)
        pointer = filled.with_name(f"{filled.name}-{_POINTER}")
        pointer.write_text(version.name)
        pointer.replace(folder / _POINTER)
        for path in folder.iterdir():
            if path not in (version, before, folder / _POINTER, _lock(folder)) and not _in_the_making(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return version


@contextmanager
def locked(folder: Path, how: int) -> Iterator[None]:
    """Keeps a reader from opening files that are being put in their place or removed."""
    try:
        lock = os.open(_lock(folder), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # a folder that is only to be read is nobody's to replace
        yield
        return
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)


def _in_the_making(path: Path) -> bool:
    return path.name.startswith(_STAGING) and time.time() - path.stat().st_mtime < _STALE_S


def _lock(folder: Path) -> Path:
    return folder / ".lock"


def _sizes(version: Path) -> dict[str, int]:
    files = sorted(path for path in version.rglob("*") if path.is_file() and path.name != _MANIFEST)
    return {path.relative_to(version).as_posix(): path.stat().st_size for path in files}


def _digest(path: Path, between: Callable[[], None] | None = None) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                if between:
                    between()
    except FileNotFoundError:
        return ""
    return digest.hexdigest()
