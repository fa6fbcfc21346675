"""Get and List beside many finished runs: nothing is missing, and neither takes longer the more there are."""

from __future__ import annotations

import pytest
from p2m.run.v1 import run_pb2

from bench.runs_list import measure
from orchestrator.database import open_engine
from orchestrator.runs import Runs
from services.kit.settings import Settings
from tests.support.postgres import postgres

# 10,000 are measured by bench.runs_list; the machine of a test may be busy, so the bound here is ten times as wide.
RUNS, BOUND_MS = 1500, 1000


async def test_get_and_list_are_quick_beside_many_runs(settings: Settings) -> None:
    """Every page is there, and half of all calls are well within the bound that 99 of 100 keep on a quiet machine."""
    figures = await measure(settings, RUNS, 60)
    assert figures["get_p50_ms"] < 100 and figures["list_p50_ms"] < 100
    assert figures["get_p99_ms"] < BOUND_MS and figures["list_p99_ms"] < BOUND_MS


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_pages_tell_every_run_once(settings: Settings, server: str) -> None:
    """Runs that were made at the same moment are on one page each, and none is left out."""
    if server == "postgres":
        with postgres() as database:
            check_pages(settings.model_copy(update={"database": database.url}))
    else:
        check_pages(settings)


def check_pages(settings: Settings) -> None:
    """Walks through pages of runs of which many have the same time."""
    engine = open_engine(settings)
    runs = Runs(engine, "me")
    runs.create_tables()
    for number in range(30):
        runs.add(f"same-{number}", "0" * 64, "p", run_pb2.RunOptions())
    with engine.begin() as connection:
        connection.exec_driver_sql("update p2m_runs set created_at = 1.0")
    seen: list[str] = []
    page, before = runs.page(7, None)
    seen += [run.name for run in page]
    while before is not None:
        page, before = runs.page(7, before)
        seen += [run.name for run in page]
    assert sorted(seen) == sorted(f"same-{number}" for number in range(30)) and len(seen) == 30
    engine.dispose()
