"""Runs and sweeps side by side, and a sweep that is killed: nothing in use vanishes, and the next sweep goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from orchestrator.database import open_engine
from orchestrator.executors import Executors
from orchestrator.gc import databases
from orchestrator.gc.command import Removal, Wanted
from orchestrator.gc.reservations import Reservations
from orchestrator.run_rows import TABLES
from orchestrator.runs import Runs
from services.kit import keeping
from services.kit.artifacts import Artifacts, open_store
from services.kit.errors import P2MError
from services.kit.settings import Settings
from services.kit.values import Artifact
from services.kit.wire import to_message
from tests.conftest import ROOT
from tests.support.seaweed import Seaweed

# How long a blob is fresh here, and a sweep's grace, by the kind of the store: S3 cuts its times to whole seconds.
_FRESH_S = {"folder": 0.3, "s3": 1.3}
_GRACE = {"folder": "0.7s", "s3": "2.6s"}
_WRITERS, _LIVES = 3, 6
# Few contents for many runs: most blobs are there already, and many are old and unnamed when somebody wants them again.
_CONTENTS = 12


@pytest.fixture(params=["folder", "s3"])
def gc_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """A home with a store of each kind."""
    if request.param == "folder":
        return settings
    server: Seaweed = request.getfixturevalue("s3_server")
    return server.settings(settings.home_folder, store=f"s3://gc-{uuid.uuid4().hex[:12]}")


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_in_use_vanishes(gc_settings: Settings, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that begin, store what is there already, end, go and come back, while sweeps follow each other closely."""
    kind = "s3" if gc_settings.store else "folder"
    monkeypatch.setattr(keeping, "FRESH_S", _FRESH_S[kind])
    engine = open_engine(gc_settings)
    runs = Runs(engine, "writers")
    runs.create_tables()
    executors = Executors(engine, "writers")
    executors.create_tables()
    executors.beat()
    Reservations(engine, "writers").create_tables()
    databases.register(engine, open_store(gc_settings))
    runs.add("always", "0" * 64, "a database without a run is taken for a wrong one", run_pb2.RunOptions())
    runs.finish("always", run_pb2.RUN_STATE_FAILED)
    writers = [Writer(gc_settings, runs, seed * 100 + number) for number in range(_WRITERS)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    removed = 0
    while any(thread.is_alive() for thread in threads):
        removed += sweep(gc_settings, grace=_GRACE[kind])
    assert [writer.failed for writer in writers if writer.failed] == []
    # The sweeps did remove, and what is left at the end is what the runs name.
    assert removed > 0
    engine.dispose()


def sweep(settings: Settings, grace: str, run: str = "") -> int:
    """One sweep; the bytes that it removed."""
    removal = Removal(settings, Wanted(grace=grace, run=run))
    try:
        return int(removal.remove()["bytes"])
    finally:
        removal.close()


class Writer:
    """One after another, runs as an orchestrator and its services have them; each looks after its blobs at its end."""

    def __init__(self, settings: Settings, runs: Runs, seed: int) -> None:
        self._settings = settings
        self._runs = runs
        self._drawn = random.Random(seed)
        self._name = f"w{seed}"
        self._reservations = Reservations(runs.engine, "writers")
        self.failed = ""

    def run(self) -> None:
        """Runs them all."""
        try:
            for number in range(_LIVES):
                self._one(f"{self._name}-{number % 2}")
        except Exception as error:
            self.failed = f"{self._name}: {error!r}"

    def _one(self, name: str) -> None:
        assert self._runs.add(name, "0" * 64, "prompt", run_pb2.RunOptions())
        while self._reservations.held([name]):
            time.sleep(0.05)
        store = open_store(self._settings)
        artifacts = Artifacts(store, "trainer")
        stored: list[Artifact] = []
        for stage in range(3):
            content = f"content {self._drawn.randrange(_CONTENTS)}".encode() * 10
            stored.append(artifacts.put_bytes(content))
            time.sleep(self._drawn.random() * 0.5)  # nobody but this stage knows of it yet
            record = {"content": "", "response": {"model": {"uri": stored[-1].uri}}}
            store.put(f"trainer/results/{name}/{stage}.json", json.dumps(record).encode())
        time.sleep(self._drawn.random() * 1.0)
        for artifact in stored:
            artifacts.read_bytes(artifact)
        self._runs.finish(name, run_pb2.RUN_STATE_SUCCEEDED, result=to_message(stored[0], common_pb2.Artifact))
        for artifact in stored:
            artifacts.read_bytes(artifact)
        # Its results stay where they are, as when a database row is removed and the process dies then.
        with self._runs.engine.begin() as connection:
            for table in TABLES.values():
                column = table.c.name if table.name == "p2m_runs" else table.c.run
                connection.execute(table.delete().where(column == name))


_KILLED = """
import os, sys
from orchestrator.gc.command import Removal, Wanted
from services.kit.files import FolderStore
from services.kit.settings import Settings
left = int(sys.argv[1])
remove = FolderStore.delete
def delete(store, key):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    remove(store, key)
FolderStore.delete = delete
Removal(Settings(), Wanted(run=sys.argv[2], grace="0")).remove()
"""


@pytest.mark.parametrize("deletes", [0, 1, 4, 6])
def test_a_killed_sweep_goes_on(settings: Settings, deletes: int) -> None:
    """Killed before its first or after some removals: what the other run names is whole, and the next one ends it."""
    engine = open_engine(settings)
    runs = Runs(engine, "nobody")
    runs.create_tables()
    store = open_store(settings)
    artifacts = Artifacts(store, "trainer")
    shared = artifacts.put_bytes(b"both have it")
    for name in ("goes", "stays"):
        runs.add(name, "0" * 64, "prompt", run_pb2.RunOptions())
        for stage in range(4):
            own = artifacts.put_bytes(f"{name} {stage}".encode())
            uris = [{"uri": one.uri} for one in (own, shared)]
            store.put(f"trainer/results/{name}/{stage}.json", json.dumps({"content": "", "response": uris}).encode())
        runs.finish(name, run_pb2.RUN_STATE_FAILED)
    environment = os.environ | {"P2M_HOME": str(settings.home_folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _KILLED, str(deletes), "goes"]
    assert subprocess.run(command, env=environment, timeout=120, check=False).returncode == 9
    expire(engine)
    for _ in range(2):
        try:
            sweep(settings, run="goes", grace="0")
        except P2MError as error:
            assert error.reason == "NO_SUCH_RUN"  # its records had gone: what is left are blobs without a run
            sweep(settings, grace="0")
    left = store.list("")
    assert not [key for key in left if "/goes/" in key]
    assert len([key for key in left if "/blobs/" in key]) == 5
    assert len([key for key in left if "/results/stays/" in key]) == 4
    artifacts.read_bytes(shared)
    engine.dispose()


def expire(engine: object) -> None:
    """Lets the time of a dead sweep's reservations pass."""
    with engine.begin() as connection:  # type: ignore[attr-defined]
        connection.exec_driver_sql("update p2m_reservations set until = 0")


def test_a_dead_sweeps_note_stops_nobody_for_long(settings: Settings, tmp_path: Path) -> None:
    """A writer passes over a note whose time is over, and one that names other blobs."""
    store = open_store(settings)
    artifacts = Artifacts(store, "trainer")
    key = artifacts.put_bytes(b"old").uri.removeprefix("p2m://")
    for note in ({"until": time.time() - 1, "keys": [key]}, {"until": time.time() + 60, "keys": ["trainer/other"]}):
        os.utime(settings.home_folder / "store" / key, (1.0, 1.0))
        store.put("trainer/sweep.json", json.dumps(note).encode())
        began = time.monotonic()
        artifacts.put_bytes(b"old")
        assert time.monotonic() - began < 30
        assert (settings.home_folder / "store" / key).stat().st_mtime > time.time() - 600


def test_a_writer_stores_again_what_a_sweep_has_just_removed(settings: Settings) -> None:
    """A blob that a sweep removes between a writer's look and its write is there when the writer returns."""
    store = open_store(settings)
    artifacts = Artifacts(store, "trainer")
    key = artifacts.put_bytes(b"wanted").uri.removeprefix("p2m://")
    path = settings.home_folder / "store" / key
    os.utime(path, (1.0, 1.0))
    store.put("trainer/sweep.json", json.dumps({"until": time.time() + 60, "keys": [key]}).encode())
    writer = threading.Thread(target=lambda: artifacts.put_bytes(b"wanted"))
    writer.start()
    while path.stat().st_mtime < 10:  # it has not written yet
        time.sleep(0.01)
    store.delete(key)  # the sweep had looked before
    store.delete("trainer/sweep.json")
    writer.join(60)
    assert not writer.is_alive() and store.get(key) == b"wanted"
