"""The journal of paid answers: append-only segments in the store, so that a crash pays for nothing twice.

    <service>/journal/<request_id>/<milliseconds>-<attempt>-<number>.jsonl

    Entry       one answer, and what it cost
    Journal     load: all entries of a request; append: returns once the entry is stored

A segment is written whole and never again; its name is its attempt's own, so that two attempts cannot overwrite each
other. Answers that come while a segment is being written go into the next one together (group commit). Each line is
`<sha256 of the rest, 16 digits> <JSON>`: a line that was cut or flipped is skipped with a warning, its neighbours kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from services.kit.artifacts import Artifacts
from services.kit.errors import NotFound
from services.kit.values import Ledger

log = logging.getLogger(__name__)

_READERS = 16


@dataclass(frozen=True)
class Entry:
    """What came of one request for `key`: a `value`, or why it is `invalid`, or nothing that arrived (`lost`)."""

    key: str
    value: Any = None
    invalid: str = ""
    lost: bool = False
    cost: Ledger = field(default_factory=Ledger)


class Journal:
    """The paid answers of one request. Every method may be called from any task of one event loop."""

    def __init__(self, artifacts: Artifacts, request_id: str) -> None:
        self._store = artifacts.store
        self._prefix = f"{artifacts.service}/journal/{request_id}/"
        self._attempt = f"{time.time_ns() // 1_000_000:013d}-{uuid.uuid4().hex[:12]}"
        self._segments = 0
        self._pending: list[tuple[str, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something that was appended is not stored yet."""
        return self._writer is not None and not self._writer.done()

    async def load(self) -> list[Entry]:
        """All stored entries, the oldest attempt's first. Errors are those of the store."""
        return await asyncio.to_thread(self._load)

    def append(self, entry: Entry) -> asyncio.Future[None]:
        """Puts the entry into the next segment; the future ends when that is stored, or with the store's error.

        The entry is written even where nobody awaits the future.
        """
        stored = asyncio.get_running_loop().create_future()
        self._pending.append((_line(entry), stored))
        if not self.busy:
            self._writer = asyncio.create_task(self._write())
        return stored

    async def flush(self) -> None:
        """Returns when all that was appended is stored, or could not be."""
        while self._writer is not None and not self._writer.done():
            await asyncio.shield(self._writer)

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            key = f"{self._prefix}{self._attempt}-{self._segments:06d}.jsonl"
            self._segments += 1
            data = "".join(line for line, _ in batch).encode()
            try:
                await asyncio.to_thread(self._store.put, key, data)
            except Exception as error:
                _end(batch, error)
            else:
                _end(batch, None)

    def _load(self) -> list[Entry]:
        # Only this request's own segments: a request id may be the beginning of another one's.
        keys = [key for key in self._store.list(self._prefix) if "/" not in key.removeprefix(self._prefix)]
        with ThreadPoolExecutor(_READERS) as readers:
            segments = list(readers.map(self._read, keys))
        return [entry for segment in segments for entry in segment]

    def _read(self, key: str) -> list[Entry]:
        try:
            data = self._store.get(key)
        except NotFound:  # deleted since it was listed
            return []
        entries = []
        for number, line in enumerate(data.split(b"\n"), 1):
            if not line:
                continue
            entry = _entry(line)
            if entry is None:
                log.warning("%s, line %d: a stored answer is damaged; it will be asked for again.", key, number)
            else:
                entries.append(entry)
        return entries


def _line(entry: Entry) -> str:
    text = json.dumps(asdict(entry), ensure_ascii=True, sort_keys=True)
    return f"{_digest(text.encode())} {text}\n"


def _entry(line: bytes) -> Entry | None:
    digest, _, text = line.partition(b" ")
    if digest.decode(errors="replace") != _digest(text):
        return None
    plain = json.loads(text)
    return Entry(**(plain | {"cost": Ledger(**plain["cost"])}))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _end(batch: list[tuple[str, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, stored in batch:
        if stored.done():
            continue
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)
            stored.exception()  # one who does not await it shall not be told of it at the end of the program
