"""A search in a process of its own, which a test may kill: `python -m tests.faults.search_job HOME MODEL TRIALS`.

Appends the number of every trial to the file TRIALS as it begins, and prints what each trial reached.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from services.kit.artifacts import Artifacts
from services.kit.settings import Settings
from services.kit.values import Progress, PromptSpec
from services.kit.worker import WorkerContext
from services.trainer import search
from services.trainer.calls import HyperParameters, SearchCandidate, SearchRequest
from tests.support.models import copy_rows

TRIALS = 5


class Watched(WorkerContext):
    """Notes each trial once."""

    def __init__(self, settings: Settings, log: Path) -> None:
        super().__init__(settings)
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._noted = 0

    def report(self, progress: Progress) -> None:
        number = int(progress.message.partition(",")[0].removeprefix("trial "))
        if number != self._noted:
            os.write(self._log, f"{number}\n".encode())
            self._noted = number


def main(home: Path, model: Path, log: Path) -> None:
    """Searches around `model` on one thread."""
    settings = Settings(home=home, store="", openai_base_url="", openai_api_key="", hub_offline=True, threads=1)
    artifacts = Artifacts.open(settings, "tests")
    search.MOST_TRIALS = TRIALS
    start = HyperParameters(learning_rate=3e-3, epochs=2, batch_tokens=256)
    request = SearchRequest(
        "run/search", artifacts.put_rows(copy_rows(60)), artifacts.put_rows(copy_rows(20, seed=1)),
        PromptSpec("Copy the first word."), (SearchCandidate(f"folder:{model}", start),),
        HyperParameters(head="text", checkpoint_steps=5), 600.0, 0,
    )  # fmt: skip
    result = search.search(request, Watched(settings, log))
    reached = [[trial.state, trial.validation_exact_match, trial.validation_loss] for trial in result.trials]
    print(json.dumps([reached, result.best]))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
