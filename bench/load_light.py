"""Trainer and evaluator for a load, `python -m bench.load_light trainer`: theirs but for four jobs of their children.

The gRPC service, its slots, its records, the artifacts, the child process of each job and what is said to it are the
real ones. What needs torch is replaced, in the child, by what does not: 100 runs would otherwise spend most of an hour
of two cores on loading it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.evaluator.neighbours import NeighbourJob, Neighbours
from services.evaluator.predict import AnswerJob, Answers
from services.evaluator.score import ScoreJob, Scores
from services.evaluator.values import Estimate, Score
from services.kit import logs, worker
from services.kit.artifacts import Artifacts
from services.kit.server import serve
from services.kit.settings import Settings
from services.kit.worker import WorkerContext
from services.trainer.calls import TrainRequest, TrainResult

_WEIGHTS_BYTES = 400_000


def train(request: TrainRequest, context: WorkerContext) -> TrainResult:
    """Reads the rows and stores two folders of a tiny model's size; nothing is learnt."""
    artifacts = Artifacts.open(context.settings, "trainer")
    rows = [*artifacts.read_rows(request.train), *artifacts.read_rows(request.validation)]
    stored = []
    for name in ("base", "model"):
        with tempfile.TemporaryDirectory(prefix="p2m-train-") as folder:
            (Path(folder) / "config.json").write_text(json.dumps({"rows": len(rows), "name": name}))
            (Path(folder) / "weights").write_bytes(name.encode() * (_WEIGHTS_BYTES // len(name)))
            stored.append(artifacts.put_folder(Path(folder)))
    return TrainResult(model=stored[1], base=stored[0], parameters=_WEIGHTS_BYTES // 4)


def answer(job: AnswerJob, context: WorkerContext) -> Answers:
    """The last word of each input."""
    assert (Path(job.folder) / "weights").exists(), f"{job.folder} is no folder of `train`"
    return Answers(tuple(text.split()[-1] for text in job.inputs), 100.0)


def copy(job: NeighbourJob, context: WorkerContext) -> Neighbours:
    """The first row's output for every input."""
    return Neighbours(tuple(job.train_outputs[0] for _ in job.inputs))


def score(job: ScoreJob, context: WorkerContext) -> Scores:
    """Exact match over all rows, without intervals."""
    scores = []
    for name, outputs in job.predictions.items():
        right = [100.0 * (said == row.output) for said, row in zip(outputs, job.rows, strict=True) if said is not None]
        mean = sum(right) / max(1, len(right))
        scores.append(Score(name, "all", "exact_match", Estimate(mean, mean, mean), len(right)))
    return Scores(tuple(scores), bertscore_encoder="none")


_INSTEAD = {
    "services.trainer.train:train": "bench.load_light:train",
    "services.evaluator.predict:answer": "bench.load_light:answer",
    "services.evaluator.neighbours:answer": "bench.load_light:copy",
    "services.evaluator.score:score": "bench.load_light:score",
}


def _lightened(run: Callable[..., Any]) -> Callable[..., Any]:
    async def light(function: str, *arguments: Any) -> Any:
        return await run(_INSTEAD.get(function, function), *arguments)

    return light


def main() -> int:
    """Serves until SIGTERM."""
    name = sys.argv[1]
    settings = Settings()
    logs.configure(settings.log_level)
    worker.run = _lightened(worker.run)
    module = importlib.import_module(f"services.{name}.service")
    return asyncio.run(serve(getattr(module, f"{name.capitalize()}Service")(settings), settings))


if __name__ == "__main__":
    sys.exit(main())
