"""The database of the runs: SQLite on one machine, PostgreSQL for several orchestrators.

    open_engine(settings)        the engine; a database that is away is Unavailable, a damaged file FailedPrecondition
    engine_options(url)          how a connection is made: for SQLAlchemy's create_engine, ours and the engine's
    create_absent(engine, ...)   makes tables, also when several processes do so at once

A PostgreSQL that is gone without a word, behind a proxy that is not, would be waited for without end. So who asks it is
answered within ANSWER_S, or the connection is closed. That also bounds how old an answer may be: another's heartbeat
must not have been read longer ago than a heartbeat may be old. The server, in turn, ends a transaction after HELD_S
without a word: it would keep the rows that a dead connection had locked.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg
import sqlalchemy as sa

from services.kit.errors import DiskFull, FailedPrecondition, Unavailable
from services.kit.settings import Settings

ANSWER_S = 10.0
# So long the server keeps the locks of one whose next word does not come.
HELD_S = 12.0

# So long another's lock on SQLite's file is waited for.
_LOCKED_S = 30.0
# SQLite's own copy of the file, by connection, of which there may be fifty: the system keeps one for all of them.
_CACHE_KB = 256

# The number, drawn at random, of the lock under which tables are made.
_MAKING_TABLES = 4_120_386_551
# What was sent and not received within 20 s ends the connection.
_DEADLINES: dict[str, Any] = {
    "connect_timeout": 10, "tcp_user_timeout": 20_000, "keepalives_idle": 10, "keepalives_interval": 5,
    "keepalives_count": 3,
}  # fmt: skip


class _Connection(psycopg.Connection[Any]):
    """One whose server answers within ANSWER_S, or is not asked again."""

    _listening = False

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None or self._listening:
            return super().wait(gen, interval=interval, timeout=timeout)
        began = time.monotonic()
        try:
            return super().wait(gen, interval=interval, timeout=ANSWER_S)
        except psycopg.OperationalError:
            if self.closed or time.monotonic() - began < ANSWER_S:
                raise
            self.close()
            raise psycopg.OperationalError(f"no answer within {ANSWER_S:g} s") from None

    def notifies(self, **options: Any) -> Generator[psycopg.Notify]:
        """Notifications may be hours apart."""
        self._listening = True
        try:
            yield from super().notifies(**options)
        finally:
            self._listening = False


class _FileConnection(sqlite3.Connection):
    """One that keeps little of the file in memory."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute(f"PRAGMA cache_size=-{_CACHE_KB}")


def engine_options(url: sa.URL) -> dict[str, Any]:
    """How a connection is made: options of SQLAlchemy's create_engine."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"factory": _FileConnection, "timeout": _LOCKED_S}}
    return {"creator": _connector(url)}


def _connector(url: sa.URL) -> Callable[[], psycopg.Connection[Any]]:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)

    def connect() -> psycopg.Connection[Any]:
        connection = _Connection.connect(plain, **_DEADLINES)
        # By SET and not as the connection is made: a pool in between may take no options.
        connection.execute(f"SET idle_in_transaction_session_timeout = {1000 * HELD_S:.0f}")
        connection.commit()
        return connection

    return connect


def open_engine(settings: Settings) -> sa.Engine:
    """The database that the settings name. Readers of SQLite never wait for its one writer."""
    url = sa.make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        url = url.set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, pool_pre_ping=True, **engine_options(url))
        sa.event.listen(engine, "handle_error", _say_unreachable)
        return engine
    settings.home_folder.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, **engine_options(url))
    sa.event.listen(engine, "handle_error", _say_unusable)

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = "IMMEDIATE"  # a reader that turns writer could not be told apart from a deadlock
        with contextlib.suppress(sqlite3.OperationalError):  # another process is just doing so, and it lasts
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def create_absent(engine: sa.Engine, schema: sa.MetaData) -> None:
    """Makes the schema's tables where they are absent, also when several processes do so at once."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            # Two who find a table absent at once would both make it, and one of them fail.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING_TABLES)))
        for table in schema.sorted_tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))


def _say_unreachable(context: sa.engine.ExceptionContext) -> None:
    """A database that is away is Unavailable, so that whoever asks may ask again."""
    error = context.sqlalchemy_exception
    if not context.is_pre_ping and (context.is_disconnect or isinstance(error, sa.exc.OperationalError)):
        cause = str(context.original_exception).strip().partition("\n")[0][:300]
        raise Unavailable(
            "DATABASE_UNREACHABLE", f"The database is out of reach ({cause}). See that it runs (P2M_DATABASE)."
        ) from context.original_exception


def _say_unusable(context: sa.engine.ExceptionContext) -> None:
    """What is wrong with the file, and what can be done."""
    cause, engine = context.original_exception, context.engine
    file = engine.url.database if engine else ""
    # Its lowest byte is the kind of error, the rest says more of it.
    match getattr(cause, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            raise FailedPrecondition(
                "DATABASE_DAMAGED",
                f"{file} is no database, or is damaged ({cause}). Put a copy of it back, or move it away: no run is"
                " then listed any more, and one that is given again, with its name, finds what it made in the store.",
            ) from cause
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY:
            raise FailedPrecondition(
                "DATABASE_NOT_WRITABLE",
                f"{file} cannot be opened and written ({cause}). See to the rights of this file and of its folder, or"
                " name another (P2M_DATABASE, P2M_HOME).",
            ) from cause
        case sqlite3.SQLITE_FULL:
            raise DiskFull(f"No space is left for {file}. Make room and run the same command again.") from cause
