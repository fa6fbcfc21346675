"""The journal of paid answers: nothing that was stored is lost, nothing damaged is believed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from dataclasses import asdict

import pytest

from services.kit.artifacts import Artifacts
from services.kit.errors import DiskFull
from services.kit.journal import Entry, Journal
from services.kit.values import Ledger


class SlowStore:
    """A folder store that takes its time to write, or has no room."""

    def __init__(self, store, seconds: float = 0.0, full: bool = False) -> None:
        self._store, self._seconds, self.full = store, seconds, full
        self.writes = 0

    def put(self, key: str, data: bytes) -> None:
        if self.full:
            raise DiskFull("no room")
        time.sleep(self._seconds)
        self.writes += 1
        self._store.put(key, data)

    def __getattr__(self, name: str):
        return getattr(self._store, name)


def segments(artifacts: Artifacts) -> list[str]:
    return artifacts.store.list("tests/journal/")


async def test_what_was_appended_is_loaded(artifacts):
    """Another attempt reads every entry as it was written, cost and all."""
    entries = [
        Entry("a", {"text": "Grüße\n\u2028ok"}, cost=Ledger(1, 10, 20, 0.5)),
        Entry("b", invalid="no JSON", cost=Ledger(1, 1, 1, invalid=1)),
        Entry("c", lost=True, cost=Ledger(1, 7)),
    ]
    journal = Journal(artifacts, "run/generate")
    for entry in entries:
        await journal.append(entry)
    assert await Journal(artifacts, "run/generate").load() == entries


async def test_an_entry_is_stored_when_its_future_is_done(artifacts):
    """The caller that awaited `append` can be killed at once: the entry is in the store, not in a buffer."""
    await Journal(artifacts, "run").append(Entry("a", 1))
    assert b'"key": "a"' in artifacts.store.get(segments(artifacts)[0])


async def test_what_was_booked_stays_until_it_is_replaced(artifacts):
    """A request that was booked and never answered is lost, at its cost; one that was answered or taken back is not."""
    journal = Journal(artifacts, "run")
    names = {key: await journal.book(key, Ledger(1, 10, 90)) for key in "abc"}
    answer = Entry("a", "yes", cost=Ledger(1, 10, 4), replaces=names["a"])
    await journal.append(answer)
    journal.unbook("b", names["b"])
    await journal.flush()
    under_way = Entry("c", lost=True, cost=Ledger(1, 10, 90))
    assert await Journal(artifacts, "run").load() == [under_way, answer, Entry("b", lost=True, replaces=names["b"])]


async def test_lines_without_a_name_are_read(artifacts):
    """The first versions gave lines no name: what was paid then is still there, each answer once."""
    lines = []
    for key in ("a", "b"):
        text = json.dumps({"key": key, "value": key, "invalid": "", "lost": False, "cost": asdict(Ledger(1, 2))})
        lines.append(f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {text}\n")
    artifacts.store.put("tests/journal/run/1.jsonl", "".join(lines).encode())
    artifacts.store.put("tests/journal/run/2.jsonl", lines[0].encode())
    entries = [Entry("a", "a", cost=Ledger(1, 2)), Entry("b", "b", cost=Ledger(1, 2))]
    assert await Journal(artifacts, "run").load() == entries


async def test_what_could_not_be_booked_is_taken_back(artifacts):
    """Cancelled while it was being stored, the request is not sent: it costs nothing."""
    journal = Journal(Artifacts(SlowStore(artifacts.store, 0.2), "tests"), "run")
    booking = asyncio.create_task(journal.book("a", Ledger(1, 10, 90)))
    await asyncio.sleep(0.05)
    booking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await booking
    await journal.flush()
    assert sum((entry.cost.requests for entry in await Journal(artifacts, "run").load()), 0) == 0


async def test_a_request_does_not_wait_for_company(artifacts, monkeypatch):
    """Answers wait a moment for each other, to be stored together; a request that is to be sent does not."""
    monkeypatch.setattr("services.kit.journal._LINGER_S", 60.0)
    journal = Journal(artifacts, "run")
    await journal.append(Entry("a"))
    late = journal.append(Entry("b"))
    await asyncio.wait_for(journal.book("c", Ledger(1)), 5.0)
    assert late.done()


async def test_many_at_once_share_a_write(artifacts):
    """200 concurrent answers need a handful of object writes, and each waits for its own."""
    store = SlowStore(artifacts.store, 0.02)
    journal = Journal(Artifacts(store, "tests"), "run")
    await asyncio.gather(*(journal.append(Entry(str(n), n)) for n in range(100)))
    await asyncio.gather(*(journal.append(Entry(str(n), n)) for n in range(100, 200)))
    assert store.writes <= 4
    assert {entry.key for entry in await journal.load()} == {str(n) for n in range(200)}


async def test_a_lone_answer_waits_for_nobody(artifacts, monkeypatch):
    """What comes a while after the last one is stored at once."""
    monkeypatch.setattr("services.kit.journal._LINGER_S", 2.0)
    began = time.monotonic()
    await Journal(artifacts, "run").append(Entry("lone"))
    assert time.monotonic() - began < 1


async def test_answers_close_upon_another_share_a_write(artifacts):
    """100 answers 5 ms apart make some twenty objects."""
    store = SlowStore(artifacts.store)
    journal = Journal(Artifacts(store, "tests"), "run")
    stored = []
    for number in range(100):
        stored.append(journal.append(Entry(str(number))))
        await asyncio.sleep(0.005)
    await asyncio.gather(*stored)
    assert store.writes < 40
    assert len(await journal.load()) == 100


async def scattered(artifacts: Artifacts, number: int) -> list[Entry]:
    """So many entries in as many segments, from two attempts."""
    entries = [Entry(str(n), "x" * n, cost=Ledger(1, n)) for n in range(number)]
    for some in (entries[: number // 2], entries[number // 2 :]):
        journal = Journal(artifacts, "run")
        for entry in some:
            await journal.append(entry)
            journal._appended_at = 0.0
        await asyncio.sleep(0.002)  # a later attempt has a later name
    return entries


async def test_many_small_segments_become_one(artifacts):
    """Loading 60 segments leaves one; what is loaded, and its order, is the same before and after."""
    entries = await scattered(artifacts, 60)
    assert len(segments(artifacts)) == 60
    assert await Journal(artifacts, "run").load() == entries
    assert len(segments(artifacts)) == 1
    later = Entry("later")
    await Journal(artifacts, "run").append(later)
    assert await Journal(artifacts, "run").load() == [*entries, later]


@pytest.mark.parametrize("deleted", [0, 1, 30, 59])
async def test_a_crash_while_merging_loses_and_doubles_nothing(artifacts, deleted):
    """Killed after the merged segment was written, whatever is deleted by then: each entry and its cost counts once."""
    entries = await scattered(artifacts, 60)
    left = iter(range(deleted))

    class Dying(SlowStore):
        def delete(self, key: str) -> None:
            if next(left, None) is None:
                raise DiskFull("killed")
            self._store.delete(key)

    await Journal(Artifacts(Dying(artifacts.store), "tests"), "run").load()
    assert len(segments(artifacts)) == 61 - deleted
    assert sorted(await Journal(artifacts, "run").load(), key=lambda entry: int(entry.key)) == entries


async def test_two_that_load_at_once_both_get_all(artifacts):
    """One that merges takes nothing from under the other's hands."""
    entries = await scattered(artifacts, 40)
    store = SlowStore(artifacts.store)
    listed = threading.Event()

    class Late(SlowStore):
        def list(self, prefix: str) -> list[str]:
            keys = self._store.list(prefix)
            if not listed.is_set():
                listed.set()
                time.sleep(0.3)  # meanwhile the other one merges
            return keys

    late = asyncio.create_task(Journal(Artifacts(Late(artifacts.store), "tests"), "run").load())
    await asyncio.to_thread(listed.wait)
    assert await Journal(Artifacts(store, "tests"), "run").load() == entries
    assert await late == entries


async def test_equal_entries_are_two(artifacts):
    """Two requests that were lost alike were both paid for."""
    journal = Journal(artifacts, "run")
    lost = Entry("a", lost=True, cost=Ledger(1, 5))
    await asyncio.gather(journal.append(lost), journal.append(lost))
    assert await Journal(artifacts, "run").load() == [lost, lost]


async def test_two_attempts_do_not_overwrite_each_other(artifacts):
    """Two attempts that write at the same time both keep their answers; the older one's comes first."""
    first, second = Journal(artifacts, "run"), Journal(artifacts, "run")
    await asyncio.gather(*(journal.append(Entry("same", name)) for name, journal in (("x", first), ("y", second))))
    assert sorted(entry.value for entry in await Journal(artifacts, "run").load()) == ["x", "y"]
    assert len(segments(artifacts)) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "garbage", "empty"])
async def test_a_damaged_segment_costs_only_its_damaged_lines(artifacts, damage, caplog):
    """Bytes that are not what was written are skipped with a warning; the lines beside them are kept."""
    journal = Journal(artifacts, "run")
    await asyncio.gather(*(journal.append(Entry(name, name * 50)) for name in "abc"))
    await Journal(artifacts, "run").append(Entry("d", 4))
    [key] = [key for key in segments(artifacts) if b'"key": "b"' in artifacts.store.get(key)]
    data = artifacts.store.get(key)
    hurt = {
        "cut": data[:-20],
        "flip": data.replace(b"bbbb", b"bXbb", 1),
        "garbage": data + b"\x00\xff no journal line\n",
        "empty": b"",
    }
    artifacts.store.put(key, hurt[damage])
    kept = [entry.key for entry in await Journal(artifacts, "run").load()]
    assert kept == {"cut": ["a", "b", "d"], "flip": ["a", "c", "d"], "garbage": [*"abcd"], "empty": ["d"]}[damage]
    assert ("damaged" in caplog.text) == (damage != "empty")


async def test_a_full_disk_is_told_to_each_and_not_remembered(artifacts):
    """The answer that could not be stored raises DiskFull; the next one is written when there is room."""
    store = SlowStore(artifacts.store, full=True)
    journal = Journal(Artifacts(store, "tests"), "run")
    results = await asyncio.gather(*(journal.append(Entry(str(n))) for n in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [DiskFull] * 3
    store.full = False
    await journal.append(Entry("later"))
    assert [entry.key for entry in await journal.load()] == ["later"]


async def test_an_entry_nobody_waits_for_is_written(artifacts):
    """A cancelled caller's answer was paid for: it is stored all the same."""
    journal = Journal(Artifacts(SlowStore(artifacts.store, 0.05), "tests"), "run")
    journal.append(Entry("first"))
    waiting = asyncio.ensure_future(_await(journal.append(Entry("second"))))
    await asyncio.sleep(0)
    waiting.cancel()
    await journal.flush()
    assert [entry.key for entry in await journal.load()] == ["first", "second"]


async def test_a_request_does_not_read_its_parts(artifacts):
    """ "run/generate" and "run/generate/0" keep apart, though one id begins the other."""
    await Journal(artifacts, "run/generate/0").append(Entry("part"))
    await Journal(artifacts, "run/generate").append(Entry("whole"))
    await Journal(artifacts, "run/generate-2").append(Entry("other"))
    assert [entry.key for entry in await Journal(artifacts, "run/generate").load()] == ["whole"]


async def _await(future):
    return await future
