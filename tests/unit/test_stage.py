"""A stage request has its effect once, and its work lives as long as its caller."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from p2m.common.v1 import common_pb2
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit.channel import dial, stream
from services.kit.errors import Aborted, AlreadyExists, InvalidArgument, NoFreeSlot
from services.kit.settings import Settings
from services.kit.values import Progress
from tests.support.processes import is_alive, pid_in, until
from tests.support.toy import Toy, ask, hosted


@pytest.fixture
def toy(settings: Settings, tmp_path: Path) -> Toy:
    return Toy(settings.model_copy(update={"grace_s": 1.0}), folder=tmp_path)


@pytest.fixture
async def stub(toy: Toy) -> AsyncIterator[GeneratorServiceStub]:
    async with hosted(toy) as server, dial(f"127.0.0.1:{server.port}", toy.settings) as channel:
        yield GeneratorServiceStub(channel)


async def test_the_same_request_works_once(toy: Toy, stub: GeneratorServiceStub) -> None:
    """The same id and content give the stored result with no second work, from another replica too."""
    first = await stream(stub.Generate, ask("answer"))
    assert await stream(stub.Generate, ask("answer")) == first
    assert toy.worked == 1
    other = Toy(toy.settings)
    async with hosted(other) as server, dial(f"127.0.0.1:{server.port}", toy.settings) as channel:
        assert await stream(GeneratorServiceStub(channel).Generate, ask("answer")) == first
    assert other.worked == 0


async def test_other_content_under_the_same_id_is_refused(toy: Toy, stub: GeneratorServiceStub) -> None:
    """The same id with other content is AlreadyExists and does no work."""
    await stream(stub.Generate, ask("answer"))
    with pytest.raises(AlreadyExists, match="run/generate") as raised:
        await stream(stub.Generate, ask("answer", seed=7))
    assert raised.value.field == "request_id"
    assert toy.worked == 1
    await stream(stub.Generate, ask("answer", "run/generate/0", seed=7))


async def test_an_unfinished_attempt_holds_its_id(toy: Toy, stub: GeneratorServiceStub) -> None:
    """What an unfinished attempt left (paid answers, checkpoints) is not taken up by other content under its id."""
    call = stub.Generate(ask("wait"))
    await call.read()
    call.cancel()
    await until(lambda: toy.ended == 1)
    with pytest.raises(AlreadyExists):
        await stream(stub.Generate, ask("wait", seed=1))
    toy.release.set()
    assert (await stream(stub.Generate, ask("wait"))).rows == 2


async def test_the_allowance_is_not_content(toy: Toy, stub: GeneratorServiceStub) -> None:
    """A finished result is given whatever the allowance; one that a larger allowance betters is not kept."""
    small, large = common_pb2.Allowance(requests=1), common_pb2.Allowance(requests=9)
    first = await stream(stub.Generate, ask("answer", allowance=small))
    assert await stream(stub.Generate, ask("answer", allowance=large)) == first
    assert toy.worked == 1
    for expected in (2, 3):
        assert (await stream(stub.Generate, ask("spend", "run/spend", allowance=large))).rows == expected


async def test_an_older_attempt_is_not_recorded(toy: Toy, stub: GeneratorServiceStub) -> None:
    """When a newer attempt at the same request has begun, the older one's result is Aborted and not stored."""
    older = asyncio.ensure_future(stream(stub.Generate, ask("wait")))
    await until(lambda: toy.worked == 1)
    other = Toy(toy.settings, label="newer")
    async with hosted(other) as server, dial(f"127.0.0.1:{server.port}", toy.settings) as channel:
        newer = asyncio.ensure_future(stream(GeneratorServiceStub(channel).Generate, ask("wait")))
        await until(lambda: other.worked == 1)
        toy.release.set()
        with pytest.raises(Aborted, match="newer attempt"):
            await older
        other.release.set()
        assert (await newer).llm == "newer"
    assert (await stream(stub.Generate, ask("wait"))).llm == "newer"


@pytest.mark.parametrize("request_id", ["", "../x", "run//train", "run/../../x", "run train", "x" * 300])
async def test_a_bad_id_is_refused(toy: Toy, stub: GeneratorServiceStub, request_id: str) -> None:
    """A request id that is none is InvalidArgument, not a path."""
    with pytest.raises(InvalidArgument):
        await stream(stub.Generate, ask("answer", request_id))
    assert toy.worked == 0


async def test_a_part_and_its_whole_are_two_requests(stub: GeneratorServiceStub) -> None:
    """ "run/generate" and "run/generate/0" do not get into each other's way."""
    for request_id in ("run/generate", "run/generate/0", "run/generate/0/1"):
        await stream(stub.Generate, ask("answer", request_id))


async def test_progress_comes_before_the_result(stub: GeneratorServiceStub) -> None:
    """Progress is forwarded while the work goes on, the newest at last, NaN as NaN, from another thread at once."""
    seen: list[Progress] = []
    await stream(stub.Generate, ask("report", number=60), seen.append)
    assert 2 <= len(seen) < 30, "it is for people: a few a second"
    assert seen[-1].done == 59 and math.isnan(seen[-1].metrics[0].value)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)

    call = stub.Generate(ask("report from a thread", "run/thread"))
    began = time.monotonic()
    assert (await call.read()).progress.message == "from a thread"
    assert time.monotonic() - began < 0.4
    call.cancel()


async def test_every_slot_taken_is_said(toy: Toy, stub: GeneratorServiceStub) -> None:
    """With every slot taken one more request is refused at once with RetryInfo; a stored result needs no slot."""
    stored = await stream(stub.Generate, ask("answer", "run/stored"))
    calls = [stub.Generate(ask("wait", f"run/wait/{number}")) for number in range(toy.settings.slots)]
    for call in calls:
        await call.read()
    with pytest.raises(NoFreeSlot) as raised:
        await stream(stub.Generate, ask("answer"), timeout_s=0.5)
    assert raised.value.retry_after == 1.0
    assert await stream(stub.Generate, ask("answer", "run/stored")) == stored
    toy.release.set()
    for call in calls:
        assert (await call.read()).WhichOneof("event") == "result"
    assert (await stream(stub.Generate, ask("answer"))).llm == "toy"


@pytest.mark.parametrize("ignores_sigterm", [False, True])
async def test_a_cancelled_call_ends_its_child(
    toy: Toy, stub: GeneratorServiceStub, tmp_path: Path, ignores_sigterm: bool
) -> None:
    """A cancelled stream reaches the server's task and its child: asked within 2 s and gone within the grace."""
    task = asyncio.ensure_future(stream(stub.Generate, ask("child", number=int(ignores_sigterm))))
    pid = await pid_in(tmp_path)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: toy.ended == 1)
    assert time.monotonic() - began < 2 + toy.settings.grace_s * ignores_sigterm
    assert not is_alive(pid)
    assert (tmp_path / "saved").exists() != ignores_sigterm
    await until(lambda: toy.stage.slots.taken == 0)


async def test_a_caller_that_does_not_read_can_cancel_too(toy: Toy, stub: GeneratorServiceStub) -> None:
    """Work whose stream is stuck, since its caller reads nothing, ends when that caller cancels."""
    call = stub.Generate(ask("flood"))
    await call.read()
    await asyncio.sleep(1.5)  # the window is full, and the handler waits to write
    call.cancel()
    await until(lambda: toy.ended == 1)
    await until(lambda: toy.stage.slots.taken == 0)


async def test_breaking_out_of_the_loop_is_not_enough_but_stream_cancels(toy: Toy, stub: GeneratorServiceStub) -> None:
    """An error in the caller's own report function ends the call and with it the work."""

    def broken(_: Progress) -> None:
        raise KeyError("the caller's own bug")

    with pytest.raises(KeyError):
        await stream(stub.Generate, ask("wait"), broken)
    await until(lambda: toy.ended == 1)


async def test_a_deadline_ends_the_work(toy: Toy, stub: GeneratorServiceStub) -> None:
    """When the caller's deadline has passed, the caller knows and the work ends."""
    call = stub.Generate(ask("wait"), timeout=0.5)
    with pytest.raises(grpc.RpcError) as raised:
        async for _ in call:
            pass
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    await until(lambda: toy.ended == 1)
