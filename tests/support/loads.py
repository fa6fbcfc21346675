"""Several looks and loads in one child process: starting one takes longer than most of them.

outcomes = await worker.run("tests.support.loads:several", Several(jobs), Outcomes, settings)
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from services.dataset_retriever import load
from services.dataset_retriever.load import Contents, Loaded, Loading, Wanted
from services.kit.errors import P2MError
from services.kit.tables import table_to_rows
from services.kit.values import Row
from services.kit.worker import WorkerContext


@dataclass(frozen=True)
class Job:
    """A look where there is no output column, else a load."""

    wanted: Wanted = field(default_factory=Wanted)
    loading: Loading = field(default_factory=Loading)
    by_datasets: bool = False
    """Read by the library `datasets` instead, to compare with."""


@dataclass(frozen=True)
class Several:
    """The jobs, one after another."""

    jobs: tuple[Job, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a job: one of the first two, or the error's parts."""

    contents: Contents | None = None
    loaded: Loaded | None = None
    rows: tuple[Row, ...] = ()
    code: str = ""
    reason: str = ""
    message: str = ""
    retry_after: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0
    """Most memory that the child has had so far."""
    digest: str = ""
    """Of the rows that `datasets` gave, as JSON lines."""


@dataclass(frozen=True)
class Outcomes:
    """In the order of the jobs."""

    outcomes: tuple[Outcome, ...] = field(default=())


def several(request: Several, context: WorkerContext) -> Outcomes:
    """Does the jobs."""
    return Outcomes(tuple(_one(job, context) for job in request.jobs))


def digest_of(rows: list[dict[str, object]]) -> str:
    return hashlib.sha256("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode()).hexdigest()


def _one(job: Job, context: WorkerContext) -> Outcome:
    begun = time.monotonic()

    def outcome(**parts: object) -> Outcome:
        # Not ru_maxrss: that begins with what the parent had.
        peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        held = int(peak[1]) / 1024 if peak else 0.0
        return Outcome(seconds=time.monotonic() - begun, peak_mb=held, **parts)  # type: ignore[arg-type]

    try:
        if job.by_datasets:
            import datasets

            stream = datasets.load_dataset(job.wanted.entry["id"], streaming=True, split="train")
            return outcome(digest=digest_of(list(stream)))
        if job.loading.out:
            done = load.load(job.loading, context)
            return outcome(loaded=done, rows=tuple(table_to_rows(pq.read_table(job.loading.out), "rows")))
        return outcome(contents=load.look(job.wanted, context))
    except P2MError as error:
        return outcome(
            code=error.code, reason=error.reason, message=error.message, retry_after=error.retry_after or 0.0
        )
