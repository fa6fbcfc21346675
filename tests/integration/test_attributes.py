"""What the generated examples of a run are to differ in: proposed once, shown, edited, recorded."""

from __future__ import annotations

from typing import Any

import pytest
from p2m.generator.v1 import generator_pb2
from p2m.run.v1 import run_pb2

from orchestrator.attributes import told
from services.kit.artifacts import Artifacts
from services.kit.errors import InvalidArgument
from services.kit.values import Artifact
from services.kit.wire import from_message
from tests.integration.conftest import PROMPT, Idle, IdleRuns, finished, read_record, until

MINE = generator_pb2.Attributes(topics=["steam"], lengths=["short"])


async def _made(idle: Idle, name: str) -> dict[str, Any]:
    """The record's part on generation once the run has ended."""
    run = await finished(idle.client, name)
    assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
    record = read_record(Artifacts.open(idle.settings, "run"), from_message(run.result, Artifact))
    return dict(record["generation"])


async def test_parts_share_one_proposal(idle_runs: IdleRuns) -> None:
    """However many parts there are, the LLM is asked once, and the record says what it proposed."""
    async with idle_runs() as idle:
        await idle.client.start("parts", PROMPT, run_pb2.RunOptions(number=300, parts=3))
        made = await _made(idle, "parts")
    assert idle.calls["generator.ProposeRequest"] == 1
    assert idle.calls["generator.GenerateRequest"] == 3
    assert (made["attributes"]["topics"], made["attributes_by"]) == (["tea", "rain"], "llm")


async def test_own_attributes_need_no_proposal(idle_runs: IdleRuns) -> None:
    """A file's attributes are taken as they are, and nobody is asked about them."""
    options = run_pb2.RunOptions(number=300, parts=2, attributes=MINE, skip_datasets=True)
    async with idle_runs() as idle:
        await idle.client.start("own", PROMPT, options)
        made = await _made(idle, "own")
    assert idle.calls["generator.ProposeRequest"] == 0
    assert (made["attributes"]["topics"], made["attributes_by"]) == (["steam"], "option")


@pytest.mark.parametrize(
    ("answer", "topics", "by"),
    [(told(MINE), ["steam"], "person"), ("none", None, "person"), ("", ["tea", "rain"], "llm")],
    ids=["edited", "none", "as proposed"],
)
async def test_a_person_edits_the_proposal(idle_runs: IdleRuns, answer: str, topics: Any, by: str) -> None:
    """With --ask the proposal waits for a person, who takes it, edits it, or wants nothing; what is no proposal is
    refused and the question stays."""
    options = run_pb2.RunOptions(number=100, ask=True, skip_datasets=True, model="idle/model")
    async with idle_runs() as idle:
        await idle.client.start("asked", PROMPT, options)
        run = await until(idle.client, "asked", lambda run: run.question.id == "attributes")
        assert "topics: tea; rain" in run.question.details
        with pytest.raises(InvalidArgument, match="topics"):
            await idle.client.choose("asked", "attributes", '{"topics": "tea"}')
        await idle.client.choose("asked", "attributes", answer or run.question.options[0].value)
        made = await _made(idle, "asked")
    assert ((made["attributes"] or {}).get("topics"), made["attributes_by"]) == (topics, by)


async def test_too_long_attributes_start_no_run(idle_runs: IdleRuns) -> None:
    """Attributes that cannot be are refused before anything is done."""
    options = run_pb2.RunOptions(attributes=generator_pb2.Attributes(topics=["x" * 300]))
    async with idle_runs() as idle:
        with pytest.raises(InvalidArgument, match="200 characters"):
            await idle.client.start("long", PROMPT, options)
