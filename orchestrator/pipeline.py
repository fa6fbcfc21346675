"""The durable run. The one module that knows the workflow engine (DBOS).

    parse ─┬─ datasets ─┐
           ├─ generate ─┼─ prepare ── train ── evaluate ── export ── report
           └─ models ───┘

Each stage is a step: its outcome is recorded, and a run that goes on takes recorded ones instead of asking again. Steps
are at-least-once; the services' idempotency makes their effects once. A run of a dead process is resumed where it was;
so is a cancelled one; a failed one is forked at the step that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, SetWorkflowID
from dbos._schemas.system_database import SystemSchema
from dbos._serialization import DBOSPortableJSON, JsonValue, PortableWorkflowError
from google.protobuf.json_format import ParseDict
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from orchestrator import exports, improving, outcome
from orchestrator.database import HELD_S, engine_options, open_engine
from orchestrator.gc import databases
from orchestrator.gc.reservations import Reservations
from orchestrator.runs import Runs
from orchestrator.stages import Stages
from orchestrator.steps import datasets, evaluate, generate, models, parse, prepare, train
from orchestrator.steps.step import Outcome, Step
from services.kit import telemetry
from services.kit.artifacts import open_store
from services.kit.errors import Aborted, P2MError, Unavailable
from services.kit.settings import Settings
from services.kit.status import as_p2m_error
from services.kit.values import Ledger, Progress
from services.kit.wire import from_json, to_json

log = logging.getLogger(__name__)

# The engine's threads are the whole process's. Without a bound each call that finds none idle starts another: three
# hundred in a burst of runs, and each keeps some of the memory that it once used.
_THREADS = 64

# Part of every recorded workflow: raise it when the steps or their order change.
VERSION = "2"

_WORK: dict[str, Callable[[Step], Awaitable[Outcome]]] = {
    "parse": parse.parse,
    "datasets": datasets.datasets,
    "generate": generate.generate,
    "models": models.models,
    "prepare": prepare.prepare,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "export": exports.export,
    "report": outcome.report,
}
# Instead of those, in a run that improves another.
_IMPROVING: dict[str, Callable[[Step], Awaitable[Outcome]]] = {
    "parse": improving.parse,
    "datasets": improving.datasets,
    "generate": improving.generate,
    "models": improving.models,
    "prepare": improving.prepare,
    "evaluate": improving.evaluate,
}
_PROGRESS_INTERVAL_S = 0.25
_ANSWER_INTERVAL_S = 0.3


@DBOS.workflow(name="p2m.run", max_recovery_attempts=None)
async def _run(name: str) -> None:
    await _pipeline().run(name)


class Execution:
    """One run under way: the outcomes so far, and what they cost."""

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self.name = name
        self.done: dict[str, dict[str, Any]] = {}
        self.spent: dict[str, Ledger] = {}
        self._pipeline = pipeline

    async def one(self, stage: str) -> None:
        """Runs one stage, or takes its recorded outcome."""
        await self.together(stage)

    async def together(self, *stages: str) -> None:
        """Runs stages at the same time. Their step numbers are drawn first: they are the same in every attempt."""
        done, spent = dict(self.done), dict(self.spent)
        reserved = [(stage, DBOS.reserve_step()) for stage in stages]
        tasks = [
            asyncio.create_task(
                step.run_async(
                    {"name": stage, "preemptible": True}, self._pipeline.perform, self.name, stage, done, spent
                )
            )
            for stage, step in reserved
        ]
        try:
            results = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for stage, result in zip(stages, results, strict=True):
            self.done[stage] = {**result["values"], "message": result["message"], "skipped": result["skipped"]}
            self.spent[stage] = from_json(result["ledger"], Ledger)


class Pipeline:
    """The engine of this process. There is one per process."""

    def __init__(self, settings: Settings, runs: Runs, stages: Stages) -> None:
        self._settings = settings
        self._runs = runs
        self._stages = stages
        self._reservations = Reservations(runs.engine, runs.executor)
        self._registered = False
        self._queue = f"p2m-{runs.executor}"
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    # -- the run

    async def run(self, name: str) -> None:
        """From the prompt to the report; ends the run's row."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks[name] = task
        execution = Execution(self, name)
        try:
            await self._undisturbed(name)
            await execution.one("parse")
            await execution.together("datasets", "generate", "models")
            await execution.one("prepare")
            await execution.one("train")
            await execution.one("evaluate")
            await execution.one("export")
            await execution.one("report")
        except PortableWorkflowError as failure:
            error = run_pb2.RunError(**failure.data)  # type: ignore[arg-type]
            await _written(self._runs.finish, name, run_pb2.RUN_STATE_FAILED, error=error)
            telemetry.metrics.RUNS_ENDED.add(1, "failed")
        else:
            result = ParseDict(execution.done["report"]["result"], common_pb2.Artifact())
            measured = execution.done["evaluate"]
            verdict = f"{measured['verdict'].replace('_', ' ').capitalize()}: {measured['verdict_reason']}"
            await _written(self._runs.finish, name, run_pb2.RUN_STATE_SUCCEEDED, result=result, verdict=verdict)
            telemetry.metrics.RUNS_ENDED.add(1, "succeeded")
        finally:
            if self._tasks.get(name) is task:
                del self._tasks[name]

    async def perform(
        self, name: str, stage: str, done: dict[str, dict[str, Any]], spent: dict[str, Ledger]
    ) -> dict[str, Any]:
        """One stage: its row, its progress, its work. What it returns is recorded."""
        stored = await self._owned(self._runs.stored, name)
        await self._owned(self._runs.begin_stage, name, stage)

        async def ask(question: run_pb2.Question) -> str:
            answer = await self._owned(self._runs.ask, name, stage, question)
            while answer is None:
                await asyncio.sleep(_ANSWER_INTERVAL_S)
                answer = await self._owned(self._runs.answer, name, question.id)
            return str(answer)

        try:
            with telemetry.stage(name, stored.created_at, stage) as observed:
                async with _Reporter(self._runs, name, stage) as report:
                    standing = await _written(self._runs.get, name)
                    parent = await self._parent(stored.options.improve)
                    step = Step(
                        name,
                        stored.prompt,
                        stored.options,
                        done,
                        spent,
                        standing,
                        self._stages,
                        self._settings,
                        report,
                        ask,
                        parent,
                    )
                    result = await (_IMPROVING if parent else {}).get(stage, _WORK[stage])(step)
                if result.skipped:
                    observed.skipped()
        except Exception as error:
            known = as_p2m_error(error)
            failed = run_pb2.STAGE_STATE_FAILED
            await self._owned(self._runs.end_stage, name, stage, failed, known.message, None)
            data: JsonValue = {"stage": stage, "code": known.code, "reason": known.reason, "message": known.message}
            raise PortableWorkflowError(known.message, known.reason, known.code, data) from error
        state = run_pb2.STAGE_STATE_SKIPPED if result.skipped else run_pb2.STAGE_STATE_DONE
        await self._owned(self._runs.end_stage, name, stage, state, result.message, result.ledger)
        return {
            "message": result.message,
            "values": result.values,
            "ledger": to_json(result.ledger),
            "skipped": result.skipped,
        }

    async def _undisturbed(self, name: str) -> None:
        """Returns once nobody is removing what this run, or the one that it improves, has left; and says in the store
        that this database's runs use it, so that no sweep for another's removes theirs."""
        options = (await _written(self._runs.stored, name)).options
        reserved = True
        while reserved:
            reserved = await _written(self._reservations.held, (name, options.improve or name))
            await asyncio.sleep(_ANSWER_INTERVAL_S if reserved else 0)
        if self._registered:
            return
        try:
            await asyncio.to_thread(lambda: databases.register(self._runs.engine, open_store(self._settings)))
        except P2MError as error:  # the first stage will say so too, or the store is back by then
            log.warning("The store was not told of this database: %s", error.message)
        else:
            self._registered = True

    async def _parent(self, name: str) -> dict[str, dict[str, Any]]:
        """What the run to improve has recorded: it has ended, so that is the same in every attempt."""
        if not name:
            return {}
        return await self.recorded((await _written(self._runs.stored, name)).workflow)

    async def _owned(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A call on the rows. Where the run is no longer this process's, the step ends and nothing is recorded."""
        try:
            return await _written(function, *arguments)
        except Aborted as error:
            log.info("%s", error)
            raise asyncio.CancelledError from error

    # -- the engine

    async def launch(self) -> None:
        """Starts the engine. Its own log does not go to anybody's terminal."""
        global _current
        await asyncio.to_thread(self._reservations.create_tables)
        logger = logging.getLogger("dbos")
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        url = self._runs.engine.url
        DBOS(
            config={
                "name": "p2m",
                "system_database_url": url.render_as_string(hide_password=False),
                "db_engine_kwargs": engine_options(url),
                "sys_db_idle_transaction_timeout_sec": HELD_S,
                "notification_listener_polling_interval_sec": 0.05,  # for which closing waits; there is none to be had
                "application_version": VERSION,
                "executor_id": self._runs.executor,
                "max_executor_threads": _THREADS,
                "serializer": DBOSPortableJSON,
                "log_level": "ERROR",
            }
        )
        DBOS.listen_queues([self._queue])
        _current = self
        DBOS.launch()
        await self.listen()

    async def listen(self) -> None:
        """Takes what is queued for this process; again, where somebody took it for dead and removed its queue."""
        await DBOS.register_queue_async(self._queue, polling_interval_sec=0.1)

    def is_at(self, name: str) -> bool:
        """Whether the run is under way here."""
        return name in self._tasks

    def let_go(self) -> list[asyncio.Task[Any]]:
        """Stops what runs here and writes nothing of it; the tasks end as soon as the database lets them."""
        stopped = [*self._tasks.items()]
        for name, task in stopped:
            log.warning("the database is out of reach: the run %s is let go", name)
            del self._tasks[name]
            task.cancel()
        return [task for _, task in stopped]

    async def start(self, name: str, workflow: str) -> None:
        """Begins a workflow of a run."""
        with SetWorkflowID(workflow):
            await DBOS.start_workflow_async(_run, name)

    async def resume(self, name: str, workflow: str) -> bool:
        """Goes on with a workflow that was cancelled or that a dead process left; False where it has ended."""
        status = await DBOS.get_workflow_status_async(workflow)
        if status is None:
            await self.start(name, workflow)
            return True
        if status.status in ("SUCCESS", "ERROR"):
            return False
        await DBOS.resume_workflow_async(workflow, queue_name=self._queue)
        return True

    async def retry(self, name: str, workflow: str, new: str) -> None:
        """A new workflow with the outcomes of a failed one, up to the step that failed.

        Where the data did not suffice, everything is asked again: an LLM or a hub that was out of reach may be back.
        """
        recorded = await DBOS.list_workflow_steps_async(workflow)
        failed = next((step for step in recorded if step["error"] is not None), None)
        if failed is None or failed["function_name"] == "prepare":
            await self.start(name, new)
            return
        with SetWorkflowID(new):
            await DBOS.fork_workflow_async(
                workflow, failed["function_id"], queue_name=self._queue, application_version=VERSION
            )

    async def recorded(self, workflow: str) -> dict[str, dict[str, Any]]:
        """The values of a workflow's finished stages, by name."""
        done = await DBOS.list_workflow_steps_async(workflow)
        return {
            step["function_name"]: step["output"]["values"]
            for step in done
            if step["function_name"] in _WORK and isinstance(step["output"], dict)
        }

    async def cancel(self, name: str, workflow: str) -> None:
        """Stops a workflow wherever it runs; here it has ended on return."""
        await DBOS.cancel_workflow_async(workflow)
        await self._stop(name)

    async def forget(self, executor: str) -> None:
        """Removes the queue of a dead process."""
        await DBOS.delete_queue_async(f"p2m-{executor}")

    async def close(self) -> None:
        """Stops what runs here without losing anything, then the engine; a database that is away is not waited for."""
        global _current
        loop = asyncio.get_running_loop()
        endings: tuple[Callable[[], Awaitable[Any]], ...] = (
            lambda: asyncio.gather(*(self._stop(name) for name in [*self._tasks])),
            lambda: DBOS.delete_queue_async(self._queue),
            lambda: loop.run_in_executor(None, DBOS.destroy),  # its threads may still want the loop while they end
        )
        for end in endings:
            try:
                await asyncio.wait_for(end(), self._settings.grace_s)
            except (TimeoutError, sa.exc.SQLAlchemyError) as error:
                log.warning("the engine does not end as it should (%s); others clear up", type(error).__name__)
        loop.set_default_executor(ThreadPoolExecutor())  # the engine had lent its own, which is gone
        _current = None

    async def _stop(self, name: str) -> None:
        task = self._tasks.get(name)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])


class _Reporter:
    """Writes a stage's progress as rows, a few times a second; what tells of a resumed training is never left out."""

    def __init__(self, runs: Runs, name: str, stage: str) -> None:
        self._write = lambda progress: runs.report_progress(name, stage, progress)
        self._waiting: list[Progress] = []
        self._arrived = asyncio.Event()
        self._owner = asyncio.current_task()

    def __call__(self, progress: Progress) -> None:
        if self._waiting and not _tells_of_resuming(self._waiting[-1]):
            self._waiting.pop()
        self._waiting.append(progress)
        self._arrived.set()

    async def __aenter__(self) -> _Reporter:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._flush()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            await self._flush()
            await asyncio.sleep(_PROGRESS_INTERVAL_S)

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for progress in waiting:
            try:
                await asyncio.to_thread(self._write, progress)
            except Unavailable as error:
                log.warning("progress is not told: %s", error.message)  # the work does not wait for it
            except Aborted:
                if self._owner is not None:
                    self._owner.cancel()
                return


def recorded_texts(engine: sa.Engine) -> Iterator[tuple[str, str]]:
    """(run, recorded outcome as it is stored) of every step of every workflow."""
    table = SystemSchema.operation_outputs
    schema = None if engine.dialect.name == "sqlite" else "dbos"
    bound = engine.execution_options(schema_translate_map={table.schema: schema})
    if not sa.inspect(engine).has_table(table.name, schema=schema):
        return
    with bound.connect() as connection:
        query = sa.select(table.c.workflow_uuid, table.c.output).where(table.c.output.is_not(None))
        for workflow, text in connection.execution_options(yield_per=200).execute(query):
            yield workflow.rpartition("#")[0], text


def delete_workflows(settings: Settings, run: str, newest: str) -> None:
    """Removes what is recorded of a run: its workflows up to the newest."""
    engine = open_engine(settings)
    schema = None if engine.dialect.name == "sqlite" else "dbos"
    begun = sa.inspect(engine).has_table(SystemSchema.workflow_status.name, schema=schema)
    engine.dispose()
    if not begun:
        return
    url = engine.url.render_as_string(hide_password=False)
    client = DBOSClient(system_database_url=url, serializer=DBOSPortableJSON)
    try:
        client.delete_workflows([f"{run}#{number}" for number in range(1, int(newest.rpartition("#")[2]) + 1)])
    finally:
        client.destroy()


async def _written(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """A call on the rows that waits for a database that is away, without end, as the engine does for its own rows."""
    wait = 0.2
    while True:
        try:
            return await asyncio.to_thread(function, *arguments, **named)
        except Unavailable as error:
            log.warning("%s It is tried again.", error.message)
            await asyncio.sleep(wait)
            wait = min(2 * wait, 5.0)


_current: Pipeline | None = None


def _pipeline() -> Pipeline:
    assert _current is not None, "the pipeline was not launched"
    return _current


def _tells_of_resuming(progress: Progress) -> bool:
    return any(metric.name == "resumed_from_step" for metric in progress.metrics)
