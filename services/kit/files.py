"""The object store as a folder: the same contract as S3, with nothing to install."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from services.kit.artifacts import check_key
from services.kit.errors import NotFound, from_os_error


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
        try:
            shutil.copyfile(self._path(key), path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound("NO_SUCH_KEY", f"There is nothing at {key} in {self.root}.") from error
        except OSError as error:
            raise from_os_error(error, f"Copying {key} to {path}") from error

    def size(self, key: str) -> int | None:
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str) -> list[str]:
        # A prefix need not end at a "/": "a/b" lists "a/bc" too, as in S3.
        folder = self.root / prefix.rpartition("/")[0]
        found = (path.relative_to(self.root).as_posix() for path in folder.rglob("*") if path.is_file())
        return sorted(key for key in found if key.startswith(prefix) and not Path(key).name.startswith(".part-"))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _write(self, key: str, fill: Callable[[Path], object]) -> None:
        path = self._path(key)
        temporary: Path | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".part-", dir=path.parent)
            os.close(handle)
            temporary = Path(name)
            fill(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            if temporary is not None:
                temporary.unlink(missing_ok=True)
            raise from_os_error(error, f"Writing {key} to {self.root}") from error
