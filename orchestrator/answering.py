"""A run's model, loaded and asked by many at once: what the REST service and its page share.

    Answering(folder, spec, settings)
    ├── start, close        the child process that holds the model
    ├── answer(inputs)      waits its turn, in a batch with whoever else waits
    └── state               "loading", "ready" or "failed"

Batching waits for nobody: while a batch is answered others arrive, and these are the next batch. Every request has its
share of each, so that one with a thousand inputs does not keep one with a single input waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from services.kit.errors import P2MError, ResourceExhausted, Unavailable
from services.kit.settings import Settings
from services.kit.values import PromptSpec
from services.kit.worker import Resident

log = logging.getLogger(__name__)

BATCH_SIZE = 64
# Beyond this somebody who asks now would wait for minutes: better that they hear so at once.
MOST_WAITING = 4000


@dataclass(frozen=True)
class _Job:
    """What the evaluator's Predictor takes, by name: the orchestrator imports no service's implementation."""

    name: str
    folder: str
    spec: PromptSpec
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class _Answers:
    outputs: tuple[str, ...] = ()


@dataclass(eq=False)
class _Request:
    """One caller's inputs, and their answers as they come."""

    inputs: tuple[str, ...]
    done: asyncio.Future[None]
    taken: int = 0
    outputs: list[str] = field(default_factory=list)


class Answering:
    """The model in `folder`, in a process of its own."""

    def __init__(self, folder: Path, spec: PromptSpec, settings: Settings) -> None:
        self.state = "loading"
        self.reason = ""
        self._folder = folder
        self._spec = spec
        self._child = Resident("services.evaluator.predict:Predictor", settings)
        self._waiting: list[_Request] = []
        self._arrived = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Loads the model and answers once with it, so that no caller waits for that. Raises what loading raises."""
        try:
            await self._ask(("warm-up",))
        except P2MError as error:
            self.state, self.reason = "failed", error.message
            raise
        self.state = "ready"
        self._work = asyncio.create_task(self._run())

    async def answer(self, inputs: tuple[str, ...]) -> tuple[list[str], float]:
        """One output for each input, and the seconds it took, waiting counted.

        Raises Unavailable while there is no model, ResourceExhausted (BUSY) when too many wait already.
        """
        if self.state != "ready":
            raise Unavailable("NOT_READY", self.reason or "The model is being loaded.", retry_after=2.0)
        waiting = sum(len(request.inputs) - request.taken for request in self._waiting)
        if waiting and waiting + len(inputs) > MOST_WAITING:
            raise ResourceExhausted("BUSY", f"{waiting:,} inputs wait already. Try again later.", retry_after=5.0)
        began = time.perf_counter()
        request = _Request(inputs, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        self._arrived.set()
        try:
            await request.done
        finally:
            if request in self._waiting:  # the caller has gone
                self._waiting.remove(request)
        return request.outputs, time.perf_counter() - began

    async def close(self) -> None:
        """Ends the process. Whoever waits still is told."""
        if self._work is not None:
            self._work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._work
        self.state, self.reason = "failed", "The service is stopping."
        for request in self._waiting:
            request.done.cancel()
        await self._child.stop()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while batch := self._batch():
                await self._answer(batch)

    def _batch(self) -> list[tuple[_Request, tuple[str, ...]]]:
        """Up to BATCH_SIZE inputs, a fair share of each request that waits."""
        batch: list[tuple[_Request, tuple[str, ...]]] = []
        room = BATCH_SIZE
        for number, request in enumerate(list(self._waiting)):
            if room == 0:
                break
            share = max(1, room // (len(self._waiting) - number))
            part = request.inputs[request.taken : request.taken + share]
            if part:
                batch.append((request, part))
                request.taken += len(part)
                room -= len(part)
        return batch

    async def _answer(self, batch: list[tuple[_Request, tuple[str, ...]]]) -> None:
        try:
            outputs = iter(await self._ask(tuple(text for _, part in batch for text in part)))
        except P2MError as error:
            log.warning("a batch failed: %s", error)
            for request, _ in batch:
                self._end(request, error)
            return
        for request, part in batch:
            request.outputs += [next(outputs) for _ in part]
            if len(request.outputs) == len(request.inputs):
                self._end(request)

    def _end(self, request: _Request, error: P2MError | None = None) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
        if request.done.done():
            return
        if error is None:
            request.done.set_result(None)
        else:
            request.done.set_exception(error)

    async def _ask(self, inputs: tuple[str, ...]) -> tuple[str, ...]:
        job = _Job("model", str(self._folder), self._spec, inputs)
        return (await self._child.ask(job, _Answers)).outputs
