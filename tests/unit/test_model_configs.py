"""The configs of candidates, asked of a hub."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from services.kit.settings import Settings
from services.model_retriever import configs
from services.model_retriever.configs import Configs
from services.model_retriever.limits import NO_ARCHITECTURE
from services.model_retriever.search import Found, ModelCandidate
from tests.support.hub import Hub


def _found(*names: str) -> Found:
    return Found(tuple(_candidate(name) for name in names))


def _candidate(name: str, **changes: Any) -> ModelCandidate:
    given = {"location": f"hub:{name}", "flags": (NO_ARCHITECTURE,), "architecture": "encoder-decoder"}
    return ModelCandidate(id=name, **(given | changes))


def _files(**config: Any) -> dict[str, bytes]:
    return {"config.json": json.dumps(config).encode(), "model.safetensors": b"w" * 1000}


@pytest.fixture
def online(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"hub_offline": False, "hub_cache": tmp_path / "hub"})


async def test_what_the_config_rules_out_is_left_out(online: Settings) -> None:
    """A model of images or without a config is left out with the reason, a fitting one named; weights stay there."""
    async with Hub() as hub:
        hub.add("models", "acme/llama", _files(model_type="llama", architectures=["LlamaForCausalLM"]))
        hub.add("models", "acme/vit", _files(model_type="vit", architectures=["ViTForImageClassification"]))
        hub.add("models", "acme/bare", {"model.safetensors": b"w"})
        hub.add("models", "acme/gated", _files(model_type="t5"), gated=True)
        asked = Configs(online.model_copy(update={"hub_url": hub.url}))
        names = ("acme/vit", "acme/bare", "acme/llama", "acme/gated", "acme/gone")
        found = await asked.confirmed(_found(*names), 10)
        again = await asked.confirmed(_found(*names), 10)
        requests = list(hub.requests)
    (kept,) = found.candidates
    assert (kept.id, kept.architecture, kept.flags) == ("acme/llama", "decoder-only", ())
    reasons = {one.id: one.reason for one in found.excluded}
    assert "vit" in reasons["acme/vit"] and "no config.json" in reasons["acme/bare"]
    assert "gated" in reasons["acme/gated"] and "acme/gone" in reasons["acme/gone"]
    assert again == found and len(requests) == len(set(requests))
    assert not [request for request in requests if "safetensors" in request]


async def test_the_next_best_takes_a_place_that_comes_free(online: Settings) -> None:
    """Of candidates to spare as many are shown as were wanted, in their order."""
    async with Hub() as hub:
        hub.add("models", "acme/vit", _files(model_type="vit"))
        for name in ("one", "two", "three"):
            hub.add("models", f"acme/{name}", _files(model_type="t5"))
        asked = Configs(online.model_copy(update={"hub_url": hub.url}))
        found = await asked.confirmed(_found("acme/one", "acme/vit", "acme/two", "acme/three"), 2)
    assert [one.id for one in found.candidates] == ["acme/one", "acme/two"]


async def test_what_is_known_is_not_asked(online: Settings) -> None:
    """A model whose architecture the catalogue names, and one that is not on the hub, cost no request."""
    async with Hub() as hub:
        asked = Configs(online.model_copy(update={"hub_url": hub.url}))
        known = Found((_candidate("acme/t5", flags=()), _candidate("acme/folder", location="folder:/x")))
        assert await asked.confirmed(known, 10) == known
        assert not hub.requests


async def test_a_hub_that_is_away_takes_nothing_and_is_left_alone(online: Settings) -> None:
    """Where the hub cannot be reached the models stay, flagged, soon; and it is not asked again at once."""
    asked = Configs(online.model_copy(update={"hub_url": "http://127.0.0.1:9"}))
    found = _found(*(f"acme/model-{number}" for number in range(12)))
    began = time.monotonic()
    assert await asked.confirmed(found, 12) == found
    assert time.monotonic() - began < configs.PATIENCE_S + 5
    began = time.monotonic()
    assert await asked.confirmed(found, 12) == found
    assert time.monotonic() - began < 0.2


async def test_a_hub_that_hangs_is_not_waited_for(online: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers that do not come in time are done without."""
    monkeypatch.setattr(configs, "PATIENCE_S", 0.3)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    asked = Configs(online.model_copy(update={"hub_url": f"http://127.0.0.1:{port}"}))
    began = time.monotonic()
    found = _found("acme/one", "acme/two")
    assert await asked.confirmed(found, 2) == found
    assert time.monotonic() - began < 1.5
    server.close()


@pytest.mark.parametrize("config", [b"<html>", b"[]", b"", b"\xff\x00", b'{"model_type"'])
async def test_a_config_that_is_none_says_nothing(online: Settings, config: bytes) -> None:
    """A config that cannot be read leaves the model in, flagged, and the next one is asked about all the same."""
    async with Hub() as hub:
        hub.add("models", "acme/broken", {"config.json": config})
        hub.add("models", "acme/t5", _files(model_type="t5"))
        asked = Configs(online.model_copy(update={"hub_url": hub.url}))
        first, second = (await asked.confirmed(_found("acme/broken", "acme/t5"), 2)).candidates
    assert first == _candidate("acme/broken") and second.flags == ()


async def test_offline_nothing_is_asked(settings: Settings, tmp_path: Path) -> None:
    """With the hub switched off no request is made."""
    async with Hub() as hub:
        asked = Configs(settings.model_copy(update={"hub_url": hub.url, "hub_cache": tmp_path}))
        found = _found("acme/one")
        assert await asked.confirmed(found, 1) == found and not hub.requests
