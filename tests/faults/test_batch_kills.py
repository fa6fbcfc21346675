"""A generation by batches that is killed between any two steps of the protocol. P2M_FAULTS=full: at all of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.batch_server import BatchServer, word
from tests.support.teacher import schema_of

FULL = os.environ.get("P2M_FAULTS") == "full"
NUMBER = 60
# In the order in which a job comes by them; the third is how long after the call the job is killed.
_ALL = [
    ("before", "POST files", 0.0),  # planned, nothing uploaded
    ("after", "POST files", 0.0),
    ("before", "POST batches", 0.0),  # uploaded, nothing handed in
    ("after", "POST batches", 0.0),  # handed in, and the id never learnt
    ("before", "GET batches", 0.0),
    ("after", "GET batches", 0.0),
    ("after", "GET batches", 0.03),  # found again, and perhaps marked
    ("before", "GET batch", 0.0),
    ("after", "GET batch", 0.0),
    ("before", "GET content", 0.0),
    ("after", "GET content", 0.0),  # served, and never received
    ("after", "GET content", 0.02),  # received, and stored in part
    ("after", "POST batches", 0.0),  # the same in the next wave
    ("after", "POST batches", 0.05),
    ("after", "GET content", 0.01),
]
KILLS = _ALL if FULL else [_ALL[2], _ALL[3], _ALL[8], _ALL[10], _ALL[11], _ALL[12]]


def _server() -> BatchServer:
    """Every example that it gives is another."""
    count = itertools.count()

    def examples(body: dict[str, Any], _: random.Random) -> Any:
        wanted = schema_of(body)[1]["properties"]["examples"]["maxItems"]
        return {"examples": [{"input": f"item {word(next(count))}", "output": "x"} for _ in range(wanted)]}

    return BatchServer({"examples": examples})


async def _start(url: str, home: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.batch_job", url, str(home), str(NUMBER), stdout=asyncio.subprocess.PIPE
    )


async def _finished(process: asyncio.subprocess.Process) -> dict[str, Any]:
    said, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(said)
    return found


async def _killed(server: BatchServer, home: Path, when: str, call: str, later: float) -> bool:
    """Starts the job and kills it at that moment; False where it ended before."""
    reached = asyncio.Event()

    async def watch(now: str, called: str) -> None:
        if (now, called) == (when, call):
            reached.set()
            if not later:
                await asyncio.sleep(0.5)  # until it is dead

    server.watch = watch
    process = await _start(server.url, home)
    ended = asyncio.create_task(process.wait())
    await asyncio.wait([ended, asyncio.create_task(reached.wait())], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(later)
    alive = process.returncode is None
    if alive:
        process.kill()
    await ended
    server.watch = None
    await asyncio.sleep(0.1)
    return alive


@pytest.mark.timeout(600)
async def test_killed_at_each_step(tmp_path: Path) -> None:
    """No request is served, and paid, twice, and none is lost: as many as in a clean run, the same number of rows."""
    async with _server() as server:
        clean = await _finished(await _start(server.url, tmp_path / "clean"))
        assert clean["requests"] == len(server.served) + server.count["answered"]
    async with _server() as server:
        hit = [await _killed(server, tmp_path / "killed", *kill) for kill in KILLS]
        made = await _finished(await _start(server.url, tmp_path / "killed"))
        keys = [one.partition("/")[2] for one in server.served]
        assert sorted(keys) == sorted({*keys})
        assert made["requests"] == len(keys) + server.count["answered"] == clean["requests"]
        assert made["batched"] == len(keys)
    assert len({given for given, _ in made["rows"]}) == len(made["rows"]) == NUMBER
    assert sum(hit) >= len(KILLS) - 2, "the job ended before it was killed"
    print(f"{sum(hit)} kills; {made['requests']} requests, as in a clean run")
