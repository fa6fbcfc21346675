"""Generation by batches: in a few waves, each made from what the ones before brought.

    a pilot     one request in the usual way: it shows at once a wrong key, an LLM that is not there, what form of
                answer the server takes; a batch would show it hours later
    the first   a quarter of the number, so that the others have something to differ from, and a share to forecast by
    the second  what is still missing, by that share
    the others  what was repeated, invalid or not served, with some to spare, since each wave takes its hours

Where the server takes no batches, or two in a row bring nothing, the rest is asked for in the usual way, and a note
says so.
"""

from __future__ import annotations

import asyncio
import contextlib

from services.generator.job import Job
from services.kit.batch_endpoint import MOST_REQUESTS, Batch, NoBatches
from services.kit.errors import BudgetExhausted, FailedPrecondition
from services.kit.llm import Ask, InvalidAnswer
from services.kit.values import Prefer
from services.kit.wave import Ended, Waves

# Waves that get anywhere; what is missing after them is so little that it is not worth another day.
_MOST_WAVES = 10
_FRUITLESS = 2
_FIRST_SHARE = 0.25
_SPARE_SHARE, _SPARE_EXAMPLES = 0.25, 5


async def ask(job: Job) -> None:
    """Asks by batches where the request prefers cost, until there are enough examples or batches are of no more use.

    Also collects what an earlier attempt handed in, whatever this one prefers. Raises what `Session.ask` and
    `BatchEndpoint` do, but for an exhausted budget, and batches that the server does not take.
    """
    by_cost = job.request.prefer == Prefer.COST
    if job.request.allowance.requests == 0 or not (by_cost or await job.session.unsettled()):
        return
    waves = await job.session.waves()
    for ended in await waves.settle(lambda batch: job.report(_told(batch)), stop=not by_cost):
        if ended.missing:
            job.notes.append(_missing(ended))
    await job.replay()
    if not by_cost:
        return
    try:
        await _pilot(job)
        await _waves(job, waves)
    except BudgetExhausted:
        job.within_budget = False
    except NoBatches as error:
        job.notes.append(f"{error.message.rstrip('.')}: the usual way was taken, at the usual price.")
    except FailedPrecondition as error:
        if error.reason != "BATCH_REFUSED":
            raise
        job.notes.append(f"{error.message.rstrip('.')}; the rest was asked for in the usual way, at the usual price.")


async def _pilot(job: Job) -> None:
    if job.pace.answers == 0:
        slot = next(job.slots())
        size = job.plan.examples
        try:
            job.answered(slot, size, await job.session.ask(job.question(slot, min(size, job.request.number))))
        except InvalidAnswer as error:
            job.failed(slot, size, error)
    if wanted := job.proposal():
        with contextlib.suppress(InvalidAnswer):  # then nothing steers
            job.proposed(await job.session.ask(wanted))


async def _waves(job: Job, waves: Waves) -> None:
    fruitless, most = 0, MOST_REQUESTS
    for number in range(1, _MOST_WAVES + 1):
        planned = await _plan(job, number, most)
        if not planned:
            return
        asks = {ask.key: (slot, size) for slot, size, ask in planned}
        ended = await waves.ask([ask for _, _, ask in planned], lambda b, n=number: job.report(_told(b, n)))  # type: ignore[misc]
        for key, (slot, size) in asks.items():
            if key in ended.answers:
                job.answered(slot, size, ended.answers[key])
            elif key in ended.invalid:
                job.failed(slot, size, InvalidAnswer(ended.invalid[key]))
            await asyncio.sleep(0)  # thousands of them must not keep health checks waiting
        job.report()
        job.check_sense()
        if ended.missing:
            job.notes.append(_missing(ended))
        brought = len(ended.answers) + len(ended.invalid)
        if ended.short and not brought and not ended.missing:
            job.within_budget = False
            return
        fruitless = 0 if brought else fruitless + 1
        # A server that takes only so much at once may take half of it.
        most = max(1, len(planned) // 2) if ended.status == "failed" else MOST_REQUESTS
        if fruitless == _FRUITLESS:
            job.notes.append(
                f"{_FRUITLESS} batches in a row brought nothing; the rest was asked for in the usual way, at the usual"
                " price."
            )
            return


async def _plan(job: Job, wave: int, most: int) -> list[tuple[int, int, Ask]]:
    """The requests of a wave, by slot and size; none where there are enough examples or nothing new comes."""
    sizes: list[int] = []
    first = wave == 1 and job.collection.kept < _FIRST_SHARE * job.request.number
    goal = _FIRST_SHARE * job.request.number if first else float("inf")
    slots = job.slots()
    chosen: list[tuple[int, int]] = []
    while sum(sizes) < goal and (size := job.next_of_wave()):
        sizes.append(size)
        job.pace.sent(size)
        chosen.append((next(slots), size))
    if wave > 2 and sizes:
        spare = _SPARE_SHARE * sum(sizes) + _SPARE_EXAMPLES
        chosen += [(next(slots), max(sizes)) for _ in range(-(-int(spare) // max(sizes)))]
    for size in sizes:
        job.pace.ended(size)
    planned = []
    for slot, size in chosen[:most]:
        planned.append((slot, size, job.question(slot, size)))
        await asyncio.sleep(0)
    return planned


def _told(batch: Batch, wave: int = 0) -> str:
    which = f"batch {wave}" if wave else "a batch of before"
    counted = f", {batch.done:,} of {batch.total:,} requests" if batch.total else ""
    return f"; {which}: {batch.status.replace('_', ' ')}{counted}"


def _missing(ended: Ended) -> str:
    said = next(iter(ended.missing.values()), "").rstrip(".")
    status = ended.status if ended.status != "completed" else "was completed"
    return f"A batch {status} without {len(ended.missing):,} of its requests ({said}); they were asked for again."
