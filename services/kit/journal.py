"""The journal of paid answers: append-only segments in the store, so that a crash pays for nothing twice.

    <service>/journal/<request_id>/<milliseconds>-<attempt>-<number>.jsonl

    Entry       one answer, and what it cost
    Journal     load: all entries of a request; append: returns once the entry is stored

A segment is written whole and never again; its name is its attempt's own, so that two attempts cannot overwrite each
other. Answers that come while a segment is being written go into the next one together (group commit); where they come
one upon the other, a segment waits a moment for the next ones. Each line is `<sha256 of the rest, 16 digits> <JSON>`: a
line that was cut or flipped is skipped with a warning, its neighbours kept.

`load` merges many small segments into one: that is written first, then they are deleted. A crash between leaves lines
twice, which is no harm: each bears a name of its own, and counts once. Damaged segments are left for a person to see.
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

from services.kit.artifacts import Artifacts, Store
from services.kit.errors import NotFound, P2MError
from services.kit.values import Ledger

log = logging.getLogger(__name__)

_READERS = 16
# Answers that come within _DENSE_S of each other wait _LINGER_S for more: far less than an answer takes.
_DENSE_S, _LINGER_S = 0.1, 0.03
# So many segments smaller than this are merged into ones of at most that.
_MANY, _SMALL_BYTES, _MERGED_BYTES = 32, 1 << 20, 8 << 20


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
        self._segments = self._lines = 0
        self._appended_at = 0.0
        self._pending: list[tuple[str, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something that was appended is not stored yet."""
        return self._writer is not None and not self._writer.done()

    async def load(self) -> list[Entry]:
        """All stored entries, the oldest attempt's first. Errors are those of the store."""
        return await asyncio.to_thread(self.read)

    def read(self) -> list[Entry]:
        """As `load`, blocking."""
        return _load(self._store, self._prefix)

    def append(self, entry: Entry) -> asyncio.Future[None]:
        """Puts the entry into the next segment; the future ends when that is stored, or with the store's error.

        The entry is written even where nobody awaits the future.
        """
        stored = asyncio.get_running_loop().create_future()
        self._lines += 1
        self._pending.append((_line(entry, f"{self._attempt}-{self._lines}"), stored))
        now = time.monotonic()
        if not self.busy:
            self._writer = asyncio.create_task(self._write(_LINGER_S if now - self._appended_at < _DENSE_S else 0.0))
        self._appended_at = now
        return stored

    async def flush(self) -> None:
        """Returns when all that was appended is stored, or could not be."""
        while self._writer is not None and not self._writer.done():
            await asyncio.shield(self._writer)

    async def _write(self, linger_s: float) -> None:
        await asyncio.sleep(linger_s)
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


@dataclass
class _Segment:
    """A stored segment: its undamaged lines."""

    key: str
    size: int
    lines: list[bytes]
    damaged: bool


def _load(store: Store, prefix: str) -> list[Entry]:
    segments = _segments(store, prefix)
    try:
        _merge(store, [one for one in segments if not one.damaged and one.size < _SMALL_BYTES])
    except P2MError as error:  # the answers are there; merging them can wait
        log.warning("The small segments of %s could not be merged: %s", prefix, error.message)
    lines = dict.fromkeys(line for segment in segments for line in segment.lines)
    return [_entry(line) for line in lines]


def _segments(store: Store, prefix: str) -> list[_Segment]:
    while True:
        # Only this request's own segments: a request id may be the beginning of another one's.
        keys = [key for key in store.list(prefix) if "/" not in key.removeprefix(prefix)]
        with ThreadPoolExecutor(_READERS) as readers:
            segments = list(readers.map(lambda key: _read(store, key), keys))
        # Where one was deleted since it was listed, another attempt has merged them: all are read anew.
        found = [segment for segment in segments if segment is not None]
        if len(found) == len(keys):
            return found


def _read(store: Store, key: str) -> _Segment | None:
    try:
        data = store.get(key)
    except NotFound:
        return None
    segment = _Segment(key, len(data), [], False)
    for number, line in enumerate(data.split(b"\n"), 1):
        digest, _, text = line.partition(b" ")
        if digest.decode(errors="replace") == _digest(text):
            segment.lines.append(line)
        elif line:
            segment.damaged = True
            log.warning("%s, line %d: a stored answer is damaged; it will be asked for again.", key, number)
    return segment


def _merge(store: Store, small: list[_Segment]) -> None:
    """Puts the lines of many segments into few, and deletes them."""
    if len(small) < _MANY:
        return
    group, size = [small[0]], small[0].size
    for segment in [*small[1:], None]:
        if segment is not None and size + segment.size <= _MERGED_BYTES:
            group.append(segment)
            size += segment.size
            continue
        # The name sorts where the first of them was, so that the order stays.
        key = f"{group[0].key.removesuffix('.jsonl')}-{uuid.uuid4().hex[:8]}.jsonl"
        store.put(key, b"".join(line + b"\n" for one in group for line in one.lines))
        with ThreadPoolExecutor(_READERS) as deleters:
            list(deleters.map(store.delete, [one.key for one in group]))
        if segment is not None:
            group, size = [segment], segment.size


def _line(entry: Entry, name: str) -> str:
    text = json.dumps(asdict(entry) | {"line": name}, ensure_ascii=True, sort_keys=True)
    return f"{_digest(text.encode())} {text}\n"


def _entry(line: bytes) -> Entry:
    plain = json.loads(line.partition(b" ")[2])
    plain.pop("line", None)
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
