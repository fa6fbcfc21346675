"""What a build from the hub has fetched, on disk beside its result, so that a killed one goes on where it was.

    models.jsonl.gz              the result: a catalogue
    models.jsonl.gz.pages        a header and one line for each page that was fetched; gone when the listing is complete
    models.jsonl.gz.cards        one line for each card; kept, since a card is asked for again only when it has changed
    models.jsonl.gz.state        what the result was made of, for the next build to fetch only what has changed since

Lines are appended whole and synced; half a line at the end, of a process killed while it wrote, is cut off. The other
files are written beside and renamed.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class State:
    """What a result holds: what was asked of the hub, and all that changed before `until` (UTC)."""

    asked: list[str]
    until: str


class Log:
    """A file of JSON lines that only grows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Iterator[dict[str, Any]]:
        """Its whole lines; what a killed process left of the last one is cut off."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            whole = 0
            for line in file:
                value = _parsed(line)
                if value is None:
                    file.truncate(whole)
                    return
                whole += len(line)
                yield value

    def add(self, *values: dict[str, Any]) -> None:
        """Appends lines, and returns when they are on the disk."""
        lines = "".join(json.dumps(value, separators=(",", ":")) + "\n" for value in values).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def clear(self) -> None:
        """Removes it."""
        self.path.unlink(missing_ok=True)


def pages_of(result: Path) -> Log:
    """The log of a result's pages."""
    return Log(result.with_name(f"{result.name}.pages"))


def cards_of(result: Path) -> Log:
    """The log of a result's cards."""
    return Log(result.with_name(f"{result.name}.cards"))


def read_state(result: Path) -> State | None:
    """What the result was made of; None where there is no result, or it is not known."""
    try:
        value = json.loads(_state_file(result).read_text())
        state = State(list(value["asked"]), str(value["until"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return state if result.exists() else None


def write_state(result: Path, state: State) -> None:
    """Remembers what the result was made of."""
    with _replacing(_state_file(result)) as file:
        file.write(json.dumps(asdict(state)).encode())


def write_result(result: Path, entries: Iterable[dict[str, Any]]) -> int:
    """Writes the catalogue; the number of its entries."""
    count = 0
    with _replacing(result) as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
        for entry in entries:
            count += 1
            file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    return count


def _state_file(result: Path) -> Path:
    return result.with_name(f"{result.name}.state")


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
