"""An index that is replaced while it is used, and built again of what changed."""

from __future__ import annotations

import asyncio
import json
import logging
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogue import build, live
from services.kit import index, worker
from services.kit.errors import Unavailable
from services.kit.index import Index
from services.kit.settings import Settings
from tests.support.processes import until


def _save(folder: Path, *ids: str) -> Path:
    index.save(folder, [{"id": id} for id in ids], list(ids), source="given:test")
    version = index.current(folder)
    assert version
    return version


@pytest.fixture
async def models(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[live.Live[Index]]:
    """A catalogue of one model, "first", followed closely."""
    monkeypatch.setattr(live, "POLL_S", 0.01)
    _save(settings.catalogue_folder / "models", "first")
    following = live.Live("models", settings, lambda opened: opened)
    await following.start()
    yield following
    await following.stop()


async def test_a_new_version_is_taken_up(models: live.Live[Index], settings: Settings) -> None:
    """A version that was built meanwhile is what the next query uses; one under way goes on with the old version, which
    is let go of when it is done."""
    under_way = models.get()
    gone = weakref.ref(under_way)
    _save(settings.catalogue_folder / "models", "first", "second")
    await until(lambda: len(models.get()) == 2)
    assert list(under_way.ids) == ["first"] and under_way.bm25("first")[0] > 0
    del under_way
    await until(lambda: gone() is None)


@pytest.mark.parametrize("how", ["cut", "flipped", "half-written", "gone"])
async def test_a_version_that_is_damaged_is_not_taken_up(
    models: live.Live[Index], settings: Settings, caplog: pytest.LogCaptureFixture, how: str, tmp_path: Path
) -> None:
    """Whatever is wrong with a new version, the old one goes on, the log says so once, and the next good one counts."""
    folder = settings.catalogue_folder / "models"
    version = _save(tmp_path / "elsewhere", "first", "second")
    target = folder / version.name
    target.mkdir()
    for path in version.rglob("*"):
        if path.is_file() and (how, path.name) != ("half-written", "manifest.json"):
            data = path.read_bytes()
            (target / path.relative_to(version)).parent.mkdir(exist_ok=True)
            (target / path.relative_to(version)).write_bytes(data)
    damaged = target / "bm25" / "data.csc.index.npy"
    if how == "gone":
        damaged.unlink()
    elif how in ("cut", "flipped"):
        data = damaged.read_bytes()
        damaged.write_bytes(data[:-1] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    with caplog.at_level(logging.ERROR):
        (folder / "current").write_text(version.name)
        await until(lambda: "cannot be used" in caplog.text)
        await asyncio.sleep(0.1)
    assert caplog.text.count("cannot be used") == 1 and version.name in caplog.text
    assert list(models.get().ids) == ["first"]
    _save(folder, "first", "second", "third")
    await until(lambda: len(models.get()) == 3)


async def test_before_the_start_there_is_nothing_to_search(settings: Settings) -> None:
    """A query before the index is open is UNAVAILABLE, so that the caller comes again."""
    with pytest.raises(Unavailable, match="models is still being opened"):
        live.Live("models", settings, lambda opened: opened).get()


async def test_damage_in_a_large_index_is_told(
    models: live.Live[Index], settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a large index does not check before it serves it checks afterwards, and the log says what is damaged."""
    monkeypatch.setattr("services.kit.index.folder._HASHED_BYTES", 0)
    version = _save(settings.catalogue_folder / "other", "first", "second")
    (version / "ids.jsonl").write_text('"first"\n"secnod"\n')
    version.rename(settings.catalogue_folder / "models" / version.name)
    (settings.catalogue_folder / "models" / "current").write_text(version.name)
    await until(lambda: f"{version.name} of the models is damaged" in caplog.text)
    assert len(models.get()) == 2


async def test_only_what_changed_is_encoded_anew(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a catalogue that is built again the new texts are encoded; the vectors are those of a build of all."""
    encoder = worker.Resident("services.kit.embed:Encoder", settings)
    encoded: list[str] = []
    real = build._encoded

    async def noted(texts: Any, *rest: Any) -> Any:
        encoded.extend(texts)
        return await real(texts, *rest)

    monkeypatch.setattr(build, "_encoded", noted)
    monkeypatch.setattr(build, "starter", lambda kind: tmp_path / "none.jsonl")
    (tmp_path / "none.jsonl").write_text("")

    async def built(out: Path, **descriptions: str) -> Index:
        lines = (json.dumps({"id": id, "description": text}) + "\n" for id, text in descriptions.items())
        (tmp_path / "given.jsonl").write_text("".join(lines))
        encoded.clear()
        await build.build_one("datasets", [tmp_path / "given.jsonl"], out, settings, encoder=encoder)
        return Index.load(out / "datasets")

    try:
        await built(tmp_path / "out", a="Times of day.", b="Amounts of money.", c="Moods of tweets.")
        assert len(encoded) == 3
        again = await built(tmp_path / "out", c="Moods of tweets.", b="Sums of money.", d="Names of birds.")
        assert sorted(encoded) == ["b\nSums of money.", "d\nNames of birds."]
        whole = await built(tmp_path / "whole", c="Moods of tweets.", b="Sums of money.", d="Names of birds.")
        assert len(encoded) == 3
        numbers = np.arange(3)
        assert np.allclose(again.vectors(numbers), whole.vectors(numbers), atol=1e-5)
        await built(tmp_path / "out", c="Moods of tweets.")
        assert encoded == []
    finally:
        await encoder.stop()
