"""`p2m data`: the rows of a run, whatever became of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from p2m.run.v1 import run_pb2

from services.kit.errors import FailedPrecondition, NotFound
from tests.conftest import ROOT
from tests.integration.commands import Command, teacher
from tests.integration.conftest import PROMPT, IdleRuns, finished
from tests.support.teacher import TOY_PROMPT


async def test_a_stopped_run_keeps_its_rows(tmp_path: Path) -> None:
    """After Ctrl-C within generation the examples so far can be had as a dataset, without a request."""
    async with teacher(latency_s=0.5) as llm:
        environment = {"OPENAI_BASE_URL": llm.url, "OPENAI_API_KEY": "", "P2M_LLM_CONCURRENCY": "4"}
        command = Command(tmp_path, "stopped", TOY_PROMPT, ["--skip", "datasets", "--number", "900"], environment)
        try:
            await command.start()
            await command.reaches("generate", least=40)
            assert command._process is not None
            command._process.send_signal(signal.SIGINT)
            assert await command.ended() == 3
        finally:
            await command.stop()
        asked = llm.requests()
        rows = tmp_path / "rows.jsonl"
        assert await _p2m(tmp_path, environment, "data", "stopped", "--out", str(rows)) == 0
        assert llm.requests() == asked
        assert await _p2m(tmp_path, environment, "data", "stopped", "--out", str(rows)) == 2
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert 40 <= len(found) < 900
    assert len({row["input"] for row in found}) == len(found)
    assert {row["source"] for row in found} == {"generated"}
    assert all(row["output"] in row["input"] for row in found)


async def _p2m(home: Path, environment: dict[str, str], *arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", *arguments, cwd=ROOT,
        env=os.environ | environment | {"P2M_HOME": str(home / "home"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    return await asyncio.wait_for(process.wait(), 120)


async def test_a_finished_run(idle_runs: IdleRuns) -> None:
    """Of a finished run come the locked splits, and each source as it was, all of them complete."""
    async with idle_runs() as idle:
        await idle.client.start("done", PROMPT, run_pb2.RunOptions())
        await finished(idle.client, "done")
        found = await idle.client.data("done")
    names = [one.name for one in found]
    assert {"train", "validation", "test", "generated-0"} <= {*names}
    assert all(one.complete and one.dataset.uri for one in found)


async def test_nothing_yet(idle_runs: IdleRuns) -> None:
    """A run without a row says so; an unknown one is NOT_FOUND."""

    async def hold(_: Any) -> None:
        await asyncio.sleep(60)

    async with idle_runs({"parser.ParseRequest": hold}) as idle:
        await idle.client.start("early", PROMPT, run_pb2.RunOptions())
        with pytest.raises(FailedPrecondition) as caught:
            await idle.client.data("early")
        with pytest.raises(NotFound):
            await idle.client.data("nobody")
        await idle.client.cancel("early")
    assert caught.value.reason == "NO_DATA_YET"
