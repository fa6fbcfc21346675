"""The tests' bad network is bad in the ways that it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.proxy import Proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy of a server that says what it is told."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


class Caller:
    """One connection through the proxy."""

    @classmethod
    async def of(cls, proxy: Proxy) -> Caller:
        caller = cls()
        caller.reader, caller.writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        return caller

    async def say(self, text: bytes, within_s: float = 20.0) -> bytes:
        self.writer.write(text)
        return await asyncio.wait_for(self.reader.readexactly(len(text)), within_s)


async def test_a_good_network(proxy: Proxy) -> None:
    """What is sent arrives, in order, and an end is passed on."""
    caller = await Caller.of(proxy)
    assert await caller.say(b"one") == b"one"
    assert await caller.say(b"x" * 300_000) == b"x" * 300_000
    caller.writer.write_eof()
    assert await asyncio.wait_for(caller.reader.read(), 20) == b""


async def test_cut_and_healed(proxy: Proxy) -> None:
    """A cut resets what stands and what comes; healed, new connections pass."""
    caller = await Caller.of(proxy)
    await caller.say(b"one")
    proxy.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await caller.say(b"two")
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await (await Caller.of(proxy)).say(b"three")
    proxy.heal()
    assert await (await Caller.of(proxy)).say(b"four") == b"four"


@pytest.mark.parametrize(("there", "back"), [(True, True), (True, False), (False, True)])
async def test_what_is_held_comes_later(proxy: Proxy, there: bool, back: bool) -> None:
    """Held, nothing comes; healed, all of it comes, on the same connection."""
    caller = await Caller.of(proxy)
    await caller.say(b"one")
    proxy.hold(there=there, back=back)
    with pytest.raises(TimeoutError):
        await caller.say(b"two", within_s=0.3)
    proxy.heal()
    assert await caller.say(b"!") == b"t"
    assert await asyncio.wait_for(caller.reader.readexactly(3), 20) == b"wo!"


async def test_stranded_connections_stay_dead(proxy: Proxy) -> None:
    """Those of that moment are silent for good; new ones work."""
    old = await Caller.of(proxy)
    await old.say(b"one")
    proxy.strand()
    proxy.heal()
    assert await (await Caller.of(proxy)).say(b"two") == b"two"
    with pytest.raises(TimeoutError):
        await old.say(b"three", within_s=0.3)


async def test_delay_and_throttle(proxy: Proxy) -> None:
    """A delay is met each way; a rate is not exceeded."""
    caller = await Caller.of(proxy)
    proxy.slow(delay_s=0.1)
    began = time.monotonic()
    await caller.say(b"one")
    assert time.monotonic() - began >= 0.2
    proxy.slow(bytes_per_s=100_000)
    began = time.monotonic()
    await caller.say(b"x" * 50_000)
    assert time.monotonic() - began >= 0.5
