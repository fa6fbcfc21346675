"""`p2m gc`: what goes, by kind; and its removal.

It works on the database and the store that the settings name, with credentials that may list, read and delete all of
the store, which no service's may.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.amounts import bytes_text, seconds_text
from orchestrator.database import open_engine
from orchestrator.executors import Executors
from orchestrator.gc import databases, plan, retention
from orchestrator.gc.marks import Marks
from orchestrator.gc.references import Survey, survey
from orchestrator.gc.reservations import Reservations
from orchestrator.gc.rows import RunRow, RunRows
from orchestrator.gc.sweep import Sweep
from orchestrator.runs import Runs
from orchestrator.terminal import DONE, Terminal
from services.kit import keeping
from services.kit.artifacts import Store, open_store
from services.kit.errors import FailedPrecondition, NotFound
from services.kit.settings import Settings


@dataclass(frozen=True)
class Wanted:
    """What to remove."""

    run: str = ""
    """This run alone, with its traces; "" for all whose time is over."""
    keep_answers: bool = False
    """With `run`: keep what the LLM was paid for."""
    older_than: str = ""
    """Ended runs older than this go, whatever the retention says; "" for the retention's own time."""
    grace: str = "1d"
    """How long a blob must have been found unnamed."""
    dry_run: bool = False
    as_json: bool = False


async def gc(terminal: Terminal, settings: Settings, wanted: Wanted) -> int:
    """Removes, or with `dry_run` tells, what no run refers to any more."""
    removal = Removal(settings, wanted)
    try:
        told = await asyncio.to_thread(removal.look if wanted.dry_run else removal.remove)
    finally:
        removal.close()
    if wanted.as_json:
        print(json.dumps(told), file=terminal.out)
        return DONE
    print(f"{'KIND':<12}{'OBJECTS':>10}{'SIZE':>12}", file=terminal.out)
    for kind, (count, size) in told["kinds"].items():
        print(f"{kind:<12}{count:>10}{bytes_text(size):>12}", file=terminal.out)
    verb = "would go" if wanted.dry_run else "removed"
    terminal.say(f"{verb.capitalize()}: {told['runs']} runs, {bytes_text(told['bytes'])}.")
    if told["waiting_bytes"] and not wanted.dry_run:
        grace = seconds_text(retention.duration(wanted.grace))
        terminal.say(f"{bytes_text(told['waiting_bytes'])} that no run names wait for their grace of {grace}.")
    return DONE


class Removal:
    """What `p2m gc` does, blocking. Errors are those of the store and the database, and what `_check` raises."""

    def __init__(self, settings: Settings, wanted: Wanted) -> None:
        self._settings = settings
        self._wanted = wanted
        self._retention = retention.parse(settings.retention)
        if wanted.older_than:
            self._retention["run"] = retention.duration(wanted.older_than)
        self._grace_s = retention.duration(wanted.grace)
        self._engine = open_engine(settings)
        self._store: Store = open_store(settings)
        self._rows = RunRows(self._engine)
        self._holder = f"gc-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        Runs(self._engine, self._holder).create_tables()
        for tables in (Executors(self._engine, ""), Reservations(self._engine, ""), Marks(self._engine)):
            tables.create_tables()

    def look(self) -> dict[str, Any]:
        """What would go, by kind: {"kinds": {kind: [objects, bytes]}, "runs", "bytes", "waiting_bytes"}."""
        found, rows = self._survey()
        self._check(found, rows)
        made = self._plan(found, rows)
        sizes = made.sizes()
        counts = Counter({kind: count for kind, (count, _) in sizes.items()})
        return _told(counts, Counter({kind: size for kind, (_, size) in sizes.items()}), len(made.runs), 0)

    def remove(self) -> dict[str, Any]:
        """Removes it; what went, as in `look`."""
        counts: Counter[str] = Counter()
        sizes: Counter[str] = Counter()

        def tell(kind: str, size: int) -> None:
            counts[kind] += 1
            sizes[kind] += size

        sweep = Sweep(self._store, self._engine, self._holder, self._forget, tell)
        with sweep.alone():
            floor = self._rows.floor()
            found, rows = self._survey()
            self._check(found, rows)
            made = self._plan(found, rows)
            if made.runs or made.records:
                sweep.records(made)
                # What the runs that went alone had named is unnamed only now; one that has begun meanwhile names it.
                found, rows = self._survey()
            plan.unnamed(made, found, rows, {} if self._wanted.run else self._retention)
            waiting = sweep.blobs(made, self._grace_s, min(floor, self._rows.floor()) if self._grace_s else time.time())
            left = self._rows.all()
            return _told(counts, sizes, sum(run not in left for run in made.runs), waiting)

    def close(self) -> None:
        """Ends the database's connections."""
        self._engine.dispose()

    def _plan(self, found: Survey, rows: dict[str, RunRow]) -> plan.Plan:
        return plan.make(found, rows, self._retention, self._grace_s, self._wanted.run, self._wanted.keep_answers)

    def _survey(self) -> tuple[Survey, dict[str, RunRow]]:
        from orchestrator.pipeline import recorded_texts

        def texts() -> Iterator[tuple[str, str]]:
            yield from self._rows.texts()
            yield from recorded_texts(self._engine)

        found = survey(self._store, texts())
        return found, self._rows.all()

    def _check(self, found: Survey, rows: dict[str, RunRow]) -> None:
        """FailedPrecondition where a removal could take what is in use; NotFound where the run to remove is unknown."""
        if others := databases.others(self._engine, self._store):
            raise FailedPrecondition(
                "OTHER_DATABASES",
                f"Runs of other databases keep their artifacts in this store too ({', '.join(others)}), and this one "
                "does not know them. Where such a database is gone for good, delete its object and try again.",
            )
        if not rows and found.runs() and not self._wanted.run:
            raise FailedPrecondition(
                "NO_RUNS",
                "The database knows no run, and the store has artifacts of runs. Is P2M_DATABASE (or P2M_HOME) the "
                "right one? Where these runs are gone for good, remove each: p2m gc --run NAME.",
            )
        if self._grace_s < 2 * keeping.FRESH_S and self._alive():
            raise FailedPrecondition(
                "GRACE_TOO_SHORT",
                f"A grace of {self._wanted.grace} is too short while an orchestrator is up: wanted 2h or more.",
            )
        if (run := self._wanted.run) and run not in rows and not found.of_run(run):
            raise NotFound("NO_SUCH_RUN", f"There is no run {run!r}, nor a trace of one. `p2m list` shows the runs.")
        if run and self._rows.needed(run):
            raise FailedPrecondition(
                "RUN_IN_USE", f"The run {run} has not ended, or an unfinished one improves it. p2m cancel ends a run."
            )

    def _alive(self) -> bool:
        return Executors(self._engine, "").any_lives()

    def _forget(self, row: RunRow) -> None:
        from orchestrator.pipeline import delete_workflows

        delete_workflows(self._settings, row.name, row.workflow)
        self._rows.forget(row.name)


def _told(counts: Counter[str], sizes: Counter[str], runs: int, waiting: int) -> dict[str, Any]:
    kinds = {kind: [counts[kind], sizes[kind]] for kind in sorted(counts)}
    return {"kinds": kinds, "runs": runs, "bytes": sum(sizes.values()), "waiting_bytes": waiting}
