"""A short sample of the fault suite (tests.faults.suite), the same in every run: one cluster, a fault of most kinds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from services.kit.settings import SERVICES
from tests.faults.run_trial import attempt
from tests.faults.trials import NUMBERS, Trial, drawn
from tests.support.cluster import DATABASE, LINKS, ORCHESTRATORS, cluster
from tests.support.killable import POINTS

A, B = ORCHESTRATORS
SAMPLE = (
    Trial(0, "kill", "generator", "GenerateRequest", "during", A),
    Trial(1, "kill", "trainer", "TrainRequest", "unrecorded", B),
    Trial(2, "kill", A, "evaluate", "unsaid", A),
    Trial(3, "partition", "evaluator", "evaluate", "cut", B, seconds=1.0),
    Trial(4, "database", DATABASE, "prepare", "immediate", A, seconds=0.5),
)


@pytest.mark.timeout(900)
async def test_a_sample_of_faults(tmp_path: Path) -> None:
    """Every run ends SUCCEEDED with one result; nothing finished is done again, nothing paid is paid again."""
    async with cluster(tmp_path / "cluster") as system:
        for trial in SAMPLE:
            found = await attempt(system, trial, 0)
            assert not found["wrong"], found


def test_the_same_seed_draws_the_same_trials() -> None:
    """A trial that did not hold can be tried again by its seed and its number."""
    assert drawn(3) == drawn(3) != drawn(4)
    assert [trial.number for trial in drawn(3)] == [*range(sum(NUMBERS.values()))]


def test_every_victim_at_every_point() -> None:
    """Each service and the orchestrator is killed at each point at least seven times; each link is cut in each way."""
    trials = [dataclasses.replace(t, who="orchestrator") if t.who in ORCHESTRATORS else t for t in drawn(1)]
    assert Counter(trial.kind for trial in trials) == Counter(NUMBERS)
    kills = Counter((trial.who, trial.how) for trial in trials if trial.kind == "kill")
    assert {who for who, _ in kills} == {*SERVICES, "orchestrator"} and len(kills) == 7 * len(POINTS)
    assert min(kills.values()) >= 7
    assert Counter(trial.who for trial in trials if trial.kind == "partition") == dict.fromkeys(LINKS, 5)
    real = {(trial.who, trial.how) for trial in trials if trial.real}
    assert len(real) == 7 * len(POINTS)
