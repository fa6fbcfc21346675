"""Which orchestrators live: a heartbeat row each, so that survivors can take over a dead one's runs.

An executor is a process. It counts as dead when its heartbeat is old, or at once when it ran on this machine (in this
process namespace) and its process is gone.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import sqlalchemy as sa

from orchestrator.database import create_absent

# A heartbeat is written every INTERVAL_S; after EXPIRES_S without one an executor of another machine counts as dead.
INTERVAL_S = 2.0
EXPIRES_S = 30.0
# Before that, one that cannot write its heartbeat stops what it is at: by then another may have its runs.
LETS_GO_S = 20.0

_schema = sa.MetaData()
_executors = sa.Table(
    "p2m_executors",
    _schema,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("place", sa.String(200), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.String(40), nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
)


class Executors:
    """The heartbeat rows; `me` is this process's id."""

    def __init__(self, engine: sa.Engine, me: str) -> None:
        self.engine = engine
        self.me = me

    def create_tables(self) -> None:
        """Makes the table where it is absent."""
        create_absent(self.engine, _schema)

    def beat(self) -> bool:
        """Says that this process lives; whether it was there. It is not where somebody has taken it for dead."""
        row = {"place": _place(), "pid": os.getpid(), "born": _born(os.getpid()), "seen_at": time.time()}
        with self.engine.begin() as connection:
            update = sa.update(_executors).where(_executors.c.id == self.me).values(row)
            if connection.execute(update).rowcount:
                return True
            connection.execute(sa.insert(_executors).values(id=self.me, **row))
            return False

    def leave(self, handing_over: bool = False) -> None:
        """Says that this process ends. `handing_over`: it leaves unfinished runs, which others may take at once."""
        if not handing_over:
            self.forget(self.me)
            return
        with self.engine.begin() as connection:
            connection.execute(sa.update(_executors).where(_executors.c.id == self.me).values(place="", seen_at=0.0))

    def forget(self, executor: str) -> None:
        """Removes a row."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(_executors).where(_executors.c.id == executor))

    def lives(self, executor: str) -> bool:
        """Whether an executor is alive; one without a row is not."""
        with self.engine.connect() as connection:
            row = connection.execute(sa.select(_executors).where(_executors.c.id == executor)).one_or_none()
        if row is None:
            return False
        if row.place == _place():
            return bool(_born(row.pid) == row.born)
        return bool(time.time() - row.seen_at < EXPIRES_S)

    def any_lives(self) -> bool:
        """Whether any executor does."""
        with self.engine.connect() as connection:
            ids = [*connection.execute(sa.select(_executors.c.id)).scalars()]
        return any(self.lives(executor) for executor in ids)

    def dead(self) -> list[str]:
        """The executors that have a row and do not live."""
        with self.engine.connect() as connection:
            ids = [*connection.execute(sa.select(_executors.c.id)).scalars()]
        return [executor for executor in ids if executor != self.me and not self.lives(executor)]


def _place() -> str:
    """What makes process ids comparable: the machine since it started, and the process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _born(pid: int) -> str:
    """When a process began, so that a reused id is told apart; "" where there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except OSError:
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
