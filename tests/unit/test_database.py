"""The database's connections."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy as sa

from orchestrator.database import engine_options, open_engine
from services.kit.errors import DiskFull, FailedPrecondition
from services.kit.settings import Settings


@pytest.mark.parametrize("ours", [True, False])
def test_a_connection_to_sqlite_keeps_little_and_waits_for_locks(settings: Settings, ours: bool) -> None:
    """Ours and the workflow engine's, which is given the same options: a quarter of a megabyte, and half a minute."""
    settings.home_folder.mkdir(parents=True, exist_ok=True)
    url = sa.make_url(settings.database_url)
    engine = open_engine(settings) if ours else sa.create_engine(url, **engine_options(url))
    with engine.connect() as connection:
        asked = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("cache_size", "busy_timeout")]
    engine.dispose()
    assert asked == [-256, 30_000]


@pytest.mark.parametrize("damage", ["replaced", "flipped"])
def test_a_damaged_file_is_named(settings: Settings, damage: str) -> None:
    """The error says which file it is, and that the runs' results are elsewhere; the file is left as it is."""
    settings.home_folder.mkdir(parents=True, exist_ok=True)
    file = settings.home_folder / "runs.sqlite"
    if damage == "replaced":
        found = b"Dear diary, " * 1000
    else:
        with sqlite3.connect(file) as connection:
            connection.execute("CREATE TABLE t (c)")
            connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 100)
        connection.close()
        found = file.read_bytes()
        found = found[:100] + b"\xff" * 300 + found[400:]
    file.write_bytes(found)
    engine = open_engine(settings)
    with pytest.raises(FailedPrecondition, match=f"{file}.*move it away") as error, engine.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM t").all()
    engine.dispose()
    assert error.value.reason == "DATABASE_DAMAGED"
    assert file.read_bytes() == found


def test_a_file_that_cannot_be_made_is_named(settings: Settings) -> None:
    """A folder in its place: the error says which file, and which settings name another."""
    file = settings.home_folder / "runs.sqlite"
    file.mkdir(parents=True)
    with pytest.raises(FailedPrecondition, match=f"{file}.*P2M_DATABASE"), open_engine(settings).connect():
        pass


def test_a_full_disk_is_no_bug(settings: Settings) -> None:
    """A file that may not grow raises DiskFull, which is what a stage and the command line know."""
    engine = open_engine(settings)
    with pytest.raises(DiskFull, match=r"runs\.sqlite"), engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=2")
        connection.exec_driver_sql("CREATE TABLE t (c)")
        connection.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")
    engine.dispose()
