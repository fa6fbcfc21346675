"""The runs as a removal sees them: which have ended and when, which improve which, and what their rows name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from google.protobuf.json_format import Parse
from p2m.run.v1 import run_pb2

from orchestrator.executors import Executors
from orchestrator.run_rows import RUNS, TABLES
from orchestrator.runs import UNFINISHED
from services.kit import keeping

_COLUMNS = ("name", "state", "created_at", "ended_at", "workflow", "options", "executor")


@dataclass(frozen=True)
class RunRow:
    """What of a run's row a removal needs."""

    name: str
    ended: bool
    succeeded: bool
    ended_at: float
    """Unix seconds; of an unfinished one, now."""
    workflow: str
    """The newest one's id."""
    improves: str
    """The run that it improves; "" for none."""


class RunRows:
    """The rows of all runs."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def all(self) -> dict[str, RunRow]:
        """Every run, by name."""
        return {row.name: row for row in self._read()}

    def one(self, name: str) -> RunRow | None:
        """The run of that name, if there is one."""
        return next(iter(self._read(RUNS.c.name == name)), None)

    def needed(self, name: str) -> bool:
        """Whether the run has not ended, or an unfinished one improves it."""
        unfinished = self._read(RUNS.c.state.in_(UNFINISHED))
        return any(name in (row.name, row.improves) for row in unfinished)

    def texts(self) -> Iterator[tuple[str, str]]:
        """(run, text) of what the rows name: given rows, results."""
        with self._engine.connect() as connection:
            query = sa.select(RUNS.c.name, RUNS.c.options, RUNS.c.result)
            for name, options, result in connection.execution_options(yield_per=500).execute(query):
                yield name, f"{options}\n{result or ''}"

    def floor(self) -> float:
        """When the oldest run that a live process is at was begun, less what a blob may be older that it found there.

        Unix seconds. What was stored later may be known to that process alone.
        """
        with self._engine.connect() as connection:
            query = sa.select(RUNS.c.created_at, RUNS.c.executor).where(RUNS.c.state.in_(UNFINISHED))
            found = connection.execute(query).all()
        executors = Executors(self._engine, "")
        lives = {executor: executors.lives(executor) for executor in {row.executor for row in found}}
        return min((row.created_at for row in found if lives[row.executor]), default=time.time()) - keeping.FRESH_S

    def forget(self, name: str) -> None:
        """Removes the run's rows, its own last."""
        with self._engine.begin() as connection:
            for table in TABLES.values():
                column = table.c.name if table is RUNS else table.c.run
                connection.execute(sa.delete(table).where(column == name))

    def _read(self, *where: sa.ColumnElement[bool]) -> Sequence[RunRow]:
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(*(RUNS.c[name] for name in _COLUMNS)).where(*where)).all()
        return [_row(row) for row in rows]


def _row(row: Any) -> RunRow:
    ended = row.state not in UNFINISHED
    # An ended run without a time was ended by an older version; then the time of its beginning counts.
    ended_at = (row.ended_at or row.created_at) if ended else time.time()
    improves = Parse(row.options, run_pb2.RunOptions()).improve if '"improve"' in row.options else ""
    return RunRow(row.name, ended, row.state == run_pb2.RUN_STATE_SUCCEEDED, ended_at, row.workflow, improves)
