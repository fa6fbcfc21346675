"""A PostgreSQL that restarts: what asks it waits or is told, and nothing that it had is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from p2m.run.v1 import run_pb2

from orchestrator import pipeline
from orchestrator.database import open_engine
from orchestrator.runs import Runs
from services.kit.errors import Unavailable
from services.kit.settings import Settings
from tests.support.postgres import Postgres, postgres
from tests.support.proxy import Proxy


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """A server of the tests' own."""
    with postgres() as server:
        yield server


@pytest.fixture
def runs(database: Postgres, settings: Settings) -> Iterator[Runs]:
    """The rows, in an own process's name."""
    engine = open_engine(settings.model_copy(update={"database": database.url}))
    runs = Runs(engine, "tests")
    runs.create_tables()
    yield runs
    engine.dispose()


def test_a_database_that_is_away_is_unavailable(database: Postgres, runs: Runs) -> None:
    """Whoever asks meanwhile is told UNAVAILABLE and why, and asks again with success."""
    assert runs.add("away", "digest", "A prompt.", run_pb2.RunOptions())
    database.stop("immediate")
    try:
        with pytest.raises(Unavailable, match="database is out of reach") as caught:
            runs.get("away")
    finally:
        database.start()
    assert caught.value.reason == "DATABASE_UNREACHABLE"
    assert runs.get("away").name == "away"


async def test_a_run_waits_for_its_database(database: Postgres, runs: Runs) -> None:
    """What a run writes while the database restarts is written once it is back."""
    await asyncio.to_thread(runs.add, "waits", "digest", "A prompt.", run_pb2.RunOptions())
    await asyncio.to_thread(database.stop)
    writing = asyncio.create_task(pipeline._written(runs.begin_stage, "waits", "parse"))
    try:
        assert not (await asyncio.wait([writing], timeout=1.0))[0]
    finally:
        await asyncio.to_thread(database.start)
    await asyncio.wait_for(writing, 60)
    run = await asyncio.to_thread(runs.get, "waits")
    assert run.stages[0].state == run_pb2.STAGE_STATE_RUNNING


async def test_a_database_that_says_nothing_is_not_waited_for(
    database: Postgres, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that are dead without a word end as UNAVAILABLE after a while; the next one works, and gets the rows
    that a dead one had locked."""
    monkeypatch.setattr("orchestrator.database.ANSWER_S", 0.5)
    monkeypatch.setattr("orchestrator.database.HELD_S", 2.0)
    async with Proxy("127.0.0.1", database.port) as proxy:
        engine = open_engine(settings.model_copy(update={"database": database.url_at(proxy.port)}))
        silent = Runs(engine, "tests")
        await asyncio.to_thread(silent.create_tables)
        await asyncio.to_thread(silent.add, "silent", "digest", "A prompt.", run_pb2.RunOptions())
        connection = await asyncio.to_thread(engine.connect)
        await asyncio.to_thread(connection.execute, sa.text("UPDATE p2m_runs SET verdict = 'locked'"))
        proxy.strand()
        with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
            await asyncio.to_thread(connection.execute, sa.text("SELECT 1"))
        await asyncio.to_thread(connection.close)
        await asyncio.wait_for(pipeline._written(silent.begin_stage, "silent", "parse"), 30)
        assert not (await asyncio.to_thread(silent.get, "silent")).verdict
        await asyncio.to_thread(engine.dispose)


def test_tables_are_made_by_many_at_once(database: Postgres, settings: Settings) -> None:
    """Processes that start together on an empty database all find its tables made."""
    database.run("createdb", "-h", "127.0.0.1", "-p", str(database.port), "-U", "p2m", "together")
    url = database.url.replace("/postgres", "/together")
    engines = [open_engine(settings.model_copy(update={"database": url})) for _ in range(8)]
    with ThreadPoolExecutor(len(engines)) as threads:
        list(threads.map(lambda engine: Runs(engine, "tests").create_tables(), engines))
    for engine in engines:
        engine.dispose()
