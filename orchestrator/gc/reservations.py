"""Rows by which a run that begins and a removal keep out of each other's way, in whichever process they are.

Each side writes first and looks then. A removal reserves the run's name, and gives it up where the run has begun; a
run writes its row, and then waits until nobody has its name reserved. So at least one of them sees the other. The
reservation "" is the sweep's own: there is one at a time. A reservation counts until a time, so that a process that
died holds up nobody for long.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import sqlalchemy as sa

from orchestrator.database import create_absent

LASTS_S = 60.0
# Within the last seconds of a reservation nothing is done on the strength of it.
MARGIN_S = 20.0
SWEEP = ""

_schema = sa.MetaData()
_reservations = sa.Table(
    "p2m_reservations",
    _schema,
    sa.Column("run", sa.String(100), primary_key=True),
    sa.Column("holder", sa.String(64), nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)


class Reservations:
    """The rows; `holder` names this process."""

    def __init__(self, engine: sa.Engine, holder: str) -> None:
        self._engine = engine
        self._holder = holder

    def create_tables(self) -> None:
        """Makes the table where it is absent."""
        create_absent(self._engine, _schema)

    def take(self, run: str) -> bool:
        """Reserves, or renews, for LASTS_S; False where another one has it."""
        row = {"holder": self._holder, "until": time.time() + LASTS_S}
        free = sa.or_(_reservations.c.holder == self._holder, _reservations.c.until < time.time())
        with self._engine.begin() as connection:
            update = sa.update(_reservations).where(_reservations.c.run == run, free).values(row)
            if connection.execute(update).rowcount:
                return True
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(_reservations).values(run=run, **row))
        except sa.exc.IntegrityError:
            return False
        return True

    def give_up(self, run: str) -> None:
        """Ends a reservation of this process."""
        with self._engine.begin() as connection:
            mine = (_reservations.c.run == run, _reservations.c.holder == self._holder)
            connection.execute(sa.delete(_reservations).where(*mine))

    def held(self, runs: Iterable[str]) -> bool:
        """Whether one of these is reserved by another process."""
        others = (_reservations.c.holder != self._holder, _reservations.c.until > time.time())
        query = sa.select(_reservations.c.run).where(_reservations.c.run.in_([*runs]), *others)
        with self._engine.connect() as connection:
            return connection.execute(query.limit(1)).first() is not None
