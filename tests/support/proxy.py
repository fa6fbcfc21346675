"""A TCP proxy on a loopback port that can be a bad network.

async with Proxy("127.0.0.1", 5432) as proxy:
    proxy.port
    proxy.cut()              connections are reset, new ones refused at once
    proxy.hold()             nothing passes, connections stand: what was sent comes when it heals, as TCP does it
    proxy.hold(back=False)   the same towards the server alone: what it says still arrives
    proxy.strand()           the connections of this moment are dead for ever and nobody is told; new ones work
    proxy.slow(delay_s=0.05, bytes_per_s=20_000)
    proxy.heal()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field

_CHUNK = 1 << 14


@dataclass(eq=False)
class _Connection:
    """Both ends of one connection, and the tasks that carry between them."""

    ends: list[asyncio.StreamWriter]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    stranded: bool = False


class Proxy:
    """The proxy of one server; `target` may change between connections."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._cut = False
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self._delay_s = 0.0
        self._bytes_per_s = 0.0
        self.heal()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._reset()
        if self._serving:
            await asyncio.wait(self._serving, timeout=5.0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Resets every connection; new ones are reset too."""
        self._cut = True
        self._reset()

    def hold(self, *, there: bool = True, back: bool = True) -> None:
        """Lets nothing pass to the server (`there`) and from it (`back`) until it heals."""
        if there:
            self._there.clear()
        if back:
            self._back.clear()

    def strand(self) -> None:
        """As when the other machine is gone without a word."""
        for connection in self._connections:
            connection.stranded = True

    def slow(self, delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        """What is sent comes `delay_s` later, and no faster than `bytes_per_s` each way (0: as fast as it can)."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def heal(self) -> None:
        """A good network again. Stranded connections stay so."""
        self._cut = False
        self._there.set()
        self._back.set()
        self.slow()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        if self._cut:
            _abort(writer)
            return
        try:
            there, out = await asyncio.open_connection(*self.target)
        except OSError:
            _abort(writer)
            return
        connection = _Connection([writer, out])
        self._connections.add(connection)
        connection.tasks = [
            asyncio.create_task(self._carry(connection, reader, out, self._there)),
            asyncio.create_task(self._carry(connection, there, writer, self._back)),
        ]
        await asyncio.wait(connection.tasks, return_when=asyncio.FIRST_COMPLETED)
        # One side has ended; the other may still have something to say.
        await asyncio.wait(connection.tasks, timeout=2.0)
        if not connection.stranded:
            self._end(connection)

    async def _carry(
        self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, may: asyncio.Event
    ) -> None:
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            free_at = 0.0
            while True:
                due, data = await late.get()
                free_at = max(free_at, time.monotonic())
                if self._bytes_per_s:
                    free_at += len(data) / self._bytes_per_s
                await asyncio.sleep(max(due, free_at) - time.monotonic())
                await may.wait()
                if connection.stranded:
                    await asyncio.Event().wait()
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            with contextlib.suppress(OSError):
                while data := await reader.read(_CHUNK):
                    late.put_nowait((time.monotonic() + self._delay_s, data))
            late.put_nowait((time.monotonic() + self._delay_s, b""))
            with contextlib.suppress(OSError):
                await delivering
        finally:
            delivering.cancel()

    def _reset(self) -> None:
        for connection in [*self._connections]:
            self._end(connection)

    def _end(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        for task in connection.tasks:
            task.cancel()
        for writer in connection.ends:
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Closes with a reset, as a network that is gone does not even do politely."""
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
