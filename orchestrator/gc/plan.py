"""What is to be removed: worked out of a survey, the runs' rows and the retention; nothing is changed here.

runs           ended runs whose time is over, or that were named
checkpoints    of ended runs whose time for them is over
orphans        records, checkpoints and, where they are not kept, answers of runs that are not in the database
blobs          what no run names that stays
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.gc.references import Survey
from orchestrator.gc.retention import FOREVER, kind_of
from orchestrator.gc.rows import RunRow
from services.kit.artifacts import Entry


@dataclass
class Plan:
    """What is to be removed."""

    runs: list[str] = field(default_factory=list)
    records: dict[str, list[Entry]] = field(default_factory=dict)
    """Objects to remove under the reservation of their run, by run."""
    blobs: dict[str, Entry] = field(default_factory=dict)
    """What nobody names."""
    expiring: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Runs that name a blob of `blobs` whose time is over, by blob."""

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(Objects, bytes) by kind."""
        found: dict[str, tuple[int, int]] = {}
        entries = [*self.blobs.values(), *(entry for some in self.records.values() for entry in some)]
        for entry in entries:
            count, size = found.get(kind_of(entry.key), (0, 0))
            found[kind_of(entry.key)] = (count + 1, size + entry.size)
        return dict(sorted(found.items()))


def make(
    found: Survey, rows: Mapping[str, RunRow], retention: Mapping[str, float], grace_s: float, named: str = "",
    keep_answers: bool = False,
) -> Plan:  # fmt: skip
    """The whole plan. `named`: this run alone goes, with what only it has; `keep_answers`: but what was paid for."""
    now, plan = time.time(), Plan()
    improved = {row.improves for row in rows.values() if not row.ended}
    for row in rows.values():
        over = row.name == named if named else now - row.ended_at >= retention["run"]
        if over and row.ended and row.name not in improved:
            plan.runs.append(row.name)
    for run, entries in found.runs().items():
        wanted = _records(run, entries, rows.get(run), retention, grace_s, run in plan.runs, named, keep_answers)
        if wanted:
            plan.records[run] = wanted
    gone = {*plan.runs, *(run for run in plan.records if run not in rows)}
    unnamed(plan, found, rows, {} if named else retention, gone)
    return plan


def unnamed(
    plan: Plan, found: Survey, rows: Mapping[str, RunRow], retention: Mapping[str, float],
    gone: Collection[str] = (),
) -> None:  # fmt: skip
    """Sets the blobs of the plan: those that no run names but the ones that are `gone`, or whose time is over."""
    now = time.time()
    improved = {row.improves for row in rows.values() if not row.ended}
    kept: set[str] = set()
    plan.expiring.clear()
    for run, keys in found.named.items():
        if run in gone:
            continue
        row = rows.get(run)
        for key in keys:
            lasts = retention.get(kind_of(key), FOREVER)
            if row is not None and row.succeeded and run not in improved and now - row.ended_at >= lasts:
                plan.expiring[key].add(run)
            else:
                kept.add(key)
    blobs = ((key, entry) for key, entry in found.entries.items() if "/blobs/sha256/" in key)
    plan.blobs = {key: entry for key, entry in blobs if key not in kept}


def _records(
    run: str, entries: Iterable[Entry], row: RunRow | None, retention: Mapping[str, float], grace_s: float, goes: bool,
    named: str, keep_answers: bool,
) -> list[Entry]:  # fmt: skip
    """What goes of a run's records, answers and checkpoints."""
    now, every = time.time(), [*entries]
    if run == named or goes:
        stay = keep_answers or (run != named and retention["answers"] == FOREVER)
        return [entry for entry in every if not (stay and kind_of(entry.key) == "answers")]
    if named:
        return []
    if row is None:
        youngest = max(entry.modified_at for entry in every)
        if now - youngest < grace_s:
            return []
        return [
            entry for entry in every
            if kind_of(entry.key) != "answers" or now - youngest >= retention["answers"]
        ]  # fmt: skip
    if row.ended and now - row.ended_at >= retention["checkpoint"]:
        return [entry for entry in every if kind_of(entry.key) == "checkpoint"]
    return []
