"""`p2m serve` as somebody elsewhere meets it: over HTTP, from a folder alone."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator import rest
from tests.support.cli import Cli, ended
from tests.support.models import tiny_t5
from tests.support.record import sample_record

PREDICT = "/v1/predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a tiny model; no run, store or service has ever been there."""
    root = tmp_path_factory.mktemp("copied")
    tiny_t5(root / "run" / "model")
    limits = root / "run" / "model" / "generation_config.json"
    limits.write_text(json.dumps(json.loads(limits.read_text()) | {"max_new_tokens": 4}))
    (root / "run" / "run.json").write_text(json.dumps(sample_record()))
    (root / "run" / "report.html").write_text("<p>the report</p>")
    return root


@asynccontextmanager
async def served(folder: Path, *options: str) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.subprocess.Process]]:
    """`p2m serve` on a free port, and a client of it."""
    cli = Cli(folder)
    cli.environment["P2M_THREADS"] = "1"
    process = await cli.start("serve", "run", "--port", "0", *options)
    try:
        assert process.stderr is not None
        told = ""
        while not (found := re.search(r"served at (http://\S+)", told)):
            line = await asyncio.wait_for(process.stderr.readline(), 60)
            assert line, told
            told += line.decode()
        async with httpx.AsyncClient(base_url=found[1], timeout=60) as client:
            yield client, process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await ended(process)


def _code(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/json"
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"code", "message"} and error["message"]
    return response.status_code, error["code"]


async def test_it_answers_many_at_once_and_refuses_what_is_wrong(folder: Path) -> None:
    """Answers, in order, alone and in a crowd; what is wrong is refused in JSON; after it all it still answers."""
    async with served(folder, "--no-page") as (client, _):
        assert (await client.get("/health")).json() == {"status": "ready", "reason": ""}
        alone = [(await client.post(PREDICT, json={"inputs": [f"word{n}"]})).json()["outputs"][0] for n in range(4)]
        inputs = [f"word{number % 4}" for number in range(130)]
        crowd = await asyncio.gather(
            client.post(PREDICT, json={"inputs": inputs}),
            *(client.post(PREDICT, json={"inputs": [f"word{n % 4}"]}) for n in range(40)),
        )
        assert [response.status_code for response in crowd] == [200] * 41
        assert crowd[0].json()["outputs"] == [alone[number % 4] for number in range(130)]
        assert [response.json()["outputs"] for response in crowd[1:]] == [[alone[n % 4]] for n in range(40)]
        assert crowd[0].json()["seconds"] > 0

        wrong: list[tuple[dict[str, Any], tuple[int, str]]] = [
            ({"content": b'{"inputs": ', "headers": {"content-type": "application/json"}}, (400, "NO_JSON")),
            ({"json": {"inputs": []}}, (422, "BAD_REQUEST")),
            ({"json": {"inputs": ["x"] * (rest.MAX_INPUTS + 1)}}, (422, "BAD_REQUEST")),
            ({"json": {"inputs": ["x" * (rest.MAX_CHARACTERS + 1)]}}, (422, "BAD_REQUEST")),
            ({"json": {"inputs": [1]}}, (422, "BAD_REQUEST")),
            ({"json": {"inputs": ["x"], "beams": 4}}, (422, "BAD_REQUEST")),
            ({"json": ["x"]}, (422, "BAD_REQUEST")),
            ({"content": b'{"inputs": ["\\ud83d"]}'}, (422, "BAD_REQUEST")),  # half of a character
            ({"content": b" " * (rest.MAX_BODY_BYTES + 1)}, (413, "TOO_LARGE")),
            ({"content": _endless()}, (413, "TOO_LARGE")),
        ]
        for given, expected in wrong:
            assert _code(await client.post(PREDICT, **given)) == expected, given.keys()
        assert _code(await client.get(PREDICT)) == (405, "HTTP")
        assert _code(await client.get("/v1/nope")) == (404, "HTTP")
        assert (await client.post(PREDICT, json={"inputs": ["\u0000 é 😀"]})).status_code == 200

        about = (await client.get("/v1/model")).json()
        assert about["verdict"] == "ship" and about["format"] == "safetensors"
        schema = (await client.get("/openapi.json")).json()
        assert set(schema["paths"]) == {PREDICT, "/v1/model", "/health"}
        docs = (await client.get("/docs")).text
        assert PREDICT in docs and "<script" not in docs
        assert (await client.post(PREDICT, json={"inputs": ["word1"]})).json()["outputs"] == [alone[1]]


async def _endless() -> AsyncIterator[bytes]:
    """A body that does not say its size."""
    for _ in range(rest.MAX_BODY_BYTES // (1 << 20) + 2):
        yield b" " * (1 << 20)


async def test_a_token_is_asked_for(folder: Path) -> None:
    """With a token /v1 and the page are closed to whoever has none or another; health is open."""
    async with served(folder, "--token", "sésame") as (client, _):
        given = {"inputs": ["word1"]}
        assert _code(await client.post(PREDICT, json=given)) == (401, "NO_TOKEN")
        other = {"authorization": "Bearer sesame"}
        assert _code(await client.post(PREDICT, json=given, headers=other)) == (401, "NO_TOKEN")
        right = {"authorization": "Bearer sésame".encode()}
        assert (await client.post(PREDICT, json=given, headers=right)).status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/config")).status_code == 401  # the page's own


async def test_the_page_is_beside_the_service(folder: Path) -> None:
    """At / stands the page, of the same model, on the same port."""
    async with served(folder) as (client, _):
        assert "gradio" in (await client.get("/")).text
        assert (await client.get("/config")).json()["title"] == "normalise-dates · demo"
        assert (await client.post(PREDICT, json={"inputs": ["word1"]})).status_code == 200


async def test_stopping_lets_those_in_flight_have_their_answers(folder: Path) -> None:
    """SIGTERM in the middle of a request: it is answered, then the process ends well and in time."""
    async with served(folder, "--no-page") as (client, process):
        asked = asyncio.ensure_future(client.post(PREDICT, json={"inputs": ["word1 word2"] * 1000}))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert len((await asked).json()["outputs"]) == 1000
        assert (await ended(process)).status == 0
        assert time.monotonic() - began < 30


async def test_a_folder_without_a_run_is_refused(folder: Path) -> None:
    """A folder that is no run's, and a format that the folder has not, are told in one line."""
    (folder / "empty").mkdir()
    nothing = await Cli(folder)("serve", "empty")
    assert nothing.status != 0 and "no run.json" in nothing.err and "Traceback" not in nothing.err
    other = await Cli(folder)("serve", "run", "--port", "0", "--format", "onnx-int8")
    assert other.status != 0 and "it has model" in other.err and "p2m export" in other.err
