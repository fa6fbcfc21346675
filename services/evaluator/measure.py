"""One model measured alone: how long an answer takes, and how its answers score beside the student's.

    measure(request, ...) ─┬─ time_and_answer     in a child that does nothing else
                           └─ score.score         in another, where it is scored

It is for what was exported: the same locked test rows, the same seed, the student's answers as they were recorded.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from services.evaluator.score import ScoreJob, Scores
from services.evaluator.values import (
    STUDENT,
    Comparison,
    Estimate,
    Latency,
    MeasureRequest,
    MeasureResult,
    Score,
)
from services.kit import worker
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.settings import Settings
from services.kit.tables import table_to_rows, texts
from services.kit.values import Artifact, Progress, PromptSpec, Row
from services.kit.worker import WorkerContext

DEFAULT_INPUTS = 100
DEFAULT_SECONDS = 30.0
LEAST_INPUTS = 10
_WARM_UP = 5


@dataclass(frozen=True)
class TimeJob:
    """The model in `folder` answers `inputs` in batches where `answer` is set; then it is timed, one at a time."""

    name: str
    folder: str
    spec: PromptSpec
    inputs: tuple[str, ...]
    answer: bool
    timed_inputs: int
    timed_seconds: float


@dataclass(frozen=True)
class Timed:
    """What came of a TimeJob; `outputs` in the order of the inputs, () where it was not to answer."""

    outputs: tuple[str, ...] = ()
    latency: Latency = field(default_factory=Latency)
    rows_per_second: float = 0.0
    load_seconds: float = 0.0
    runtime: str = ""


async def measure(
    request: MeasureRequest, artifacts: Artifacts, settings: Settings, report: Callable[[Progress], None]
) -> MeasureResult:
    """Latency, and scores where the request has the student's predictions.

    Raises InvalidArgument for a name that cannot be, FailedPrecondition for a model that cannot be loaded, an empty
    test split, or predictions of another one.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", request.name):
        raise InvalidArgument(
            "BAD_NAME", f"The name {request.name[:80]!r} cannot be: wanted small letters, digits and _.", field="name"
        )
    table = await asyncio.to_thread(artifacts.read_table, request.test)
    rows = tuple(table_to_rows(table, request.test.uri))
    if not rows:
        raise FailedPrecondition("EMPTY_TEST_SPLIT", f"The test split {request.test.uri} has no rows.")
    scored = request.predictions is not None
    job = TimeJob(
        request.name, "", request.spec, tuple(row.input for row in rows), scored,
        request.timed_inputs or DEFAULT_INPUTS, request.timed_seconds or DEFAULT_SECONDS,
    )  # fmt: skip
    timed = await _timed(request.model, job, artifacts, settings, report)
    result = MeasureResult(
        latency=timed.latency, rows_per_second=timed.rows_per_second, load_seconds=timed.load_seconds,
        runtime=timed.runtime,
    )  # fmt: skip
    if request.predictions is None:
        return result
    real = tuple(bool(one) for one in table.column("real").to_pylist()) if "real" in table.column_names else ()
    student = await asyncio.to_thread(_students, artifacts, request.predictions, len(rows))
    scores, comparisons = await _scored(request, rows, real or (True,) * len(rows), student, timed, settings, report)
    same = 100.0 * sum(one == other for one, other in zip(timed.outputs, student, strict=True)) / len(rows)
    return replace(result, scores=scores, comparisons=comparisons, same=same)


def time_and_answer(job: TimeJob, context: WorkerContext) -> Timed:
    """Loads the model, has it answer all inputs in batches, then times it."""
    from services.evaluator.predict import loaded

    began = time.perf_counter()
    model = loaded(Path(job.folder), context.settings)
    load_seconds = time.perf_counter() - began
    outputs: tuple[str, ...] = ()
    rows_per_second = 0.0
    if job.answer:

        def after_batch(done: int) -> None:
            context.raise_if_stopping()
            context.report(Progress(done, len(job.inputs), "rows", f"{job.name} answers"))

        began = time.perf_counter()
        outputs = tuple(model.answer(job.spec, job.inputs, after_batch=after_batch))
        rows_per_second = len(job.inputs) / (time.perf_counter() - began)
    seconds: list[float] = []
    began = time.perf_counter()
    for number in range(-_WARM_UP, job.timed_inputs):
        context.raise_if_stopping()
        if number == 0:
            began = time.perf_counter()
        if number >= LEAST_INPUTS and time.perf_counter() - began > job.timed_seconds:
            break
        if number % 10 == 0:
            context.report(Progress(max(0, number), job.timed_inputs, "inputs", f"{job.name} is timed"))
        start = time.perf_counter()
        model.answer(job.spec, (job.inputs[number % len(job.inputs)],))
        if number >= 0:
            seconds.append(time.perf_counter() - start)
    threads = context.settings.threads or os.cpu_count() or 1
    runtime = str(getattr(model, "runtime", None) or _transformers())
    return Timed(outputs, latency(seconds, threads), rows_per_second, load_seconds, runtime)


def latency(seconds: list[float], threads: int) -> Latency:
    """Percentiles (of the nearest rank) and mean of single answers' seconds."""
    ordered = sorted(1000.0 * one for one in seconds)

    def rank(share: float) -> float:
        return ordered[max(0, -(-int(share * len(ordered)) // 100) - 1)]

    return Latency(rank(50), rank(95), sum(ordered) / len(ordered), len(ordered), threads, processor())


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or os.uname().machine


async def _timed(
    model: Artifact, job: TimeJob, artifacts: Artifacts, settings: Settings, report: Callable[[Progress], None]
) -> Timed:
    with tempfile.TemporaryDirectory(prefix="p2m-evaluator-", ignore_cleanup_errors=True) as folder:
        fetched = await asyncio.to_thread(artifacts.fetch, model, Path(folder) / "model")
        job = replace(job, folder=str(fetched))
        return await worker.run("services.evaluator.measure:time_and_answer", job, Timed, settings, report)


def _students(artifacts: Artifacts, predictions: Artifact, rows: int) -> tuple[str | None, ...]:
    table = artifacts.read_table(predictions)
    name = f"prediction_{STUDENT}"
    if name not in table.column_names or len(table) != rows:
        raise FailedPrecondition(
            "OTHER_PREDICTIONS",
            f"The predictions {predictions.uri} are not the student's for this test split: wanted {rows} rows and the "
            f"column {name}, found {len(table)} rows and {', '.join(table.column_names)}.",
        )
    return tuple(texts(table, name, predictions.uri))


async def _scored(
    request: MeasureRequest,
    rows: tuple[Row, ...],
    real: tuple[bool, ...],
    student: tuple[str | None, ...],
    timed: Timed,
    settings: Settings,
    report: Callable[[Progress], None],
) -> tuple[tuple[Score, ...], tuple[Comparison, ...]]:
    predictions: dict[str, tuple[str | None, ...]] = {STUDENT: student, request.name: timed.outputs}
    job = ScoreJob(rows, real, predictions, request.seed)
    found = await worker.run("services.evaluator.score:score", job, Scores, settings, report)
    return (
        tuple(score for score in found.scores if score.contestant == request.name),
        tuple(_turned(one) for one in found.comparisons if one.against == request.name),
    )


def _turned(one: Comparison) -> Comparison:
    """Of "student less this model", "this model less the student"."""
    was = one.difference
    return replace(one, against=STUDENT, difference=Estimate(0.0 - was.value, 0.0 - was.high, 0.0 - was.low))


def _transformers() -> str:
    import torch
    import transformers

    return f"transformers {transformers.__version__}, torch {torch.__version__}"
