"""Runs as rows: what Get, List and Watch answer from, whichever process does the work.

    Runs
    ├── a run            its prompt, options, state, result; `executor` owns it, and only the owner's writes count
    ├── its stages       state, newest progress, message, ledger
    ├── its events       every change, numbered within the run; progress is dropped when its stage ends
    └── its questions    asked by a stage, answered by Choose

The tables are those of `run_rows`: SQLite in the home folder by default, PostgreSQL by one URL. All calls block; call
them from a thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from google.protobuf.json_format import MessageToDict, MessageToJson, Parse
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from orchestrator import attributes
from orchestrator.database import create_absent
from orchestrator.run_rows import (
    EVENTS,
    OWNERS,
    PROMPT_SHOWN,
    QUESTIONS,
    RUNS,
    SCHEMA,
    STAGE_ROWS,
    bare_run,
    stage_message,
)
from services.kit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    P2MError,
)
from services.kit.values import Ledger, Progress
from services.kit.wire import from_message, to_message

STAGES = ("parse", "datasets", "generate", "models", "prepare", "train", "evaluate", "export", "report")
UNFINISHED = (run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_WAITING)


@dataclass(frozen=True)
class StoredRun:
    """A run's row as the pipeline needs it."""

    name: str
    digest: str
    prompt: str
    options: run_pb2.RunOptions
    state: int
    workflow: str
    executor: str
    created_at: float


Place = tuple[float, str]
"""Where a run stands in the list: when it was made, and its name, since two may be made at once."""


class Runs:
    """The rows of all runs. `executor` is this process's id: it owns the runs that it starts or takes over."""

    def __init__(self, engine: sa.Engine, executor: str) -> None:
        self.engine = engine
        self.executor = executor

    def create_tables(self) -> None:
        """Makes the tables where they are absent."""
        create_absent(self.engine, SCHEMA)

    # -- a run

    def add(self, name: str, digest: str, prompt: str, options: run_pb2.RunOptions, owner: str = "") -> bool:
        """Adds a run that `owner` started and this process works on, RUNNING; False where the name is taken."""
        now = time.time()
        row = {
            "name": name, "digest": digest, "prompt": prompt, "options": MessageToJson(options, indent=None),
            "state": run_pb2.RUN_STATE_RUNNING, "workflow": f"{name}#1", "executor": self.executor, "sequence": 1,
            "created_at": now, "verdict": "",
        }  # fmt: skip
        pending = {"run": name, "state": run_pb2.STAGE_STATE_PENDING, "message": ""}
        try:
            with self.engine.begin() as connection:
                connection.execute(sa.insert(RUNS).values(row))
                connection.execute(sa.delete(OWNERS).where(OWNERS.c.run == name))
                if owner:
                    connection.execute(sa.insert(OWNERS).values(run=name, owner=owner))
                connection.execute(sa.insert(STAGE_ROWS), [{**pending, "name": stage} for stage in STAGES])
                self._announce_run(connection, name, 1)
        except sa.exc.IntegrityError:
            return False
        return True

    def stored(self, name: str) -> StoredRun:
        """The run's own row. NotFound for an unknown one."""
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(RUNS).where(RUNS.c.name == name)).one_or_none()
        if row is None:
            raise unknown_run(name)
        options = Parse(row.options, run_pb2.RunOptions())
        return StoredRun(
            row.name, row.digest, row.prompt, options, row.state, row.workflow, row.executor, row.created_at
        )  # fmt: skip

    def owner(self, name: str) -> str:
        """Who started the run; "" where that has no name. NotFound for an unknown run."""
        query = sa.select(RUNS.c.name, OWNERS.c.owner).outerjoin(OWNERS, OWNERS.c.run == RUNS.c.name)
        with self.engine.connect() as connection:
            row = connection.execute(query.where(RUNS.c.name == name)).one_or_none()
        if row is None:
            raise unknown_run(name)
        return row.owner or ""

    def take_over(self, run: StoredRun, workflow: str, options: run_pb2.RunOptions) -> None:
        """Makes this process the owner of a run as it was read; Aborted where another was faster.

        The options are those of the newest Start: a budget may have been raised. Unfinished stages are PENDING again.
        """
        with self.engine.begin() as connection:
            taken = connection.execute(
                sa.update(RUNS)
                .where(RUNS.c.name == run.name, RUNS.c.executor == run.executor, RUNS.c.state == run.state)
                .where(RUNS.c.workflow == run.workflow)
                .values(
                    executor=self.executor, workflow=workflow, state=run_pb2.RUN_STATE_RUNNING, error=None,
                    ended_at=None, options=MessageToJson(options, indent=None), sequence=RUNS.c.sequence + 1,
                )
                .returning(RUNS.c.sequence)
            ).scalar_one_or_none()  # fmt: skip
            if taken is None:
                raise under_way(run.name)
            self._reset_stages(connection, run.name)
            # Who watches from the start must not take an earlier end for this one.
            connection.execute(sa.delete(EVENTS).where(EVENTS.c.run == run.name, EVENTS.c.stage == ""))
            self._announce_run(connection, run.name, taken)

    def finish(
        self,
        name: str,
        state: int,
        *,
        error: run_pb2.RunError | None = None,
        result: common_pb2.Artifact | None = None,
        verdict: str = "",
    ) -> None:
        """Ends a run of this process. Nothing happens where it has ended already."""
        values = {
            "state": state, "ended_at": time.time(), "verdict": verdict,
            "error": MessageToJson(error, indent=None) if error else None,
            "result": MessageToJson(result, indent=None) if result else None,
        }  # fmt: skip
        with self.engine.begin() as connection:
            sequence = self._advance(connection, name, **values)
            if sequence is None:
                return
            self._reset_stages(connection, name)
            self._announce_run(connection, name, sequence)

    def cancel(self, name: str) -> StoredRun:
        """Marks an unfinished run CANCELLED, whoever owns it; an ended one stays as it is. NotFound."""
        run = self.stored(name)
        with self.engine.begin() as connection:
            sequence = connection.execute(
                sa.update(RUNS)
                .where(RUNS.c.name == name, RUNS.c.state.in_(UNFINISHED))
                .values(state=run_pb2.RUN_STATE_CANCELLED, ended_at=time.time(), sequence=RUNS.c.sequence + 1)
                .returning(RUNS.c.sequence)
            ).scalar_one_or_none()
            if sequence is not None:
                self._reset_stages(connection, name)
                self._announce_run(connection, name, sequence)
        return run

    def owned_by(self, executor: str) -> list[StoredRun]:
        """The unfinished runs of an executor."""
        with self.engine.connect() as connection:
            names = connection.execute(
                sa.select(RUNS.c.name).where(RUNS.c.executor == executor, RUNS.c.state.in_(UNFINISHED))
            ).scalars()
            return [self.stored(name) for name in [*names]]

    # -- its stages

    def begin_stage(self, name: str, stage: str) -> None:
        """RUNNING, from now on. Aborted where the run is no longer this process's."""
        values = {"state": run_pb2.STAGE_STATE_RUNNING, "started_at": time.time(), "ended_at": None, "message": ""}
        self._change_stage(name, stage, values)

    def report_progress(self, name: str, stage: str, progress: Progress) -> None:
        """The stage's newest progress. Aborted where the run is no longer this process's."""
        body = MessageToJson(to_message(progress, common_pb2.Progress), indent=None)
        values: dict[str, Any] = {"progress": body}
        if progress.ledger is not None:
            values["ledger"] = _ledger_json(progress.ledger)
        self._change_stage(name, stage, values, passing=True)

    def end_stage(self, name: str, stage: str, state: int, message: str, ledger: Ledger | None) -> None:
        """DONE, SKIPPED or FAILED, with one line. Aborted where the run is no longer this process's."""
        values = {"state": state, "message": message, "ended_at": time.time()}
        if ledger is not None:
            values["ledger"] = _ledger_json(ledger)
        self._change_stage(name, stage, values)

    def stage_ledger(self, name: str, stage: str) -> Ledger:
        """What a stage has spent, as far as it has told."""
        with self.engine.connect() as connection:
            text = connection.execute(
                sa.select(STAGE_ROWS.c.ledger).where(STAGE_ROWS.c.run == name, STAGE_ROWS.c.name == stage)
            ).scalar_one_or_none()
        return from_message(Parse(text, common_pb2.Ledger()), Ledger) if text else Ledger()

    # -- its questions

    def ask(self, name: str, stage: str, question: run_pb2.Question) -> str | None:
        """The answer to a question, None as long as there is none. The first time, the run is WAITING from then on."""
        with self.engine.begin() as connection:
            row = self._question(connection, name, question.id)
            if row is not None and row.answer is not None:
                return str(row.answer)
            sequence = self._advance(connection, name, state=run_pb2.RUN_STATE_WAITING)
            if sequence is None:
                raise _lost(name)
            if row is None:
                body = MessageToJson(question, indent=None)
                connection.execute(sa.insert(QUESTIONS).values(run=name, id=question.id, stage=stage, body=body))
            self._set_stage(connection, name, stage, {"state": run_pb2.STAGE_STATE_WAITING}, sequence)
            self._announce_run(connection, name, self._next(connection, name))
        return None

    def answer(self, name: str, question_id: str) -> str | None:
        """The answer, if there is one by now. Aborted where the run is no longer this process's."""
        with self.engine.connect() as connection:
            row = self._question(connection, name, question_id)
            owned = connection.execute(sa.select(RUNS.c.name).where(*self._owned(name))).scalar_one_or_none()
        if owned is None:
            raise _lost(name)
        return None if row is None or row.answer is None else str(row.answer)

    def choose(self, name: str, question_id: str, value: str) -> None:
        """Answers an open question. NotFound, FailedPrecondition (not asked), InvalidArgument (no such option)."""
        self.stored(name)
        with self.engine.begin() as connection:
            open_ones = self._open_questions(connection, name)
            row = next((row for row in open_ones if row.id == question_id), None)
            if row is None:
                waiting = ", ".join(row.id for row in open_ones)
                has = f"it waits for: {waiting}" if waiting else "it waits for none"
                raise FailedPrecondition(
                    "NO_SUCH_QUESTION", f"The run {name} has no open question {question_id!r}; {has}."
                )
            question = Parse(row.body, run_pb2.Question())
            values = [option.value for option in question.options]
            if value not in values and question.open:
                attributes.parse(value)
            elif value not in values:
                raise InvalidArgument(
                    "NO_SUCH_OPTION", f"{value!r} is none of the options: {'; '.join(values)}.", field="value"
                )
            chosen = sa.update(QUESTIONS).where(QUESTIONS.c.run == name, QUESTIONS.c.id == question_id)
            connection.execute(chosen.values(answer=value))
            waiting_still = [row for row in open_ones if row.id != question_id]
            state = run_pb2.RUN_STATE_WAITING if waiting_still else run_pb2.RUN_STATE_RUNNING
            running = {"state": run_pb2.STAGE_STATE_RUNNING}
            self._set_stage(connection, name, row.stage, running, self._next(connection, name))
            update = sa.update(RUNS).where(RUNS.c.name == name, RUNS.c.state == run_pb2.RUN_STATE_WAITING)
            connection.execute(update.values(state=state))
            self._announce_run(connection, name, self._next(connection, name))

    # -- what others see

    def get(self, name: str) -> run_pb2.Run:
        """The run as it stands. NotFound for an unknown one."""
        with self.engine.connect() as connection:
            return self._run_message(connection, name)

    def page(self, size: int, before: Place | None, owner: str = "") -> tuple[list[run_pb2.Run], Place | None]:
        """Runs without stages, newest first, that come after the place `before`; and the place of the last of them.

        With an `owner` only those that it started.
        """
        # Not the options, and of the prompt what is shown: either may be as long as a book.
        prompt = sa.func.substr(RUNS.c.prompt, 1, PROMPT_SHOWN).label("prompt")
        columns = [column for column in RUNS.c if column.name not in ("prompt", "options")]
        query = sa.select(*columns, prompt, OWNERS.c.owner).outerjoin(OWNERS, OWNERS.c.run == RUNS.c.name)
        query = query.order_by(RUNS.c.created_at.desc(), RUNS.c.name.desc()).limit(size + 1)
        if owner:
            query = query.where(OWNERS.c.owner == owner)
        if before is not None:
            # The first of the two conditions is what an index serves.
            query = query.where(RUNS.c.created_at <= before[0])
            query = query.where(sa.or_(RUNS.c.created_at < before[0], RUNS.c.name < before[1]))
        with self.engine.connect() as connection:
            rows = connection.execute(query).all()
        runs = [bare_run(row, row.owner) for row in rows[:size]]
        return runs, (rows[size - 1].created_at, rows[size - 1].name) if len(rows) > size else None

    def executors(self, names: Sequence[str]) -> dict[str, str]:
        """Which process works, or worked, on each of these runs."""
        query = sa.select(RUNS.c.name, RUNS.c.executor).where(RUNS.c.name.in_(names))
        with self.engine.connect() as connection:
            return {row.name: row.executor for row in connection.execute(query)}

    def changes(self, name: str, after: int) -> list[run_pb2.WatchResponse]:
        """The changes with a number above `after`, in order. NotFound for an unknown run."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                sa.select(EVENTS).where(EVENTS.c.run == name, EVENTS.c.sequence > after).order_by(EVENTS.c.sequence)
            ).all()
        if not rows:
            self.stored(name)
        return [
            run_pb2.WatchResponse(sequence=row.sequence, stage=Parse(row.body, run_pb2.Stage()))
            if row.stage
            else run_pb2.WatchResponse(sequence=row.sequence, run=Parse(row.body, run_pb2.Run()))
            for row in rows
        ]

    # -- inside

    def _owned(self, name: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (RUNS.c.name == name, RUNS.c.executor == self.executor, RUNS.c.state.in_(UNFINISHED))

    def _advance(self, connection: sa.Connection, name: str, **values: Any) -> int | None:
        """Locks the run's row and gives the next event's number; None where the run is not this process's to change."""
        update = sa.update(RUNS).where(*self._owned(name)).values(sequence=RUNS.c.sequence + 1, **values)
        return connection.execute(update.returning(RUNS.c.sequence)).scalar_one_or_none()

    def _next(self, connection: sa.Connection, name: str) -> int:
        update = sa.update(RUNS).where(RUNS.c.name == name).values(sequence=RUNS.c.sequence + 1)
        return int(connection.execute(update.returning(RUNS.c.sequence)).scalar_one())

    def _change_stage(self, name: str, stage: str, values: dict[str, Any], *, passing: bool = False) -> None:
        with self.engine.begin() as connection:
            sequence = self._advance(connection, name)
            if sequence is None:
                raise _lost(name)
            self._set_stage(connection, name, stage, values, sequence, passing=passing)

    def _set_stage(
        self,
        connection: sa.Connection,
        name: str,
        stage: str,
        values: dict[str, Any],
        sequence: int,
        *,
        passing: bool = False,
    ) -> None:
        where = (STAGE_ROWS.c.run == name, STAGE_ROWS.c.name == stage)
        row = connection.execute(sa.update(STAGE_ROWS).where(*where).values(values).returning(*STAGE_ROWS.c)).one()
        if not passing:
            old = sa.delete(EVENTS).where(EVENTS.c.run == name, EVENTS.c.stage == stage, EVENTS.c.passing.is_(True))
            connection.execute(old)
        body = MessageToJson(stage_message(row), indent=None)
        event = {"run": name, "sequence": sequence, "stage": stage, "passing": passing, "body": body}
        connection.execute(sa.insert(EVENTS).values(event))

    def _reset_stages(self, connection: sa.Connection, name: str) -> None:
        """Stages under way are no more: their run ended or begins again."""
        under_way = (run_pb2.STAGE_STATE_RUNNING, run_pb2.STAGE_STATE_WAITING)
        update = sa.update(STAGE_ROWS).where(STAGE_ROWS.c.run == name, STAGE_ROWS.c.state.in_(under_way))
        connection.execute(update.values(state=run_pb2.STAGE_STATE_PENDING))

    def _announce_run(self, connection: sa.Connection, name: str, sequence: int) -> None:
        body = MessageToJson(self._run_message(connection, name), indent=None)
        event = {"run": name, "sequence": sequence, "stage": "", "passing": False, "body": body}
        connection.execute(sa.insert(EVENTS).values(event))

    def _run_message(self, connection: sa.Connection, name: str) -> run_pb2.Run:
        row = connection.execute(sa.select(RUNS).where(RUNS.c.name == name)).one_or_none()
        if row is None:
            raise unknown_run(name)
        owner = connection.execute(sa.select(OWNERS.c.owner).where(OWNERS.c.run == name)).scalar_one_or_none()
        message = bare_run(row, owner)
        stages = {r.name: r for r in connection.execute(sa.select(STAGE_ROWS).where(STAGE_ROWS.c.run == name))}
        total = Ledger()
        for stage in STAGES:
            message.stages.append(stage_message(stages[stage]))
            total += from_message(message.stages[-1].ledger, Ledger)
        message.ledger.CopyFrom(to_message(total, common_pb2.Ledger))
        if row.state == run_pb2.RUN_STATE_WAITING:
            for question in self._open_questions(connection, name)[:1]:
                message.question.CopyFrom(Parse(question.body, run_pb2.Question()))
        return message

    def _question(self, connection: sa.Connection, name: str, question_id: str) -> Any:
        query = sa.select(QUESTIONS).where(QUESTIONS.c.run == name, QUESTIONS.c.id == question_id)
        return connection.execute(query).one_or_none()

    def _open_questions(self, connection: sa.Connection, name: str) -> Sequence[Any]:
        query = sa.select(QUESTIONS).where(QUESTIONS.c.run == name, QUESTIONS.c.answer.is_(None))
        return connection.execute(query.order_by(QUESTIONS.c.id)).all()


def unknown_run(name: str) -> P2MError:
    """The error for a name that no run has."""
    return NotFound("NO_SUCH_RUN", f"There is no run {name!r}. `p2m list` shows the runs.", field="name")


def under_way(name: str) -> P2MError:
    """The error for a run that another live process is at."""
    return Aborted("UNDER_WAY", f"The run {name} is under way in another process. `p2m watch {name}` shows it.")


def name_taken(name: str) -> P2MError:
    """The error for a name whose run has another prompt or other options."""
    return AlreadyExists(
        "NAME_TAKEN",
        f"The name {name} belongs to a run with another prompt or other options. Take another --name, or start it with "
        f"the prompt and options it had; `p2m show {name}` shows them.",
        field="name",
    )


def _lost(name: str) -> P2MError:
    return Aborted(
        "RUN_LOST", f"The run {name} was stopped or taken over; what this process still did is not recorded."
    )


def _ledger_json(ledger: Ledger) -> str:
    return json.dumps(MessageToDict(to_message(ledger, common_pb2.Ledger)))
