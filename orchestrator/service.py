"""RunService: proto in, rows and the pipeline behind.

    RunService(settings, adopt)
    ├── Runs, Executors      rows in the database that all orchestrators share
    ├── Stages               channels to the six services
    └── Pipeline             the durable workflows of this process

With `adopt` it also takes over the unfinished runs of orchestrators that died; without, only those that Start names.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2, run_pb2_grpc

from orchestrator import attributes, constraints, exports, improve, mixing, run_data
from orchestrator.counts import by_state
from orchestrator.database import open_engine
from orchestrator.executors import INTERVAL_S, LETS_GO_S, Executors
from orchestrator.pipeline import Pipeline
from orchestrator.runs import UNFINISHED, Place, Runs, StoredRun, name_taken, under_way
from orchestrator.stages import Stages
from services.kit import telemetry
from services.kit.artifacts import Artifacts
from services.kit.errors import Aborted, InvalidArgument, NotFound, P2MError
from services.kit.refused import refused
from services.kit.settings import Settings
from services.kit.text import check_prompt
from services.kit.tokens import CALLER, Caller, not_yours

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# A watcher asks the database so often while something changes, and more and more seldom while nothing does.
_WATCH_INTERVAL_S, _WATCH_LONGEST_S, _WATCH_SLOWER = 0.2, 1.0, 1.25
# A run of this process begins within a fraction of a second; one that it is not at for so long has been lost sight of.
_LOOK_INTERVAL_S, _IDLE_S, _MOST_LOOKED_AFTER = 5.0, 12.0, 3
_PAGE_SIZE, _MOST_PAGE_SIZE = 50, 1000
_HASH_CHARACTERS = 12
# They say how a run is done, not what it is.
_NOT_IDENTITY = ("budget", "ask", "prefer")


class RunService:
    """The runs."""

    name = "run"
    full_name = "p2m.run.v1.RunService"

    def __init__(self, settings: Settings, *, adopt: bool = True) -> None:
        self._settings = settings
        self._adopt = adopt
        engine = open_engine(settings)
        executor = uuid.uuid4().hex
        self._engine = engine
        self._runs = Runs(engine, executor)
        self._executors = Executors(engine, executor)
        self._stages: Stages | None = None
        self._pipeline: Pipeline | None = None
        self._heart: asyncio.Task[None] | None = None
        self._fence: asyncio.Task[None] | None = None
        self._beat_at = 0.0
        self._beating = ThreadPoolExecutor(1)
        self._off = False
        self._look_at, self._idle, self._looked_after = 0.0, dict[str, float](), Counter[str]()
        self._let_go: list[asyncio.Task[Any]] = []

    def register(self, server: grpc.aio.Server) -> None:
        run_pb2_grpc.add_RunServiceServicer_to_server(self, server)  # type: ignore[arg-type]

    async def warm(self) -> None:
        """Makes the tables, starts the engine and the heartbeat."""
        await asyncio.to_thread(self._runs.create_tables)
        await asyncio.to_thread(self._executors.create_tables)
        await asyncio.to_thread(self._executors.beat)
        self._stages = Stages(self._settings)
        self._pipeline = Pipeline(self._settings, self._runs, self._stages)
        await self._pipeline.launch()
        self._beat_at = time.monotonic()
        self._heart = asyncio.create_task(self._beat())
        if self._engine.dialect.name != "sqlite":  # whose processes are on one machine and see whether the others live
            self._fence = asyncio.create_task(self._keep_off())
        telemetry.metrics.RUNS.watch(self._runs, by_state)

    async def close(self) -> None:
        """Stops what runs here without losing anything."""
        for task in (self._heart, self._fence):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._pipeline is not None:
            await self._pipeline.close()
        if self._stages is not None:
            await self._stages.close()
        with contextlib.suppress(Exception):
            # Those that it was at are nobody's now; without its row no survivor would look for them.
            left = await asyncio.to_thread(self._runs.owned_by, self._runs.executor)
            await asyncio.to_thread(self._executors.leave, bool(left))
        self._beating.shutdown(wait=False)
        self._engine.dispose()

    # -- the calls

    async def Start(self, request: run_pb2.StartRequest, context: Any) -> run_pb2.StartResponse:
        prompt, options, caller = request.prompt, request.options, CALLER.get()
        if options.improve:
            await self._check_owner(options.improve, context)
        parent = await asyncio.to_thread(self._runs.stored, options.improve) if options.improve else None
        if parent is not None:
            prompt, options = improve.prompt_of(parent, prompt), improve.inherited(parent, options)
        check_prompt(prompt)
        _check_options(options)
        digest = identity(prompt, options)
        name = request.name or (improve.next_name(parent.name) if parent else _name_of(digest, caller))
        _check_name(name)
        with contextlib.suppress(NotFound):
            await self._check_owner(name, context)
        if parent is not None:
            await self._check_parent(parent, name)
        if await asyncio.to_thread(self._runs.add, name, digest, prompt, options, caller.name):
            if telemetry.tracing():
                telemetry.began(name, (await asyncio.to_thread(self._runs.stored, name)).created_at)
            await self._running().start(name, f"{name}#1")
        else:
            await self._check_owner(name, context)  # somebody may have been faster
            await self._go_on(await asyncio.to_thread(self._runs.stored, name), digest, options)
        return run_pb2.StartResponse(run=await asyncio.to_thread(self._runs.get, name))

    async def Get(self, request: run_pb2.GetRequest, context: Any) -> run_pb2.GetResponse:
        await self._check_owner(request.name, context)
        run = await asyncio.to_thread(self._runs.get, request.name)
        await asyncio.to_thread(self._tell_interrupted, [run])
        return run_pb2.GetResponse(run=run)

    async def Watch(self, request: run_pb2.WatchRequest, context: Any) -> AsyncIterator[run_pb2.WatchResponse]:
        await self._check_owner(request.name, context)
        after, pause_s = request.after, _WATCH_INTERVAL_S
        while True:
            for change in await asyncio.to_thread(self._runs.changes, request.name, after):
                after, pause_s = change.sequence, _WATCH_INTERVAL_S
                yield change
                if change.HasField("run") and change.run.state not in UNFINISHED:
                    return
            await asyncio.sleep(pause_s)
            pause_s = min(_WATCH_LONGEST_S, pause_s * _WATCH_SLOWER)

    async def Cancel(self, request: run_pb2.CancelRequest, context: Any) -> run_pb2.CancelResponse:
        await self._check_owner(request.name, context)
        run = await asyncio.to_thread(self._runs.cancel, request.name)
        if run.state in UNFINISHED:
            await self._running().cancel(run.name, run.workflow)
            telemetry.metrics.RUNS_ENDED.add(1, "cancelled")
        return run_pb2.CancelResponse(run=await asyncio.to_thread(self._runs.get, request.name))

    async def List(self, request: run_pb2.ListRequest, context: Any) -> run_pb2.ListResponse:
        size = request.page_size or _PAGE_SIZE
        if not 0 < size <= _MOST_PAGE_SIZE:
            raise InvalidArgument(
                "BAD_PAGE_SIZE", f"page_size is {size}; wanted 1 to {_MOST_PAGE_SIZE}.", field="page_size"
            )
        runs, before = await asyncio.to_thread(
            self._runs.page, size, _page_token(request.page_token), CALLER.get().name
        )
        await asyncio.to_thread(self._tell_interrupted, runs)
        return run_pb2.ListResponse(runs=runs, next_page_token="" if before is None else f"{before[0]!r}/{before[1]}")

    async def Choose(self, request: run_pb2.ChooseRequest, context: Any) -> run_pb2.ChooseResponse:
        await self._check_owner(request.name, context)
        await asyncio.to_thread(self._runs.choose, request.name, request.question, request.value)
        return run_pb2.ChooseResponse(run=await asyncio.to_thread(self._runs.get, request.name))

    async def Data(self, request: run_pb2.DataRequest, context: Any) -> run_pb2.DataResponse:
        await self._check_owner(request.name, context)
        run = await asyncio.to_thread(self._runs.stored, request.name)
        recorded = await self._running().recorded(run.workflow)
        assert self._stages is not None
        found = await run_data.datasets(run.name, run.options, recorded, self._stages)
        return run_pb2.DataResponse(datasets=found)

    def _tell_interrupted(self, runs: Sequence[run_pb2.Run]) -> None:
        """Sets `interrupted` of those whose process is gone."""
        unfinished = [run for run in runs if run.state in UNFINISHED]
        if not unfinished:
            return
        executors = self._runs.executors([run.name for run in unfinished])
        lives = {executor: self._executors.lives(executor) for executor in {*executors.values()}}
        for run in unfinished:
            run.interrupted = not lives.get(executors.get(run.name, ""), True)

    # -- going on

    async def _check_owner(self, name: str, context: Any) -> None:
        """PermissionDenied where the caller, known by name, did not start the run. NotFound for an unknown one."""
        caller = CALLER.get()
        if not caller.name or caller.may_touch(await asyncio.to_thread(self._runs.owner, name)):
            return
        refused("NOT_YOURS", f"the run {name}", f"{caller.name}, {context.peer()}")
        raise not_yours(name)

    async def _go_on(self, run: StoredRun, digest: str, options: run_pb2.RunOptions) -> None:
        """What Start does with a name that is there."""
        if run.digest != digest:
            raise name_taken(run.name)
        if run.state == run_pb2.RUN_STATE_SUCCEEDED:
            return
        if run.state in UNFINISHED:
            if run.executor == self._runs.executor:
                return  # under way here: the caller may watch it
            if await asyncio.to_thread(self._executors.lives, run.executor):
                raise under_way(run.name)
        await self._take_up(run, options)

    async def _check_parent(self, parent: StoredRun, name: str) -> None:
        """FailedPrecondition where `parent` cannot be improved by a new run `name`; one that is there may go on."""
        with contextlib.suppress(NotFound):
            await asyncio.to_thread(self._runs.stored, name)
            return
        recorded = await self._running().recorded(parent.workflow)
        artifacts = Artifacts.open(self._settings, self.name)
        await asyncio.to_thread(improve.check, parent, recorded, artifacts)

    async def _take_up(self, run: StoredRun, options: run_pb2.RunOptions) -> None:
        """Makes a run that nobody is at this process's, and goes on with it where it was."""
        pipeline, next_workflow = self._running(), _next(run)
        if run.state == run_pb2.RUN_STATE_FAILED:
            await asyncio.to_thread(self._runs.take_over, run, next_workflow, options)
            await pipeline.retry(run.name, run.workflow, next_workflow)
            return
        await asyncio.to_thread(self._runs.take_over, run, run.workflow, options)
        if not await pipeline.resume(run.name, run.workflow):
            # Its workflow ended and its row did not: the process died between the two.
            owned = await asyncio.to_thread(self._runs.stored, run.name)
            await asyncio.to_thread(self._runs.take_over, owned, next_workflow, options)
            await pipeline.start(run.name, next_workflow)

    async def _beat(self) -> None:
        while True:
            try:
                # A thread of its own: the others may all be waiting for a store.
                was_there = await asyncio.get_running_loop().run_in_executor(self._beating, self._executors.beat)
                self._beat_at = time.monotonic()
                if self._off or not was_there:
                    await self._come_back()
                await self._look_after()
                for executor in await asyncio.to_thread(self._executors.dead):
                    await self._bury(executor)
            except Exception as error:
                log.warning("the heartbeat failed and is tried again: %s", error)
            await asyncio.sleep(INTERVAL_S)

    async def _keep_off(self) -> None:
        """Lets this process's runs go before others may take it for dead: nobody is at a run beside its new owner."""
        while True:
            await asyncio.sleep(INTERVAL_S / 2)
            if time.monotonic() - self._beat_at > LETS_GO_S:
                self._off = True
                self._let_go += self._running().let_go()

    async def _come_back(self) -> None:
        """Goes on with those runs that nobody has taken while the database was out of this process's reach."""
        await asyncio.gather(*self._let_go, return_exceptions=True)
        self._let_go = []
        pipeline = self._running()
        await pipeline.listen()
        for run in await asyncio.to_thread(self._runs.owned_by, self._runs.executor):
            if pipeline.is_at(run.name):
                continue  # it was started meanwhile
            with contextlib.suppress(Aborted):  # it has just been taken
                await self._take_up(run, run.options)
                log.info("the database is back: the run %s goes on", run.name)
        self._off = False

    async def _look_after(self) -> None:
        """Goes on with runs that are this process's and that it has not been at for a while: nobody else would."""
        pipeline, idle = self._running(), dict[str, float]()
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_INTERVAL_S
        for run in await asyncio.to_thread(self._runs.owned_by, self._runs.executor):
            if pipeline.is_at(run.name):
                continue
            idle[run.name] = self._idle.get(run.name, now)
            if now - idle[run.name] > _IDLE_S and self._looked_after[run.name] < _MOST_LOOKED_AFTER:
                self._looked_after[run.name] += 1
                with contextlib.suppress(Aborted):
                    await self._take_up(run, run.options)
                    log.warning("nobody was at the run %s; it goes on here", run.name)
        self._idle = idle

    async def _bury(self, executor: str) -> None:
        """Takes over a dead orchestrator's runs; forgets it once it has none left."""
        left = await asyncio.to_thread(self._runs.owned_by, executor)
        for run in left if self._adopt else ():
            with contextlib.suppress(P2MError):  # a faster survivor has it
                await self._take_up(run, run.options)
                telemetry.metrics.RUNS_TAKEN_OVER.add(1)
                log.info("took over the run %s of a process that is gone", run.name)
        if self._adopt or not left:
            await self._running().forget(executor)
            await asyncio.to_thread(self._executors.forget, executor)

    def _running(self) -> Pipeline:
        assert self._pipeline is not None, "the service is not warm"
        return self._pipeline


def identity(prompt: str, options: run_pb2.RunOptions) -> str:
    """The hash of what a run is: its prompt and its options but for the budget and whether a person is asked."""
    content = run_pb2.RunOptions()
    content.CopyFrom(options)
    for name in _NOT_IDENTITY:
        content.ClearField(name)  # type: ignore[arg-type]
    return hashlib.sha256(prompt.encode() + b"\0" + content.SerializeToString(deterministic=True)).hexdigest()


def _name_of(digest: str, caller: Caller) -> str:
    """The name of a run that was given none. Two who start the same have a run each."""
    digest = hashlib.sha256(f"{caller.name} {digest}".encode()).hexdigest() if caller.name else digest
    return f"run-{digest[:_HASH_CHARACTERS]}"


def _next(run: StoredRun) -> str:
    """The id of a run's next workflow: "<run>#2" after "<run>#1"."""
    return f"{run.name}#{int(run.workflow.rpartition('#')[2]) + 1}"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            "BAD_NAME",
            f"{name[:120]!r} is no name for a run: wanted 1 to 100 letters, digits, - _ . (no mark first).",
            field="name",
        )


def _check_options(options: run_pb2.RunOptions) -> None:
    """InvalidArgument for a number that is out of its range, and for a run that could have no data."""

    def check(name: Any, low: float, high: float) -> None:
        value = getattr(options, name)
        if options.HasField(name) and not low <= value <= high:
            raise InvalidArgument(
                "BAD_OPTION", f"{name} is {value}; wanted {low:g} to {high:g}.", field=f"options.{name}"
            )

    check("number", 0, 1_000_000)
    check("parts", 1, 100)
    check("max_model_bytes", 1, 1e15)
    check("max_cpu_latency_ms", 1e-3, 1e9)
    check("max_dataset_bytes", 1, 1e15)
    check("learning_rate", 1e-9, 10)
    check("epochs", 1e-6, 10_000)
    check("batch_tokens", 1, 10_000_000)
    check("max_train_seconds", 1, 1e9)
    check("seed", 0, 2**31 - 1)
    check("teacher_rows", 0, 1_000_000)
    check("max_rows_per_source", 1, 1_000_000_000)
    check("checkpoint_steps", 1, 1_000_000_000)
    check("search_seconds", 1, 7 * 24 * 3600)
    check("attribution_seconds", 1, 7 * 24 * 3600)
    if options.head not in ("", "auto", "text", "labels"):
        raise InvalidArgument(
            "BAD_OPTION", f"head is {options.head[:40]!r}; wanted auto, text or labels.", field="options.head"
        )
    if options.prefer not in common_pb2.Prefer.values():
        raise InvalidArgument(
            "BAD_OPTION", f"prefer is {options.prefer}; wanted PREFER_TIME or PREFER_COST.", field="options.prefer"
        )
    constraints.check(options)
    exports.check([*options.export_formats])
    attributes.check(options.attributes)
    mixing.check(options)
    generates = not options.skip_generation and not (options.HasField("number") and options.number == 0)
    if options.dataset and options.skip_datasets:
        raise InvalidArgument(
            "BAD_OPTION", f"The dataset {options.dataset} is named and datasets are switched off; drop one of the two.",
            field="options.dataset",
        )  # fmt: skip
    if options.skip_datasets and not generates and not options.data:
        raise InvalidArgument(
            "NO_DATA",
            "Datasets and generation are both switched off and no rows are given: there is nothing to train on.",
            field="options",
        )


def _page_token(token: str) -> Place | None:
    made, _, name = token.partition("/")
    try:
        return (float(made), name) if token else None
    except ValueError as error:
        raise InvalidArgument(
            "BAD_PAGE_TOKEN",
            f"{token[:40]!r} is no page token; take next_page_token of an earlier answer.",
            field="page_token",
        ) from error
