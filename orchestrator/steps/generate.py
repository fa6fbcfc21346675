"""Examples by the LLM, in parts that replicas work on at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from p2m.generator.v1 import generator_pb2

from orchestrator import attributes, leases, variety
from orchestrator.plain import plain
from orchestrator.stages import Report
from orchestrator.steps.step import Outcome, Step, may_go_on, message_of, wanted_examples
from services.kit.values import Ledger, Progress
from services.kit.wire import from_message

_ROWS_A_PART = 500
_MOST_PARTS = 4


async def generate(step: Step) -> Outcome:
    """Examples by the LLM, in parts that replicas work on at once; SKIPPED where there is no LLM to ask."""
    number = wanted_examples(step.options)
    if number == 0:
        return Outcome("switched off", skipped=True)
    parts = step.options.parts or min(_MOST_PARTS, math.ceil(number / _ROWS_A_PART))
    parts = min(parts, number)
    lease = step.lease("generate")
    steering = await attributes.of_run(step, number, parts, lease)
    lease = leases.left(lease, [steering.ledger])
    allowances = leases.split(lease, {str(part): 1.0 for part in range(parts)})
    requests = [
        generator_pb2.GenerateRequest(
            request_id=f"{step.name}/generate/{part}", allowance=message_of(allowances[str(part)]), spec=step.spec,
            number=number // parts + (part < number % parts), part=part, parts=parts, seed=step.options.seed,
            exclude=step.options.data, attributes=steering.attributes, judge=step.options.judge,
            prefer=step.options.prefer,
        )
        for part in range(parts)
    ]  # fmt: skip
    return await generated(step, requests, steering)


async def generated(
    step: Step, requests: Sequence[generator_pb2.GenerateRequest], steering: attributes.Steering
) -> Outcome:
    """What the parts of a generation gave, as one; SKIPPED where that is nothing, and why."""
    number, parts = sum(request.number for request in requests), len(requests)
    progress = _Parts(step.report, parts)
    calls = [asyncio.ensure_future(step.stages.generate(r, progress.of(i))) for i, r in enumerate(requests)]
    try:
        answers = await asyncio.gather(*calls, return_exceptions=True)
    finally:
        await _ended(calls)
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        if not may_go_on(error):
            raise error
    results = [answer for answer in answers if not isinstance(answer, BaseException)]
    rows = sum(result.rows for result in results)
    failed = [part for part, answer in enumerate(answers) if isinstance(answer, BaseException)]
    ledger = steering.ledger + _total(results) + progress.spent(failed)
    if rows == 0:
        why = str(errors[0]) if errors else _stopped(results) or "nothing was generated"
        return Outcome(why, {}, ledger, skipped=True)
    llm = results[0].llm
    short = _stopped(results) if rows < number and not errors else ""
    message = f"{rows} examples by {llm}" + (f"; {short}" if short else "")
    if batched := sum(result.batched for result in results):
        message += f"; {batched} of {ledger.requests} requests by batch"
    return Outcome(
        message + (f"; a part failed: {errors[0]}" if errors else ""),
        {
            "datasets": [plain(result.dataset) for result in results if result.rows],
            "rows": rows,
            "rows_by_part": [0 if isinstance(answer, BaseException) else answer.rows for answer in answers],
            "dropped": _added([plain(result)["dropped"] for result in results]),
            "stop_reason": max((result.stop_reason, plain(result)["stop_reason"]) for result in results)[1],
            "llm": llm,
            "parts": parts,
            "outcomes": _by_outcome(results),
            "batched": batched,
            "notes": [*dict.fromkeys(note for result in results for note in result.notes)],
            **variety.of_parts(results),
            "attributes_by": steering.by,
        },
        ledger,
    )


class _Parts:
    """Reports of several parts as one, added up."""

    def __init__(self, report: Report, parts: int) -> None:
        self._report = report
        self._newest: list[Progress | None] = [None] * parts

    def of(self, part: int) -> Report:
        """Where one part reports to."""

        def forward(progress: Progress) -> None:
            self._newest[part] = progress
            known = [one for one in self._newest if one is not None]
            done, total = sum(one.done for one in known), sum(one.total for one in known)
            self._report(replace(progress, done=done, total=total, ledger=self.spent(range(len(self._newest)))))

        return forward

    def spent(self, parts: Iterable[int]) -> Ledger:
        """What these parts had spent when they last reported."""
        newest = (self._newest[part] for part in parts)
        return sum((one.ledger for one in newest if one is not None and one.ledger is not None), Ledger())


def _total(results: list[Any]) -> Ledger:
    return sum((from_message(result.ledger, Ledger) for result in results), Ledger())


def _added(counts: list[dict[str, int]]) -> dict[str, int]:
    return {reason: sum(count.get(reason, 0) for count in counts) for reason in sorted({r for c in counts for r in c})}


def _by_outcome(results: list[Any]) -> dict[str, dict[str, float]]:
    """What the parts spent, by what became of it."""
    found: dict[str, dict[str, float]] = {}
    for outcome in (outcome for result in results for outcome in plain(result)["outcomes"]):
        sums = found.setdefault(outcome.pop("name"), dict.fromkeys(outcome, 0.0))
        for name, value in outcome.items():
            sums[name] += value
    return found


def _stopped(results: list[Any]) -> str:
    """Why there are fewer than wanted; "" where no part says so."""
    reasons = {plain(result)["stop_reason"] for result in results}
    if "budget" in reasons:
        return "the budget was spent; raise --budget and give the same command again"
    return "the LLM had nothing new to say" if "nothing_new" in reasons else ""


async def _ended(calls: Sequence[asyncio.Future[Any]]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
