"""The database's connections."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from orchestrator.database import engine_options, open_engine
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
