"""A generation that is killed again and again. P2M_FAULTS=full: fifty kills of a job of 500 examples."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from services.kit.artifacts import Artifacts
from services.kit.journal import Entry, Journal
from tests.faults.generation_job import CONCURRENCY, settings
from tests.support.teacher import ScriptedTeacher, schema_of

FULL = os.environ.get("P2M_FAULTS") == "full"
KILLS, NUMBER = (50, 500) if FULL else (5, 100)
LATENCY_S = 0.03


def _teacher() -> ScriptedTeacher:
    """Every example that it gives is another."""
    count = itertools.count()

    def examples(body: dict[str, Any], _: random.Random) -> Any:
        wanted = schema_of(body)[1]["properties"]["examples"]["maxItems"]
        numbers = [next(count) for _ in range(wanted)]
        return {"examples": [{"input": f"item {number}", "output": str(number)} for number in numbers]}

    proposal = {"topics": ["lamps"], "lengths": [], "difficulties": [], "labels": []}
    return ScriptedTeacher({"examples": examples, "attributes": proposal}, latency=LATENCY_S)


async def _start(url: str, home: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.generation_job", url, str(home), str(NUMBER),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _finished(process: asyncio.subprocess.Process) -> dict[str, Any]:
    said, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(said)
    return found


async def _stored(home: Path) -> list[Entry]:
    return await Journal(Artifacts.open(settings("", home), "generator"), "run/generate").load()


async def _killed(teacher: ScriptedTeacher, home: Path, rng: random.Random) -> int:
    """Starts the job and kills it some time after a request or two; how many requests it sent."""
    before = teacher.count["requests"]
    wanted = before + rng.randrange(1, 4)
    process = await _start(teacher.url, home)
    while teacher.count["requests"] < wanted and process.returncode is None:
        await asyncio.sleep(0.001)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), rng.random() * 2 * LATENCY_S)
    assert process.returncode is None, "the job was over before it was killed"
    process.kill()
    await process.wait()
    await asyncio.sleep(2 * LATENCY_S)  # what was on its way to the server has arrived
    return teacher.count["requests"] - before


@pytest.mark.timeout(600)
async def test_killed_again_and_again(tmp_path: Path) -> None:
    """No kept example is lost or doubled, and what is paid beyond a clean run is what was under way at a kill."""
    async with _teacher() as teacher:
        clean = await _finished(await _start(teacher.url, tmp_path / "clean"))
        assert clean["requests"] == teacher.count["requests"]
    rng = random.Random(7)
    home = tmp_path / "killed"
    kept: dict[str, Any] = {}
    lost = 0
    async with _teacher() as teacher:
        for kill in range(KILLS):
            sent = await _killed(teacher, home, rng)
            stored = await _stored(home)
            now = {entry.key: entry.value for entry in stored if not entry.lost}
            assert kept.items() <= now.items()
            under_way = sent - (len(now) - len(kept))
            assert 0 <= under_way <= CONCURRENCY
            kept, lost = now, lost + under_way
            # No request goes out unbooked; one may be booked and not have gone out yet.
            booked = sum(entry.cost.requests for entry in stored)
            assert teacher.count["requests"] <= booked <= teacher.count["requests"] + CONCURRENCY * (kill + 1)
        made = await _finished(await _start(teacher.url, home))
        assert teacher.count["requests"] == clean["requests"] + lost
        stored = await _stored(home)
        assert teacher.count["requests"] <= made["requests"] == sum(entry.cost.requests for entry in stored)
    entries = [entry for entry in stored if not entry.lost]
    assert len({entry.key for entry in entries}) == len(entries) == clean["requests"]
    examples = [
        [one["input"], one["output"]]
        for entry in entries
        if entry.key.startswith("examples/")
        for one in entry.value["examples"]
    ]
    assert sorted(made["rows"]) == sorted(examples)
    assert len(examples) == NUMBER
    print(f"{KILLS} kills, {lost} requests under way at them, {clean['requests']} in a clean run")
