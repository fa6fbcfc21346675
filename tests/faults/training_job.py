"""A training in a process of its own, which a test may kill: `python -m tests.faults.training_job HOME MODEL STEPS`.

Appends the number of every step to the file STEPS as it is done, and prints the digest of the weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from services.kit.artifacts import Artifacts
from services.kit.settings import Settings
from services.kit.values import PromptSpec
from services.kit.worker import WorkerContext
from services.trainer import loop
from services.trainer.calls import HyperParameters, TrainRequest
from services.trainer.train import train
from tests.support.models import copy_rows

INTERVAL, STEPS = 10, 60


def main(home: Path, model: Path, steps: Path) -> None:
    """Trains `model` on one thread."""
    settings = Settings(home=home, store="", openai_base_url="", openai_api_key="", hub_offline=True, threads=1)
    artifacts = Artifacts.open(settings, "tests")
    asked = HyperParameters(
        learning_rate=3e-3, epochs=10, batch_tokens=512, checkpoint_steps=INTERVAL, patience=0, head="text"
    )
    request = TrainRequest(
        "run/train", artifacts.put_rows(copy_rows(120)), artifacts.put_rows(copy_rows(20, seed=1)),
        PromptSpec("Copy the first word."), f"folder:{model}", asked, 0,
    )  # fmt: skip
    log = os.open(steps, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    take = loop.set_learning_rate

    def watched(optimizer: Any, done: float, of: int) -> None:
        assert of == STEPS
        os.write(log, f"{round(done * of)}\n".encode())
        take(optimizer, done, of)

    loop.set_learning_rate = watched
    print(train(request, WorkerContext(settings)).weights_sha256)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
