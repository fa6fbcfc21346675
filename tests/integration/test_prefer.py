"""`--prefer`: from a run's options to the generator's request."""

from __future__ import annotations

from typing import Any

import pytest
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from services.kit.errors import InvalidArgument
from tests.integration.conftest import PROMPT, IdleRuns, finished


@pytest.mark.parametrize("prefer", [common_pb2.PREFER_COST, common_pb2.PREFER_UNSPECIFIED])
async def test_the_preference_reaches_the_generator(idle_runs: IdleRuns, prefer: common_pb2.Prefer.ValueType) -> None:
    """Every part is asked for with the run's preference; the run with another one is the same run."""
    asked: list[int] = []

    async def note(request: Any) -> None:
        asked.append(request.prefer)

    async with idle_runs({"generator.GenerateRequest": note}) as idle:
        started = await idle.client.start("", PROMPT, run_pb2.RunOptions(number=1200, prefer=prefer))
        await finished(idle.client, started.name)
        again = await idle.client.start("", PROMPT, run_pb2.RunOptions(number=1200, prefer=common_pb2.PREFER_TIME))
    assert asked == [prefer] * 3
    assert again.name == started.name


async def test_an_unknown_preference(idle_runs: IdleRuns) -> None:
    """It is INVALID_ARGUMENT and names the option."""
    async with idle_runs() as idle:
        with pytest.raises(InvalidArgument) as caught:
            await idle.client.start("odd", PROMPT, run_pb2.RunOptions(prefer=9))  # type: ignore[arg-type]
    assert caught.value.field == "options.prefer"
