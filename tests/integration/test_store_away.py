"""A service that has lost its store gives no answer to its stage: the stage is asked again, and not left out."""

from __future__ import annotations

from typing import Any

import pytest
from p2m.run.v1 import run_pb2

from orchestrator import stages
from services.kit.errors import Unavailable
from services.kit.settings import Settings
from tests.integration.conftest import NO_LLM, PROMPT, IdleRuns, finished, stage

OPTIONS = run_pb2.RunOptions(number=4)


def away(times: int) -> Any:
    """What is awaited before a stage's work: so often the store is out of reach."""
    left = [times]

    async def before(_: Any) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise Unavailable("STORE_UNREACHABLE", "Writing: the bucket is out of reach.")

    return before


@pytest.fixture
def idle_settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Settings whose patience with the store a test may name."""
    patience_s = getattr(request, "param", 300.0)
    return settings.model_copy(update={"openai_base_url": NO_LLM, "grace_s": 2.0, "store_patience_s": patience_s})


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_AWAY_WAIT_S", 0.01)


async def test_a_store_that_comes_back(idle_runs: IdleRuns) -> None:
    """However often a stage meets it within the patience, it is done in the end and nothing is left out."""
    before = {"generator.GenerateRequest": away(8), "evaluator.MeasureRequest": away(8)}
    async with idle_runs(before) as stack:
        await stack.client.start("back", PROMPT, OPTIONS)
        run = await finished(stack.client, "back")
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    assert {one.state for one in run.stages} == {run_pb2.STAGE_STATE_DONE}


@pytest.mark.parametrize("idle_settings", [0.05], indirect=True)
@pytest.mark.parametrize("asked", ["generator.GenerateRequest", "trainer.ExportRequest", "evaluator.MeasureRequest"])
async def test_a_store_that_stays_away(idle_runs: IdleRuns, asked: str) -> None:
    """The run fails in the stage and says why, where other failures of that stage would be gone on without."""
    name = "generate" if asked.startswith("generator") else "export"
    async with idle_runs({asked: away(10**9)}) as stack:
        await stack.client.start("gone", PROMPT, OPTIONS)
        run = await finished(stack.client, "gone")
    assert (run.state, run.error.stage, run.error.reason) == (run_pb2.RUN_STATE_FAILED, name, "STORE_UNREACHABLE")
    assert stage(run, name).state == run_pb2.STAGE_STATE_FAILED
