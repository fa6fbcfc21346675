"""Indexes in the bucket: built on one machine, served on another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalogue import build, live, stored
from services.kit import index
from services.kit.artifacts import Artifacts
from services.kit.errors import DataLoss
from services.kit.index import Index
from services.kit.s3 import S3Store
from tests.support.processes import until
from tests.support.seaweed import Seaweed, seaweed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


def _build(server: Seaweed, home: Path, *ids: str) -> None:
    given = home / "given.jsonl"
    home.mkdir(exist_ok=True)
    given.write_text("".join(json.dumps({"id": id, "description": f"The model {id}."}) + "\n" for id in ids))
    settings = server.settings(home)
    build.build([given], [], settings.catalogue_folder, settings)


async def test_a_service_elsewhere_fetches_what_was_built(
    server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service with a folder of its own serves the bucket's index, takes up the next one without a restart, and does
    not fetch the files that did not change; a blob that was damaged leaves what it has."""
    monkeypatch.setattr(live, "POLL_S", 0.02)
    monkeypatch.setattr(live, "STORE_POLL_S", 0.05)
    fetched: list[Path] = []
    real = S3Store.get_file

    def noted(self: Any, key: str, path: Path) -> None:
        fetched.append(path)
        real(self, key, path)

    monkeypatch.setattr(S3Store, "get_file", noted)
    await asyncio.to_thread(_build, server, tmp_path / "builder", "mine/one")
    settings = server.settings(tmp_path / "elsewhere")
    service: live.Live[Index] = live.Live("models", settings, lambda opened: opened)
    await service.start()
    try:
        assert service.get().find("mine/one")
        everything = len(fetched)
        fetched.clear()
        await asyncio.to_thread(_build, server, tmp_path / "builder", "mine/one", "mine/two")
        await until(lambda: service.get().find("mine/two"), 20.0)
        assert 0 < len(fetched) < everything
    finally:
        await service.stop()

    artifacts = Artifacts.open(settings, stored.OWNER)
    there = stored._pointer("models", artifacts)
    assert there
    for key in artifacts.store.list("catalogue/blobs/"):
        if key.rpartition("/")[2] != there.artifact.sha256:
            artifacts.store.put(key, b"damaged")
    with pytest.raises(DataLoss):
        stored.fetch("models", tmp_path / "third", settings)
    assert index.current(tmp_path / "third") is None
