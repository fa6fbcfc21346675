"""Calls to services: which failures are waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from p2m.generator.v1 import generator_pb2

from orchestrator import stages
from orchestrator.stages import Stages
from services.kit.errors import Unavailable
from services.kit.settings import Settings
from services.kit.values import Ledger, Progress


@pytest.mark.parametrize("requests", [0, 1])
async def test_an_llm_that_has_answered_is_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    """A stage that lost the LLM is asked again where the LLM has answered before; else the failure is told at once."""
    asked = []

    async def stream(method: Any, request: Any, report: Callable[[Progress], None], timeout_s: float) -> Any:
        asked.append(request.request_id)
        report(Progress(1, 2, "examples", ledger=Ledger(requests=requests)))
        if len(asked) < 4:
            raise Unavailable("LLM_UNREACHABLE", "The LLM is out of reach.")
        return generator_pb2.GenerateResult()

    async def ready(*_: Any) -> None: ...

    monkeypatch.setattr("services.kit.channel.stream", stream)
    monkeypatch.setattr("services.kit.channel.wait_until_serving", ready)
    monkeypatch.setattr(stages, "_AWAY_WAIT_S", 0.01)
    services = Stages(settings.model_copy(update={"llm_patience_s": 60.0}))
    try:
        made = services.generate(generator_pb2.GenerateRequest(request_id="run/generate"), lambda _: None)
        if requests:
            assert await made == generator_pb2.GenerateResult()
            assert asked == ["run/generate"] * 4
        else:
            with pytest.raises(Unavailable, match="out of reach"):
                await made
            assert len(asked) == 1
    finally:
        await services.close()
