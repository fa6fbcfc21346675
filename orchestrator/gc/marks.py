"""What was found unnamed, and since when: the rows between mark and sweep, so that a sweep can be stopped and go on."""

from __future__ import annotations

import time
from collections.abc import Iterable

import sqlalchemy as sa

from orchestrator.database import create_absent

_BATCH = 500

_schema = sa.MetaData()
_marks = sa.Table(
    "p2m_garbage",
    _schema,
    sa.Column("key", sa.String(500), primary_key=True),
    sa.Column("since", sa.Float, nullable=False),
)


class Marks:
    """The rows."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def create_tables(self) -> None:
        """Makes the table where it is absent."""
        create_absent(self._engine, _schema)

    def read(self) -> dict[str, float]:
        """Since when each marked key has been found unnamed, Unix seconds."""
        with self._engine.connect() as connection:
            return {key: since for key, since in connection.execute(sa.select(_marks.c.key, _marks.c.since))}

    def update(self, unnamed: set[str]) -> dict[str, float]:
        """Marks what is unnamed now, from now on, and unmarks what is not; the marks."""
        before, now = self.read(), time.time()
        self.drop(before.keys() - unnamed)
        new = [{"key": key, "since": now} for key in sorted(unnamed - before.keys())]
        for first in range(0, len(new), _BATCH):
            with self._engine.begin() as connection:
                connection.execute(sa.insert(_marks), new[first : first + _BATCH])
        return {key: before.get(key, now) for key in unnamed}

    def drop(self, keys: Iterable[str]) -> None:
        """Unmarks."""
        every = [*keys]
        for first in range(0, len(every), _BATCH):
            with self._engine.begin() as connection:
                connection.execute(sa.delete(_marks).where(_marks.c.key.in_(every[first : first + _BATCH])))
