"""kill -9 in the middle of each stage, then the same command: the run goes on.

One run is killed in parse, generate, prepare, train and evaluate, one after the other, and then let go to its end; each
test looks at one of the kills. The teacher is a process of its own and counts what it is asked.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from p2m.run.v1 import run_pb2

from tests.integration.commands import Command, teacher
from tests.integration.conftest import stage
from tests.support.models import tiny_t5
from tests.support.teacher import TOY_PROMPT

KILLS = {"parse": 0.0, "generate": 10.0, "prepare": 0.0, "train": 60.0, "evaluate": 0.0}
"""The stages, and how much each has done when it is killed."""
BEFORE = {
    "parse": [],
    "generate": ["parse"],
    "prepare": ["parse", "generate", "models"],
    "train": ["parse", "generate", "models", "prepare"],
    "evaluate": ["parse", "generate", "models", "prepare", "train"],
}
_CONCURRENCY = 4
_REQUEST = {
    "parse": "parser/attempts/killed/parse.json", "generate": "generator/attempts/killed/generate/0.json",
    "models": "model_retriever/attempts/killed/model_search.json", "prepare": "trainer/attempts/killed/prepare.json",
    "train": "trainer/attempts/killed/train.json", "evaluate": "evaluator/attempts/killed/evaluate.json",
}  # fmt: skip


@dataclass
class Story:
    """What was seen."""

    uninterrupted: int = 0
    """Requests that the teacher counted in a run that nobody killed."""
    counted: int = 0
    """Those that it counted in the run with five kills."""
    attempts: dict[str, dict[str, str]] = field(default_factory=dict)
    """The attempt of every request, at each kill."""
    at_end: dict[str, str] = field(default_factory=dict)
    status: int = -1
    run: run_pb2.Run = field(default_factory=run_pb2.Run)
    said: str = ""
    files: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The run with five kills, and one without."""
    folder = tmp_path_factory.mktemp("killed")
    yield asyncio.run(_story(folder))


async def _story(folder: Path) -> Story:
    model = tiny_t5(folder / "tiny")
    arguments = [
        "--skip", "datasets", "--model", f"folder:{model}", "--number", "40", "--epochs", "60", "--batch-tokens", "256",
        "--teacher-rows", "6",
    ]  # fmt: skip
    told = Story()
    async with teacher(latency_s=0.3) as asked:
        environment = {
            "OPENAI_BASE_URL": asked.url, "OPENAI_API_KEY": "a key", "P2M_LLM_CONCURRENCY": str(_CONCURRENCY),
            "P2M_GRACE_S": "3", "P2M_THREADS": "1", "P2M_CATALOGUE": str(folder / "catalogue"),
        }  # fmt: skip
        smooth = Command(folder / "smooth", "smooth", TOY_PROMPT, arguments, environment)
        killed = Command(folder / "killed", "killed", TOY_PROMPT, arguments, environment)
        try:
            await smooth.start()
            assert await smooth.ended() == 0, smooth.log.read_text()[-3000:]
            told.uninterrupted = asked.requests()
            for where, least in KILLS.items():
                await killed.start()
                await killed.reaches(where, least)
                await killed.kill()
                told.attempts[where] = killed.attempts()
            await killed.start()
            told.status = await killed.ended()
            told.counted = asked.requests() - told.uninterrupted
        finally:
            await smooth.stop()
            await killed.stop()
    told.run = killed.run() or told.run
    told.at_end, told.said = killed.attempts(), killed.log.read_text()
    told.files = {str(path.relative_to(killed.out)) for path in killed.out.rglob("*") if path.is_file()}
    return told


@pytest.mark.parametrize("where", KILLS)
def test_after_a_kill_the_same_command_goes_on(story: Story, where: str) -> None:
    """Killed in this stage, the run goes on: what was finished is not run again, the stage itself is."""
    for done in BEFORE[where]:
        key = _REQUEST[done]
        assert story.attempts[where][key] == story.at_end[key], f"{done} was run again after the kill in {where}"
    assert story.attempts[where].get(_REQUEST[where]) != story.at_end[_REQUEST[where]]
    assert story.status == 0, story.said[-3000:]


def test_after_all_kills_the_run_ends_well(story: Story) -> None:
    """The result is whole: the run SUCCEEDED and its folder was brought out."""
    assert story.run.state == run_pb2.RUN_STATE_SUCCEEDED, story.run.error
    assert {"run.json", "metrics.json", "report.html", "model_card.md", "model/model.safetensors"} <= story.files


def test_training_goes_on_from_its_checkpoint(story: Story) -> None:
    """The training that was killed after 60 steps says from which step it went on, and that is not the start."""
    resumed = re.search(r"resumed from step (\d+)", stage(story.run, "train").message)
    assert resumed is not None, stage(story.run, "train").message
    assert int(resumed[1]) >= 20


def test_no_answer_is_paid_twice(story: Story) -> None:
    """The teacher counted at most what a run that nobody killed asks, and what was in flight at the kills."""
    asking = sum(where in ("parse", "generate", "evaluate") for where in KILLS)
    assert story.counted <= story.uninterrupted + asking * _CONCURRENCY
    assert story.counted >= story.uninterrupted - _CONCURRENCY


def test_nobody_saw_a_traceback(story: Story) -> None:
    """What the commands said has no traceback and nothing of the workflow engine."""
    assert "Traceback" not in story.said
    assert "dbos" not in story.said.lower()
