"""A file of the hub, read block by block over whatever the connection does."""

from __future__ import annotations

import asyncio
import io
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_url
from huggingface_hub.utils import set_client_factory
from huggingface_hub.utils._http import default_client_factory

from services.dataset_retriever import remote
from services.dataset_retriever.remote import BLOCK_BYTES, CapReached, Caps, Line
from services.kit.errors import Cancelled, Unavailable
from services.kit.settings import Settings
from services.kit.values import Progress
from tests.support.hub import Fault, Hub

DATA = random.Random(1).randbytes(5 * BLOCK_BYTES + 12_345)
SMALL, LARGE = "a.jsonl", "a.parquet"


@pytest.fixture(autouse=True)
def client() -> Iterator[None]:
    """The hub client's own settings come back after each test."""
    yield
    set_client_factory(default_client_factory)


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with Hub() as server:
        server.add("datasets", "acme/a", {SMALL: DATA, LARGE: DATA})
        yield server


def _line(hub: Hub, tmp_path: Path, stop: object = None, **caps: float) -> Line:
    settings = Settings(home=tmp_path, hub_url=hub.url, hub_offline=False, hub_token="", hub_patience_s=2.0)
    line = Line(settings, stop or (lambda: None), Caps(**caps))  # type: ignore[arg-type]
    line.token = None
    return line


def _file(hub: Hub, line: Line, name: str) -> io.BufferedReader:
    url = hf_hub_url("acme/a", name, repo_type="dataset", revision="main", endpoint=hub.url)
    return io.BufferedReader(line.open(url, name), 1 << 16)


async def _whole(hub: Hub, tmp_path: Path, name: str) -> bytes:
    return await asyncio.to_thread(lambda: _file(hub, _line(hub, tmp_path), name).read())


@pytest.mark.parametrize("name", [SMALL, LARGE])
async def test_any_read_is_right_over_any_faults(
    hub: Hub, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty files' worth of seeks and reads, each with faults drawn at random: every byte is the file's."""
    monkeypatch.setattr(remote, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(remote, "_LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(remote, "_POLL_S", 0.005)
    where = "/cdn/*" if name == LARGE else "/api/resolve-cache/*"
    rng = random.Random(name)

    def read(number: int) -> None:
        file = _file(hub, _line(hub, tmp_path / str(number)), name)
        for _ in range(rng.randrange(3)):
            start = rng.randrange(len(DATA))
            file.seek(start)
            size = rng.choice([1, 1000, 100_000, 2_000_000])
            assert file.read(size) == DATA[start : start + size]
        file.seek(0)
        assert file.read() == DATA

    for number in range(20):
        for _ in range(rng.randrange(5)):
            kind = rng.choice(["cut", "short", "no_range", "status", "reset"])
            size = rng.choice([0, 1, 70_000, BLOCK_BYTES, 3 * BLOCK_BYTES + 1])
            fault = {
                "cut": Fault(cut=size), "short": Fault(short=max(1, size)), "no_range": Fault(no_range=True),
                "reset": Fault(no_range=True, cut=size), "status": Fault(status=rng.choice([500, 502, 503, 504])),
            }[kind]  # fmt: skip
            hub.fault(where, fault)
        await asyncio.to_thread(read, number)


async def test_an_address_that_has_expired_is_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    """403 of the other host is no refusal of the hub's: the next try gets a new address."""
    hub.fault("/cdn/*", Fault(status=403), times=2)
    file = await asyncio.to_thread(_file, hub, _line(hub, tmp_path), LARGE)
    assert await asyncio.to_thread(file.read) == DATA


async def test_a_wait_that_is_asked_for_is_kept_and_told(hub: Hub, tmp_path: Path) -> None:
    """429 with Retry-After 1: a second is waited, a person is told, and then it goes on."""
    hub.fault("/cdn/*", Fault(status=429, retry_after=1))
    line, told = _line(hub, tmp_path), list[Progress]()
    line._report = told.append
    file = await asyncio.to_thread(_file, hub, line, LARGE)
    begun = time.monotonic()
    assert await asyncio.to_thread(file.read) == DATA
    assert time.monotonic() - begun >= 1 and "wait 1 s" in told[0].message


async def test_a_server_that_falls_silent(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that does not come is a broken connection after a while, and is asked for again."""
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.3)
    hub.fault("/cdn/*", Fault(silent_s=3.0))
    file = await asyncio.to_thread(_file, hub, _line(hub, tmp_path), LARGE)
    assert await asyncio.to_thread(file.read, 10) == DATA[:10]


async def test_nothing_is_fetched_twice(hub: Hub, tmp_path: Path) -> None:
    """A second reading, in another line, asks for no byte; a damaged block is fetched again."""
    assert await _whole(hub, tmp_path, LARGE) == DATA
    before = len(hub.ranges("/cdn/*"))
    assert await _whole(hub, tmp_path, LARGE) == DATA
    assert len(hub.ranges("/cdn/*")) == before
    [block] = (tmp_path / "downloads" / "blocks").glob("*/2")
    block.write_bytes(b"short")
    assert await _whole(hub, tmp_path, LARGE) == DATA
    assert hub.ranges("/cdn/*")[before:] == [f"bytes={2 * BLOCK_BYTES}-{3 * BLOCK_BYTES - 1}"]


async def test_reading_far_apart_fetches_single_blocks(hub: Hub, tmp_path: Path) -> None:
    """From front to end more and more is fetched at once; a jump fetches one block."""
    file = await asyncio.to_thread(_file, hub, _line(hub, tmp_path), LARGE)
    await asyncio.to_thread(file.read)
    sizes = [int(end) - int(begin) + 1 for begin, end in (one[6:].split("-") for one in hub.ranges("/cdn/*"))]
    assert [size // BLOCK_BYTES for size in sizes] == [1, 2, 2]
    other = await asyncio.to_thread(_file, hub, _line(hub, tmp_path / "other"), LARGE)
    other.seek(-10, io.SEEK_END)
    assert await asyncio.to_thread(other.read) == DATA[-10:]
    assert hub.ranges("/cdn/*")[-1] == f"bytes={5 * BLOCK_BYTES}-{len(DATA) - 1}"


async def test_caps_and_stops(hub: Hub, tmp_path: Path) -> None:
    """A cap in bytes ends reading after what was paid for; a stop ends it at once, whatever is on its way."""
    file = await asyncio.to_thread(_file, hub, _line(hub, tmp_path, max_bytes=2 * BLOCK_BYTES), LARGE)
    assert await asyncio.to_thread(file.read, BLOCK_BYTES) == DATA[:BLOCK_BYTES]
    with pytest.raises(CapReached, match=r"2\.1 MB"):
        await asyncio.to_thread(file.read)
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked > 5:
            raise Cancelled("CANCELLED", "Stopped.")

    hub.fault("/cdn/*", Fault(bytes_per_s=100.0))
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        await asyncio.to_thread(lambda: _file(hub, _line(hub, tmp_path / "b", stop), LARGE).read())
    assert time.monotonic() - begun < 2


async def test_the_oldest_blocks_go_first(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the folder's limit what was not used for longest is removed when the next line is made."""
    monkeypatch.setattr(remote, "KEPT_BYTES", len(DATA) + 1000)
    for age, name in ((100, SMALL), (0, LARGE)):
        await _whole(hub, tmp_path, name)
        newest = max((tmp_path / "downloads" / "blocks").iterdir(), key=lambda folder: folder.stat().st_mtime)
        os.utime(newest, (time.time() - age, time.time() - age))
    _line(hub, tmp_path)
    assert list((tmp_path / "downloads" / "blocks").iterdir()) == [newest]


async def test_a_hub_that_never_answered_is_away(tmp_path: Path) -> None:
    """No connection at all: UNAVAILABLE is for the caller to say, and it is not tried for long."""
    hub = Hub()
    hub.url = "http://127.0.0.1:9"
    begun = time.monotonic()
    with pytest.raises(Exception) as raised:
        await asyncio.to_thread(lambda: _file(hub, _line(hub, tmp_path), LARGE).read())
    assert not isinstance(raised.value, Unavailable) and time.monotonic() - begun < 2
