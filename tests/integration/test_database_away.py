"""A PostgreSQL that restarts: what asks it waits or is told, and nothing that it had is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from p2m.run.v1 import run_pb2

from orchestrator import pipeline
from orchestrator.client import RunClient
from orchestrator.database import open_engine
from orchestrator.runs import Runs
from services.kit.channel import dial, wait_until_serving
from services.kit.errors import Unavailable
from services.kit.settings import SERVICES, Settings
from tests.conftest import ROOT
from tests.support.postgres import Postgres, postgres
from tests.support.proxy import Proxy
from tests.support.seaweed import free_ports


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


async def test_an_orchestrator_ends_while_its_database_is_away(database: Postgres, tmp_path: Path) -> None:
    """SIGTERM ends it with 0 and soon, with a run under way: others will take that up."""
    run_port, nowhere = free_ports(2)
    settings = Settings(home=tmp_path, database=database.url, openai_base_url="", openai_api_key="")
    own = {"P2M_DATABASE": database.url, "P2M_HOME": str(tmp_path), "P2M_PORT": str(run_port), "P2M_GRACE_S": "2"}
    own |= {f"P2M_{service.upper()}_TARGET": f"127.0.0.1:{nowhere}" for service in SERVICES}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator.serve", cwd=ROOT, env=os.environ | own
    )
    try:
        channel = dial(f"127.0.0.1:{run_port}", settings)
        await wait_until_serving(channel, 60)
        await channel.close()
        async with RunClient(f"127.0.0.1:{run_port}", settings) as client:
            await client.start("left", "Name the colour.", run_pb2.RunOptions(number=4))
        await asyncio.to_thread(database.stop, "immediate")
        try:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 45) == 0
        finally:
            await asyncio.to_thread(database.start)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()


def test_tables_are_made_by_many_at_once(database: Postgres, settings: Settings) -> None:
    """Processes that start together on an empty database all find its tables made."""
    database.run("createdb", "-h", "127.0.0.1", "-p", str(database.port), "-U", "p2m", "together")
    url = database.url.replace("/postgres", "/together")
    engines = [open_engine(settings.model_copy(update={"database": url})) for _ in range(8)]
    with ThreadPoolExecutor(len(engines)) as threads:
        list(threads.map(lambda engine: Runs(engine, "tests").create_tables(), engines))
    for engine in engines:
        engine.dispose()
