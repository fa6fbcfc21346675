"""The removal of what a plan names: each run's under the reservation of its name, blobs under a note in the store.

It blocks. Whatever is removed is looked at once more just before: a run that has begun meanwhile keeps what is its.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import sqlalchemy as sa

from orchestrator.gc.marks import Marks
from orchestrator.gc.plan import Plan
from orchestrator.gc.reservations import LASTS_S, MARGIN_S, SWEEP, Reservations
from orchestrator.gc.retention import kind_of
from orchestrator.gc.rows import RunRow, RunRows
from services.kit.artifacts import Entry, Store
from services.kit.errors import Aborted
from services.kit.keeping import sweeping

_BATCH = 200
_RENEW_S = 10.0

Tell = Callable[[str, int], None]
"""Told the kind and the bytes of each object that is removed."""


class Sweep:
    """One sweep. `forget` removes a run from the database."""

    def __init__(
        self, store: Store, engine: sa.Engine, holder: str, forget: Callable[[RunRow], None], tell: Tell
    ) -> None:
        self._store = store
        self._rows = RunRows(engine)
        self._forget = forget
        self._tell = tell
        self._marks = Marks(engine)
        self._reservations = Reservations(engine, holder)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Aborted where another sweep is under way."""
        if not self._reservations.take(SWEEP):
            raise Aborted("SWEEP_UNDER_WAY", "Another p2m gc is at work on this database. Wait for its end.")
        try:
            yield
        finally:
            self._reservations.give_up(SWEEP)

    def records(self, plan: Plan) -> None:
        """Removes runs, and what is left of runs that are gone."""
        for run in sorted({*plan.runs, *plan.records}):
            with self._reserved([run]) as reserved:
                row = self._rows.one(run)
                if not reserved or self._rows.needed(run):
                    continue  # it has begun, or goes on
                if row is not None and run in plan.runs:
                    self._forget(row)
                elif row is not None and any(kind_of(one.key) != "checkpoint" for one in plan.records[run]):
                    continue  # there was none of that name when the plan was made
                # Results first: without them nothing points at what is removed after them.
                in_order = sorted(plan.records.get(run, ()), key=lambda one: ("/results/" not in one.key, one.key))
                for entry in self._while_reserved([run], in_order):
                    self._store.delete(entry.key)
                    self._tell(kind_of(entry.key), entry.size)

    def blobs(self, plan: Plan, grace_s: float, floor: float) -> int:
        """Removes blobs that were found unnamed a grace ago and were last written before `floor`, Unix seconds.

        Returns the bytes of those that have to wait.
        """
        since = self._marks.update({*plan.blobs})
        cutoff = min(time.time() - grace_s, floor)
        due = [entry for key, entry in plan.blobs.items() if since[key] <= time.time() - grace_s]
        waiting = sum(entry.size for entry in plan.blobs.values()) - sum(entry.size for entry in due)
        by_service: dict[str, list[Entry]] = defaultdict(list)
        for entry in sorted(due, key=lambda one: one.key):
            if entry.modified_at <= cutoff:
                by_service[entry.key.partition("/")[0]].append(entry)
            else:
                waiting += entry.size
        for service, entries in by_service.items():
            for first in range(0, len(entries), _BATCH):
                self._batch(service, entries[first : first + _BATCH], plan, cutoff)
        return waiting

    def _batch(self, service: str, entries: Sequence[Entry], plan: Plan, cutoff: float) -> None:
        runs = sorted({run for entry in entries for run in plan.expiring.get(entry.key, ())})
        with self._reserved(runs) as reserved:
            if not reserved:
                return
            needed = {run for run in runs if self._rows.needed(run)}
            wanted = [entry for entry in entries if not needed & plan.expiring.get(entry.key, set())]
            removed = []
            with sweeping(self._store, service, [entry.key for entry in wanted]) as sweep:
                for entry in self._while_reserved(runs, wanted):
                    if sweep.remove(entry.key, cutoff):
                        self._tell(kind_of(entry.key), entry.size)
                        removed.append(entry.key)
            self._marks.drop(removed)

    @contextlib.contextmanager
    def _reserved(self, runs: Sequence[str]) -> Iterator[bool]:
        """Whether all these names could be reserved; they are given up at the end."""
        taken = []
        try:
            for run in runs:
                if not self._reservations.take(run):
                    break
                taken.append(run)
            yield len(taken) == len(runs)
        finally:
            for run in taken:
                self._reservations.give_up(run)

    def _while_reserved(self, runs: Sequence[str], entries: Iterable[Entry]) -> Iterator[Entry]:
        """Gives the entries, renewing the reservations; Aborted where that is not possible, or came too late."""
        renewed = time.time()
        for number, entry in enumerate(entries):
            held_up = time.time() - renewed
            if number == 0 or held_up > _RENEW_S:
                if held_up > LASTS_S - MARGIN_S or not all(self._reservations.take(name) for name in (SWEEP, *runs)):
                    raise Aborted("HELD_UP", "This p2m gc was held up for too long. Run it again: it goes on.")
                renewed = time.time()
            yield entry
