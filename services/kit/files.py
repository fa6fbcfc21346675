"""The object store as a folder: the same contract as S3, with nothing to install."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG

from services.kit.artifacts import Entry, check_key, check_prefix
from services.kit.errors import NotFound, from_os_error

_TEMPORARY = ".part-"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to fill, flushed to disk and renamed to it at the end; gone when that fails."""
    temporary = path.with_name(_TEMPORARY + uuid.uuid4().hex)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    # The new name itself must survive a power cut too: a paid answer may hang on it.
    _flush(path.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FolderStore:
    """Keys are paths under `root`. A write goes to a temporary file, is flushed to disk and then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def put(self, key: str, data: bytes) -> None:
        self._write(key, lambda path: path.write_bytes(data))

    def put_file(self, key: str, path: Path) -> None:
        self._write(key, lambda temporary: shutil.copyfile(path, temporary))

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound("NO_SUCH_KEY", f"There is nothing at {key} in {self.root}.") from error
        except OSError as error:
            raise from_os_error(error, f"Reading {key}") from error

    def get_file(self, key: str, path: Path) -> None:
        if self.size(key) is None:
            raise NotFound("NO_SUCH_KEY", f"There is nothing at {key} in {self.root}.")
        try:
            with replacing(path) as temporary:
                shutil.copyfile(self._path(key), temporary)
        except OSError as error:
            raise from_os_error(error, f"Copying {key} to {path}") from error

    def size(self, key: str) -> int | None:
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def stat(self, key: str) -> Entry | None:
        return self._entry(key, self._path(key))

    def list(self, prefix: str) -> list[str]:
        check_prefix(prefix)
        # A prefix need not end at a "/": "a/b" lists "a/bc" too, as in S3.
        folder = self.root / prefix.rpartition("/")[0]
        found = (path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(prefix) and not Path(key).name.startswith(_TEMPORARY))

    def entries(self, prefix: str) -> Iterator[Entry]:
        for key in self.list(prefix):
            entry = self._entry(key, self.root / key)
            if entry is not None:
                yield entry

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _entry(self, key: str, path: Path) -> Entry | None:
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(key, found.st_size, found.st_mtime) if S_ISREG(found.st_mode) else None

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _write(self, key: str, fill: Callable[[Path], object]) -> None:
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                fill(temporary)
        except OSError as error:
            raise from_os_error(error, f"Writing {key} to {self.root}") from error
