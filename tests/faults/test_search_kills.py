"""A search that is killed again and again."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from tests.faults.search_job import TRIALS
from tests.support.models import tiny_encoder


async def _start(home: Path, model: Path, log: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.search_job", str(home), str(model), str(log),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


def _begun(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


@pytest.mark.timeout(600)
async def test_killed_again_and_again(tmp_path: Path) -> None:
    """Killed in any trial, a search ends with the trials of no kill, and begins only the one under way again."""
    model = tiny_encoder(tmp_path / "model")
    whole = await _start(tmp_path / "whole", model, tmp_path / "whole.trials")
    wanted, _ = await whole.communicate()
    assert _begun(tmp_path / "whole.trials") == [*range(1, TRIALS + 1)]
    rng, home, log = random.Random(3), tmp_path / "killed", tmp_path / "killed.trials"
    kills = (2, 4)
    for trial in kills:
        process = await _start(home, model, log)
        while trial not in _begun(log):
            await asyncio.sleep(0.001)
        await asyncio.sleep(rng.random() * 0.1)
        assert process.returncode is None, "the search was over before it was killed"
        process.kill()
        await process.wait()
    last = await _start(home, model, log)
    found, _ = await last.communicate()
    assert last.returncode == 0 and found == wanted
    assert len(_begun(log)) <= TRIALS + len(kills) and sorted({*_begun(log)}) == [*range(1, TRIALS + 1)]
