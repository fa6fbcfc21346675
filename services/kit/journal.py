"""The journal of paid answers: append-only segments in the store, so that a crash pays for nothing twice.

    <service>/journal/<request_id>/<milliseconds>-<attempt>-<number>.jsonl

    Entry       one answer, and what it cost
    Journal     load: all entries of a request; append: returns once the entry is stored; book, unbook: what is sent

A segment is written whole and never again; its name is its attempt's own, so that two attempts cannot overwrite each
other. Answers that come while a segment is being written go into the next one together (group commit); where they come
one upon the other, a segment waits a moment for the next ones. Each line is `<sha256 of the rest, 16 digits> <JSON>`: a
line that was cut or flipped is skipped with a warning, its neighbours kept.

A request is booked as lost before it is sent, and its answer replaces that: what was under way at a kill stays booked.

`load` merges many small segments into one: that is written first, then they are deleted. A crash between leaves lines
twice, which is no harm: each bears a name of its own, and counts once. Damaged segments are left for a person to see.
"""

from __future__ import annotations

import asyncio
import contextlib
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
    """What came of one request for `key`: a `value`, or why it is `invalid`, or nothing that arrived (`lost`).

    `replaces` is the name of what was booked before the request was sent, and is not so any more.
    """

    key: str
    value: Any = None
    invalid: str = ""
    lost: bool = False
    cost: Ledger = field(default_factory=Ledger)
    replaces: str = ""


class Journal:
    """The paid answers of one request. Every method may be called from any task of one event loop."""

    def __init__(self, artifacts: Artifacts, request_id: str) -> None:
        self._store = artifacts.store
        self._prefix = f"{artifacts.service}/journal/{request_id}/"
        self._attempt = f"{time.time_ns() // 1_000_000:013d}-{uuid.uuid4().hex[:12]}"
        self._segments = self._lines = 0
        self._appended_at = 0.0
        self._awaited = asyncio.Event()
        self._pending: list[tuple[str, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something that was appended is not stored yet."""
        return self._writer is not None and not self._writer.done()

    async def load(self) -> list[Entry]:
        """All stored entries that none replaces, the oldest attempt's first. Errors are those of the store."""
        return await asyncio.to_thread(self.read)

    def read(self) -> list[Entry]:
        """As `load`, blocking."""
        return _load(self._store, self._prefix)

    def append(self, entry: Entry) -> asyncio.Future[None]:
        """Puts the entry into the next segment; the future ends when that is stored, or with the store's error.

        The entry is written even where nobody awaits the future.
        """
        return self._append(entry)[1]

    async def book(self, key: str, cost: Ledger) -> str:
        """Stores that a request is about to be sent, which is lost until an entry replaces what is named here.

        Raises the store's errors, and then the request must not be sent: its answer could not be stored either.
        """
        name, stored = self._append(Entry(key, lost=True, cost=cost))
        # A request is waiting for it.
        self._awaited.set()
        try:
            await stored
        except BaseException:
            self.unbook(key, name)
            raise
        return name

    def unbook(self, key: str, name: str) -> None:
        """Takes back what was booked: the request was not sent, or will not be charged."""
        self.append(Entry(key, lost=True, replaces=name))

    def _append(self, entry: Entry) -> tuple[str, asyncio.Future[None]]:
        stored = asyncio.get_running_loop().create_future()
        self._lines += 1
        name = f"{self._attempt}-{self._lines}"
        self._pending.append((_line(entry, name), stored))
        now = time.monotonic()
        if not self.busy:
            self._awaited.clear()
            self._writer = asyncio.create_task(self._write(_LINGER_S if now - self._appended_at < _DENSE_S else 0.0))
        self._appended_at = now
        return name, stored

    async def flush(self) -> None:
        """Returns when all that was appended is stored, or could not be."""
        while self._writer is not None and not self._writer.done():
            await asyncio.shield(self._writer)

    async def _write(self, linger_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._awaited.wait(), linger_s)
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
    # By name: where a merge was cut off, a line is there twice.
    entries = dict(_entry(line) for segment in segments for line in segment.lines)
    replaced = {entry.replaces for entry in entries.values()}
    return [entry for name, entry in entries.items() if name not in replaced]


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


def _entry(line: bytes) -> tuple[str, Entry]:
    """The line's name and what it holds. Lines of the first versions have no name: such a line is its own."""
    plain = json.loads(line.partition(b" ")[2])
    name = plain.pop("line", line.decode())
    return name, Entry(**(plain | {"cost": Ledger(**plain["cost"])}))


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
