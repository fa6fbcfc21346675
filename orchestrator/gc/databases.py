"""Which databases' runs keep their artifacts in a store: who sees one database only must not remove another's.

run/databases/<id>.json     {"since"}: a database whose runs may be in this store
"""

from __future__ import annotations

import json
import time
import uuid

import sqlalchemy as sa

from orchestrator.database import create_absent
from services.kit.artifacts import Store

_PREFIX = "run/databases/"

_schema = sa.MetaData()
_identity = sa.Table("p2m_identity", _schema, sa.Column("one", sa.Integer, primary_key=True), sa.Column("id", sa.Text))


def identity(engine: sa.Engine) -> str:
    """The database's own name, drawn once."""
    create_absent(engine, _schema)
    for _ in range(2):
        with engine.connect() as connection:
            found = connection.execute(sa.select(_identity.c.id)).scalar_one_or_none()
        if found:
            break
        try:
            with engine.begin() as connection:
                connection.execute(sa.insert(_identity).values(one=1, id=uuid.uuid4().hex))
        except sa.exc.IntegrityError:
            continue  # another process has just drawn it
    else:
        with engine.connect() as connection:
            found = connection.execute(sa.select(_identity.c.id)).scalar_one()
    return str(found)


def register(engine: sa.Engine, store: Store) -> None:
    """Says in the store that this database's runs use it."""
    key = f"{_PREFIX}{identity(engine)}.json"
    if store.stat(key) is None:
        store.put(key, json.dumps({"since": time.time()}).encode())


def others(engine: sa.Engine, store: Store) -> list[str]:
    """The keys of other databases that use the store."""
    own = f"{_PREFIX}{identity(engine)}.json"
    return [key for key in store.list(_PREFIX) if key != own]
