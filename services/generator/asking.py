"""Asks one request after another, as many at once as the LLM's server bears, and takes the answers as they come.

Nobody waits for the slowest of a batch. What is under way when the number is reached could only be surplus: it is let
go after a moment, and booked as lost.

While every answer is new and whole, which requests are sent depends on the number and on how many the server bears;
otherwise `pace` forecasts from what it knows at the time, so other delays may take a few requests more or less.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from services.generator.job import Job
from services.kit.errors import BudgetExhausted
from services.kit.llm import InvalidAnswer

# (slot, examples) of each request under way.
_Tasks = dict[asyncio.Task[Any], tuple[int, int]]
# What an answer that can only be surplus is waited for: those that are stored, or about to come.
_SURPLUS_S = 0.1


async def ask(job: Job, jobs: Callable[[], int] = lambda: 1) -> None:
    """Asks until there are enough examples, or nothing new comes, or the allowance is spent.

    `jobs` tells how many share the LLM by now. Raises what `Session.ask` does, but for an invalid answer, which costs
    one request, and an exhausted budget; FailedPrecondition (LLM_NONSENSE) where the LLM writes nothing usable.
    """
    tasks: _Tasks = {}
    try:
        await _ask(job, jobs, tasks)
    except Exception:
        # What is under way is perhaps paid for: an answer that comes within the grace is still stored.
        if tasks:
            await asyncio.wait(tasks, timeout=job.settings.grace_s)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask(job: Job, jobs: Callable[[], int], tasks: _Tasks) -> None:
    session, pace = job.session, job.pace
    slots = job.slots()
    slot = next(slots)
    enough_at = 0.0
    proposal = None
    if wanted := job.proposal():
        # The first examples do not wait for it.
        proposal = asyncio.create_task(session.ask(wanted))
        tasks[proposal] = (-1, 0)

    def next_size() -> int:
        left = job.request.allowance.requests
        left = None if left is None else left - session.ledger.requests - len(tasks)
        places = -(-(session.at_once or session.places) // jobs())
        return pace.size(slot, job.collection.kept, places, session.per_second, left)

    if not job.enough:
        pace.first = await session.try_with(pace.first)
    while True:
        job.report()
        while job.within_budget and len(tasks) < -(-session.places // jobs()) and (size := next_size()):
            tasks[asyncio.create_task(session.ask(job.question(slot, size)))] = (slot, size)
            pace.sent(size)
            slot = next(slots)
        if not tasks:
            return
        patience = None
        if job.enough:
            enough_at = enough_at or time.monotonic()
            patience = max(0.0, enough_at + _SURPLUS_S - time.monotonic())
        done, _ = await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return
        for task in done:
            asked, size = tasks.pop(task)
            pace.ended(size)
            try:
                answer = task.result()
            except InvalidAnswer as error:
                if task is not proposal:
                    job.failed(asked, size, error)
            except BudgetExhausted:
                job.within_budget = False
            else:
                job.proposed(answer) if task is proposal else job.answered(asked, size, answer)
        job.check_sense()
