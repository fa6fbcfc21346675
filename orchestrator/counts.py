"""How many runs are in which state, for those who look at the whole house."""

from __future__ import annotations

import sqlalchemy as sa
from p2m.run.v1 import run_pb2

from orchestrator.run_rows import RUNS
from orchestrator.runs import Runs


def by_state(rows: Runs) -> dict[tuple[str, ...], float]:
    """The number of runs by state ("running", "succeeded", ...), of all orchestrators on the database; 0 is told too.

    Blocks, as all that reads rows does.
    """
    state = RUNS.c.state
    names = {value: name.removeprefix("RUN_STATE_").lower() for name, value in run_pb2.RunState.items() if value}
    with rows.engine.connect() as connection:
        found = connection.execute(sa.select(state, sa.func.count()).group_by(state)).all()
    counts: dict[tuple[str, ...], float] = {(name,): 0.0 for name in names.values()}
    return counts | {(names[value],): float(count) for value, count in found}
