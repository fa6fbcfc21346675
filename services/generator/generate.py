"""Has the LLM write examples until there are enough.

    generate
    ├── values          what is asked for, and what comes of it
    ├── job             what is known by now: the next question, what an answer brings
    │   ├── pace            how many examples the next request asks for, and whether there is one
    │   ├── prompts         what is asked
    │   ├── variety         what each request is to be about
    │   └── consensus       what becomes of the answers
    ├── asking          one request after another, at once: soon
    ├── waves           whole batches: later, and cheaper
    └── outcomes        what became of the money

What the result depends on: the dataset is a function of the set of answers that were paid for, whatever their order
(`consensus`) and whichever way they came. An answer that is stored already, from an attempt that was cut off, is taken
first and never asked for again, so nothing is lost or doubled by a crash; what was under way at that moment is all that
is asked for anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from services.generator import asking, outcomes, variety, waves
from services.generator.consensus import Collection
from services.generator.job import Job
from services.generator.values import (
    INITIAL_TEMPERATURE,
    MAX_TEMPERATURE,
    Generated,
    GenerateRequest,
    StopReason,
    check,
    temperature,
)
from services.kit.llm import Session
from services.kit.settings import Settings
from services.kit.values import Progress

__all__ = [
    "INITIAL_TEMPERATURE", "MAX_TEMPERATURE", "GenerateRequest", "Generated", "StopReason", "check", "generate",
    "temperature",
]  # fmt: skip


async def generate(
    request: GenerateRequest,
    session: Session,
    llm: str,
    excluded: Sequence[str],
    settings: Settings,
    report: Callable[[Progress], None] = lambda _: None,
    jobs: Callable[[], int] = lambda: 1,
) -> Generated:
    """Generates `request.number` examples, or as many as the allowance and the LLM give.

    `excluded` are inputs that must not be generated again; `jobs` tells how many such calls share the LLM by now.
    Raises what `check` and `Session.ask` do, but for an invalid answer, which costs one slot, and an exhausted budget,
    which ends generation; FailedPrecondition (LLM_NONSENSE) where the LLM wrote nothing usable.
    """
    check(request)
    collection = await asyncio.to_thread(
        Collection, request.spec.demonstrations, excluded, request.spec.own_instruction
    )
    job = Job(request, session, llm, settings, collection, report)
    await job.replay()
    await waves.ask(job)
    await asking.ask(job, jobs)
    if job.within_budget:
        job.check_sense(1)
    rows = await asyncio.to_thread(collection.rows, request.number)
    metrics = await asyncio.to_thread(variety.measured, rows, collection.labels or job.attributes.labels)
    dropped = collection.dropped(request.number)
    return Generated(
        tuple(rows),
        dropped,
        _stop_reason(job),
        session.ledger,
        metrics,
        tuple(job.repeats.shares()),
        job.attributes,
        outcomes.of(session, len(rows), dropped),
        tuple(job.notes),
        session.batched,
    )


def _stop_reason(job: Job) -> StopReason:
    if job.enough:
        return StopReason.NUMBER
    return StopReason.NOTHING_NEW if job.within_budget else StopReason.BUDGET
