"""A training that is killed again and again. P2M_FAULTS=full: twenty kills."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
from pathlib import Path

import pytest

from tests.faults.training_job import INTERVAL, STEPS
from tests.support.models import tiny_encoder

FULL = os.environ.get("P2M_FAULTS") == "full"
KILLS = 20 if FULL else 3
# From one step to the next, a checkpoint in between or not: a kill may fall into either.
_STEP_S = 0.03


async def _start(home: Path, model: Path, steps: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.training_job", str(home), str(model), str(steps),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


async def _finished(process: asyncio.subprocess.Process) -> str:
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode().split()[-1]


async def _killed(home: Path, model: Path, steps: Path, at: int, rng: random.Random) -> None:
    """Starts the job and kills it once it has begun step `at`, or soon after."""
    process = await _start(home, model, steps)
    begun = len(_steps(steps))
    while process.returncode is None and not any(step >= at for step in _steps(steps)[begun:]):
        await asyncio.sleep(0.001)
    await asyncio.sleep(rng.random() * _STEP_S)
    assert process.returncode is None, "the job was over before it was killed"
    process.kill()
    await process.wait()


def _steps(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def _with_dropout(folder: Path) -> Path:
    config = tiny_encoder(folder) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_dropout_prob": 0.1}))
    return folder


@pytest.mark.timeout(900)
async def test_killed_again_and_again(tmp_path: Path) -> None:
    """Killed at any moment, training ends with the weights of no kill, and repeats at most one interval a kill."""
    model = _with_dropout(tmp_path / "model")
    whole = tmp_path / "whole.steps"
    wanted = await _finished(await _start(tmp_path / "whole", model, whole))
    assert _steps(whole) == list(range(STEPS))
    rng = random.Random(11)
    home, steps = tmp_path / "killed", tmp_path / "killed.steps"
    for moment in sorted(rng.choices(range(1, STEPS - 5), k=KILLS)):
        await _killed(home, model, steps, moment, rng)
    assert await _finished(await _start(home, model, steps)) == wanted
    taken = _steps(steps)
    again = [before + 1 - after for before, after in itertools.pairwise(taken) if after <= before]
    assert len(again) <= KILLS
    assert max(again, default=0) <= INTERVAL
    assert sorted(set(taken)) == list(range(STEPS))
    print(f"{KILLS} kills, {len(taken) - STEPS} of {STEPS} steps repeated, at most {max(again, default=0)} at once")
