"""A channel finds all replicas, goes round those that are busy or broken, and gives up in time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from p2m.generator.v1.generator_pb2 import GenerateResponse, GenerateResult
from p2m.generator.v1.generator_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)

from services.kit.channel import dial, stream, wait_until_serving
from services.kit.errors import Cancelled, DeadlineExceeded, Internal, NoFreeSlot, Unavailable
from services.kit.server import Server
from services.kit.settings import Settings
from tests.support.nameserver import Nameserver, nameserver
from tests.support.processes import pid_in, until
from tests.support.seaweed import free_ports
from tests.support.toy import Toy, ask, hosted

ROOT = Path(__file__).resolve().parent.parent.parent


class Replicas:
    """Toy services that share a store, and one channel to all of them."""

    def __init__(self, toys: list[Toy], servers: list[Server], channel: grpc.aio.Channel) -> None:
        self.toys, self.servers = toys, servers
        self.stub = GeneratorServiceStub(channel)

    async def labels(self, number: int) -> Counter[str]:
        """Which replica answered, over `number` different requests."""
        answers = [await stream(self.stub.Generate, ask("answer", f"run/{os.urandom(6).hex()}")) for _ in range(number)]
        return Counter(answer.llm for answer in answers)


@pytest.fixture
async def two(settings: Settings) -> AsyncIterator[Replicas]:
    """Two replicas with one slot each, and a channel that knows both."""
    own = settings.model_copy(update={"slots": 1, "grace_s": 1.0})
    toys = [Toy(own, "a"), Toy(own, "b")]
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(hosted(toy)) for toy in toys]
        addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
        channel = await stack.enter_async_context(dial(f"ipv4:{addresses}", own))
        replicas = Replicas(toys, servers, channel)
        await _until_both(replicas)
        yield replicas


async def test_calls_go_round(two: Replicas) -> None:
    """Of many calls each of two replicas gets half."""
    assert await two.labels(10) == {"a": 5, "b": 5}


async def test_a_busy_replica_has_a_sibling(two: Replicas) -> None:
    """While one replica's slot is taken, every call is answered by the other, soon."""
    held = asyncio.ensure_future(stream(two.stub.Generate, ask("wait", "run/held")))
    await until(lambda: any(toy.worked and toy.stage.slots.taken for toy in two.toys))
    free = next(toy.label for toy in two.toys if not toy.stage.slots.taken)
    began = time.monotonic()
    assert await two.labels(8) == {free: 8}
    assert time.monotonic() - began < 2
    for toy in two.toys:
        toy.release.set()
    await held


async def test_when_all_are_busy_it_waits(two: Replicas) -> None:
    """With every replica busy a call waits until a slot is free; without one in time it is NoFreeSlot."""
    held = [asyncio.ensure_future(stream(two.stub.Generate, ask("wait", f"run/held/{number}"))) for number in range(2)]
    await until(lambda: all(toy.stage.slots.taken for toy in two.toys), 6)
    with pytest.raises(NoFreeSlot):
        await stream(two.stub.Generate, ask("answer"), timeout_s=0.5)
    waiting = asyncio.ensure_future(stream(two.stub.Generate, ask("answer"), timeout_s=10))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    for toy in two.toys:
        toy.release.set()
    assert (await waiting).llm in "ab"
    await asyncio.gather(*held)


async def test_a_replica_that_drains_gets_no_calls(two: Replicas) -> None:
    """Calls go on without one error while one of two replicas ends."""
    stopping = asyncio.ensure_future(two.servers[0].stop())
    labels = await two.labels(20)
    await stopping
    assert labels["b"] >= 18
    assert await two.labels(4) == {"b": 4}


async def test_a_call_that_meets_a_closing_server_is_made_again(settings: Settings) -> None:
    """gRPC's own CANCELLED, which a closing server gives to a call that it never took, is no error of the call."""
    asked = 0

    class Closing(GeneratorServiceServicer):
        async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
            nonlocal asked
            asked += 1
            if asked == 1 or request.request_id == "run/always":
                await context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
            yield GenerateResponse(result=GenerateResult(llm="a"))

    server = grpc.aio.server()
    add_GeneratorServiceServicer_to_server(Closing(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")  # no health service to ask
    stub = GeneratorServiceStub(channel)
    assert (await stream(stub.Generate, ask("answer", "run/once"))).llm == "a"
    assert asked == 2
    with pytest.raises(Cancelled):
        await stream(stub.Generate, ask("answer", "run/always"))
    assert asked == 2 + 4
    await channel.close()
    await server.stop(None)


async def test_a_replica_that_is_not_warm_gets_no_calls(settings: Settings) -> None:
    """A replica that accepts connections and is NOT_SERVING gets no calls until it is warm, and then its share."""
    cold, warm = Toy(settings, "cold"), Toy(settings, "warm")
    cold.warmed.clear()
    server = Server(cold, settings)
    starting = asyncio.ensure_future(server.start(0))
    await until(lambda: server.port)
    async with hosted(warm) as other:
        async with dial(f"ipv4:127.0.0.1:{server.port},127.0.0.1:{other.port}", settings) as channel:
            replicas = Replicas([cold, warm], [server, other], channel)
            assert await replicas.labels(10) == {"warm": 10}
            cold.warmed.set()
            await starting
            await _until_both(replicas)
        await server.stop()


async def test_a_call_that_breaks_before_its_first_message_is_made_again(settings: Settings) -> None:
    """UNAVAILABLE of the transport, before any message, is retried within the call: the caller sees the answer only."""
    toy = Toy(settings)
    async with hosted(toy) as server, dial(f"127.0.0.1:{server.port}", settings) as channel:
        result = await stream(GeneratorServiceStub(channel).Generate, ask("break off once"))
    assert (toy.worked, result.rows) == (3, 3)


async def test_what_the_service_calls_unavailable_is_not_repeated(settings: Settings) -> None:
    """A service that says itself that the LLM is out of reach has tried: gRPC does not have it do all that again."""
    toy = Toy(settings)
    async with hosted(toy) as server, dial(f"127.0.0.1:{server.port}", settings) as channel:
        with pytest.raises(Unavailable, match="LLM"):
            await stream(GeneratorServiceStub(channel).Generate, ask("be unavailable"))
    assert toy.worked == 1


async def test_a_stream_that_breaks_after_a_message_is_unavailable(settings: Settings, tmp_path: Path) -> None:
    """When the server is killed in the middle of a stream the caller gets Unavailable, at once and once."""
    with _served_elsewhere(tmp_path) as (process, port):
        seen, call = await _call_that_waits(port, settings)
        process.kill()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(call, 5)
    assert len(seen) == 1


async def test_nobody_there_ends_at_the_deadline(settings: Settings) -> None:
    """With no server at the target a call waits for one until its deadline, and no longer."""
    async with dial(f"127.0.0.1:{free_ports(1)[0]}", settings) as channel:
        began = time.monotonic()
        with pytest.raises((DeadlineExceeded, Unavailable)):
            await stream(GeneratorServiceStub(channel).Generate, ask("answer"), timeout_s=1.0)
        assert time.monotonic() - began < 3
        with pytest.raises((DeadlineExceeded, Unavailable)):
            await wait_until_serving(channel, 0.5)


async def test_a_server_that_comes_late_is_waited_for(settings: Settings) -> None:
    """A call made before the server is up is answered when it is."""
    [port] = free_ports(1)
    async with dial(f"127.0.0.1:{port}", settings) as channel:
        call = asyncio.ensure_future(stream(GeneratorServiceStub(channel).Generate, ask("answer"), timeout_s=15))
        await asyncio.sleep(1)
        async with hosted(Toy(settings), port):
            assert (await call).llm == "toy"


async def test_a_stream_without_a_result_breaks_the_contract(settings: Settings) -> None:
    """An implementation whose stream ends without a result is told apart from one that failed."""
    async with hosted(Toy(settings)) as server, dial(f"127.0.0.1:{server.port}", settings) as channel:
        with pytest.raises(Internal, match="without a result"):
            await stream(GeneratorServiceStub(channel).Generate, ask("end without result"))


async def test_a_new_replica_gets_work_within_seconds(settings: Settings) -> None:
    """A replica that is added behind a name gets calls soon, over a channel that is in use all the time."""
    own = settings.model_copy(update={"connection_age_s": 2.0})
    toys = [Toy(own, "old"), Toy(own, "new")]
    async with AsyncExitStack() as stack:
        names: Nameserver = await stack.enter_async_context(nameserver())
        names.addresses = ["127.0.0.1"]
        old = await stack.enter_async_context(hosted(toys[0]))
        new = Server(toys[1], own.model_copy(update={"host": "127.0.0.2"}))
        await new.start(old.port)
        stack.push_async_callback(new.stop)
        channel = await stack.enter_async_context(dial(f"{names.target}/replicas.test:{old.port}", own))
        replicas = Replicas(toys, [old, new], channel)
        assert await replicas.labels(4) == {"old": 4}
        names.addresses = ["127.0.0.1", "127.0.0.2"]
        began = time.monotonic()
        await _until_both(replicas, 15)
        assert time.monotonic() - began < 10
        assert names.asked >= 2


async def test_a_peer_that_hangs_is_noticed(settings: Settings, tmp_path: Path) -> None:
    """Within 25 s, though its connection stands: the work of a caller that hangs ends, and the caller of a server that
    hangs gets Unavailable."""
    await asyncio.gather(_a_hanging_caller(settings, tmp_path), _a_hanging_server(settings, tmp_path))


async def _a_hanging_caller(settings: Settings, folder: Path) -> None:
    toy = Toy(settings)
    async with hosted(toy) as server:
        with _python(CALL.format(port=server.port, file=str(folder / "pid")), {}) as process:
            await pid_in(folder)
            process.send_signal(signal.SIGSTOP)
            await until(lambda: toy.ended == 1, 25)


async def _a_hanging_server(settings: Settings, folder: Path) -> None:
    with _served_elsewhere(folder) as (process, port):
        _, call = await _call_that_waits(port, settings)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(call, 25)


async def _call_that_waits(port: int, settings: Settings) -> tuple[list[Any], asyncio.Future[Any]]:
    """A call to a server that has sent a first message, and what it has reported so far."""
    seen: list[Any] = []

    async def call() -> Any:
        async with dial(f"127.0.0.1:{port}", settings) as channel:
            return await stream(GeneratorServiceStub(channel).Generate, ask("wait"), seen.append, timeout_s=60)

    waiting = asyncio.ensure_future(call())
    await until(lambda: seen, 20)
    return seen, waiting


SERVE = """
import asyncio
from services.kit.server import serve
from services.kit.settings import Settings
from tests.support.toy import Toy
async def main():
    settings = Settings()
    await serve(Toy(settings), settings)
asyncio.run(main())
"""
CALL = """
import asyncio, os
from pathlib import Path
from p2m.generator.v1.generator_pb2 import GenerateResponse, GenerateResult
from p2m.generator.v1.generator_pb2_grpc import (
    GeneratorServiceServicer,
    GeneratorServiceStub,
    add_GeneratorServiceServicer_to_server,
)
from services.kit.channel import dial, stream
from services.kit.settings import Settings
from tests.support.toy import ask
async def main():
    async with dial("127.0.0.1:{port}", Settings()) as channel:
        generate = GeneratorServiceStub(channel).Generate
        await stream(generate, ask("wait"), lambda _: Path({file!r}).write_text(str(os.getpid())))
asyncio.run(main())
"""


@contextmanager
def _served_elsewhere(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    [port] = free_ports(1)
    with _python(SERVE, {"P2M_HOME": str(home), "P2M_PORT": str(port)}) as process:
        yield process, port


@contextmanager
def _python(code: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def _until_both(replicas: Replicas, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while len(await replicas.labels(4)) < 2:
        assert time.monotonic() < deadline, "one of two replicas gets no calls"
        await asyncio.sleep(0.05)
