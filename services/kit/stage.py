"""One stage request, done once: the idempotency that makes at-least-once steps have their effect once.

A request names itself by `request_id`. Its content is the message without `request_id` and how it is to be done
(`allowance`, `prefer`). The same id and content give the stored result; the same id with other content is
AlreadyExists, finished or not. Work lives as long as its stream: when the caller is gone it is cancelled. A newer
attempt fences off an older one, whose result is then not recorded.

    results/<request_id>.json     {"content", "response"}
    attempts/<request_id>.json    {"content", "attempt"}: the newest
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message import Message

from services.kit import telemetry
from services.kit.artifacts import Artifacts, check_key
from services.kit.errors import Aborted, AlreadyExists, DataLoss, InvalidArgument, NotFound
from services.kit.slots import Slots
from services.kit.values import Progress
from services.kit.wire import to_message

M = TypeVar("M", bound=Message)
Report = Callable[[Progress], None]

# Progress is for people: more often than this nobody reads it.
_PROGRESS_INTERVAL_S = 0.2


class Stage:
    """A service's requests: finds stored results, takes slots, forwards progress, records results."""

    def __init__(self, artifacts: Artifacts, slots: Slots) -> None:
        self.artifacts = artifacts
        self.slots = slots
        service = (artifacts.service,)
        telemetry.metrics.SLOTS.watch(slots, lambda of: {service: of.number})
        telemetry.metrics.SLOTS_TAKEN.watch(slots, lambda of: {service: of.taken})

    async def unary(
        self,
        request: Message,
        response_type: type[M],
        work: Callable[[], Awaitable[M]],
        keep: Callable[[M], bool] = lambda _: True,
    ) -> M:
        """The stored response to `request`, or that of `work`, stored where `keep` says so.

        `keep` is false of a response that a larger allowance would better: the same request then goes on.
        """
        key, content = _identity(request)
        telemetry.asked_for(key)
        stored = await asyncio.to_thread(self._stored, key, content, response_type)
        if stored is not None:
            telemetry.reused(self.artifacts.service)
            return stored
        with self.slots.take():
            attempt = await asyncio.to_thread(self._begin, key, content)
            response = await work()
            await asyncio.to_thread(self._record, key, content, attempt, response, keep(response))
        return response

    async def stream(
        self,
        request: Message,
        response_type: type[Any],
        result_type: type[M],
        work: Callable[[Report], Awaitable[M]],
        keep: Callable[[M], bool] = lambda _: True,
    ) -> AsyncGenerator[Any, None]:
        """Progress of `work`, then its result, stored where `keep` says so; or the stored result at once."""
        key, content = _identity(request)
        telemetry.asked_for(key)
        stored = await asyncio.to_thread(self._stored, key, content, result_type)
        if stored is not None:
            telemetry.reused(self.artifacts.service)
            yield response_type(result=stored)
            return
        with self.slots.take():
            attempt = await asyncio.to_thread(self._begin, key, content)
            result: M | None = None
            async with contextlib.aclosing(with_progress(work)) as events:
                async for event in events:
                    if isinstance(event, Progress):
                        yield response_type(progress=to_message(event, type(response_type().progress)))
                    else:
                        result = event
            assert result is not None
            await asyncio.to_thread(self._record, key, content, attempt, result, keep(result))
        yield response_type(result=result)

    def _stored(self, key: str, content: str, response_type: type[M]) -> M | None:
        record = self._read("results", key)
        if record is None:
            return None
        _check_same(key, content, record)
        return Parse(json.dumps(record["response"]), response_type())

    def _begin(self, key: str, content: str) -> str:
        # An unfinished attempt has journaled answers and checkpoints: they must not be taken for another content's.
        earlier = self._read("attempts", key)
        if earlier is not None:
            _check_same(key, content, earlier)
        attempt = uuid.uuid4().hex
        self._write("attempts", key, {"content": content, "attempt": attempt})
        return attempt

    def _record(self, key: str, content: str, attempt: str, response: Message, keep: bool) -> None:
        newest = self._read("attempts", key)
        if newest is None or newest["attempt"] != attempt:
            raise Aborted("NEWER_ATTEMPT", f"A newer attempt at {key} is under way; this one's result is not recorded.")
        if keep:
            plain = json.loads(MessageToJson(response, preserving_proto_field_name=True))
            self._write("results", key, {"content": content, "response": plain})

    def _read(self, kind: str, key: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads(self.artifacts.store.get(self._key(kind, key)))
        except NotFound:
            return None
        except (ValueError, RecursionError) as error:
            raise DataLoss(
                "BAD_RECORD", f"The record {self._key(kind, key)} is damaged; delete that object."
            ) from error
        return record

    def _write(self, kind: str, key: str, record: dict[str, Any]) -> None:
        self.artifacts.store.put(self._key(kind, key), json.dumps(record).encode())

    def _key(self, kind: str, key: str) -> str:
        return f"{self.artifacts.service}/{kind}/{key}.json"


async def with_progress(work: Callable[[Report], Awaitable[M]]) -> AsyncGenerator[Progress | M, None]:
    """Runs `work` in a task and yields its progress as it comes, then its result. Closing it cancels the task.

    `work` may report from any thread.
    """
    loop = asyncio.get_running_loop()
    latest: list[Progress] = []
    arrived = asyncio.Event()

    def report(progress: Progress) -> None:
        latest[:] = [progress]
        loop.call_soon_threadsafe(arrived.set)

    task = asyncio.ensure_future(work(report))
    task.add_done_callback(lambda _: arrived.set())
    try:
        while True:
            await arrived.wait()
            arrived.clear()
            if latest:
                yield latest.pop()
            if task.done():
                yield task.result()
                return
            await asyncio.wait([task], timeout=_PROGRESS_INTERVAL_S)
            if task.done():
                arrived.set()
    finally:
        # Waits for the end, so that a child process is gone before the slot is free again.
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, so that nobody logs it as never retrieved


def _check_same(key: str, content: str, record: dict[str, Any]) -> None:
    if record["content"] != content:
        raise AlreadyExists(
            "OTHER_CONTENT", f"The request id {key} was used for other content. Take another id.", field="request_id"
        )


def _identity(request: Any) -> tuple[str, str]:
    """The request's id and the hash of its content."""
    if not request.request_id:
        raise InvalidArgument("NO_REQUEST_ID", 'request_id is empty; wanted "<run>/<stage>".', field="request_id")
    key = check_key(request.request_id)
    content = type(request)()
    content.CopyFrom(request)
    for name in ("request_id", "allowance", "prefer"):
        if name in content.DESCRIPTOR.fields_by_name:
            content.ClearField(name)
    return key, hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()
