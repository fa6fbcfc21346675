"""Has the LLM write examples until there are enough.

    generate
    ├── pace            how many examples the next request asks for, and whether there is one
    ├── prompts         what is asked
    ├── variety         what each request is to be about
    └── consensus       what becomes of the answers

Requests are numbered (slots), and answers are taken as they come: nobody waits for the slowest of a batch. What is
under way when the number is reached could only be surplus: it is given a second, then let go, and booked as lost.

What the result depends on: the dataset is a function of the set of answers that were paid for, whatever their order
(`consensus`). An answer that is stored already, from an attempt that was cut off, is taken first and never asked for
again, so nothing is lost or doubled by a crash; what was under way at that moment is all that is asked for anew. While
every answer is new and whole, which requests are sent depends on the number alone; otherwise `pace` forecasts from what
it knows at the time, so other delays may take a few requests more or less.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from services.generator import prompts, variety
from services.generator.consensus import Collection
from services.generator.pace import Pace
from services.generator.variety import Attributes
from services.kit.errors import BudgetExhausted, FailedPrecondition, InvalidArgument
from services.kit.llm import Ask, InvalidAnswer, Session
from services.kit.settings import Settings
from services.kit.values import Allowance, Artifact, Ledger, Metric, Progress, PromptSpec, Row

MOST_EXAMPLES = 1_000_000
INITIAL_TEMPERATURE, MAX_TEMPERATURE = 0.5, 1.2

# Answers without one usable example before the LLM is given up.
_NONSENSE = 20
# Fewer examples than these are not worth a request for what they may differ in; nor are few requests.
_STEERED_EXAMPLES, _STEERED_REQUESTS = 100, 20
# Examples after which the longest one tells how long an answer may be.
_TELLING = 20
# What an answer that can only be surplus is waited for.
_SURPLUS_S = 1.0
# Parts of the run for which the share of repeats is told.
_STRETCHES = 20

_SLOT = re.compile(r"examples/(\d+)/(\d+)")


class StopReason(IntEnum):
    """Why generation ended."""

    UNSPECIFIED = 0
    NUMBER = 1
    BUDGET = 2
    NOTHING_NEW = 3


@dataclass(frozen=True)
class GenerateRequest:
    """Examples to generate; the fields are those of the proto's message."""

    request_id: str = ""
    allowance: Allowance = field(default_factory=Allowance)
    spec: PromptSpec = field(default_factory=PromptSpec)
    number: int = 0
    part: int = 0
    parts: int = 0
    seed: int = 0
    initial_temperature: float | None = None
    max_temperature: float | None = None
    exclude: tuple[Artifact, ...] = ()
    attributes: Attributes = field(default_factory=Attributes)


@dataclass(frozen=True)
class RepeatShare:
    """Of the examples read up to `examples`, since the one before: repeated inputs and near ones, in percent."""

    examples: int = 0
    duplicates: float = 0.0
    near_duplicates: float = 0.0


@dataclass(frozen=True)
class Generated:
    """The rows, in a canonical order; examples left out, by reason; why it ended; what was spent; how varied it is."""

    rows: tuple[Row, ...]
    dropped: dict[str, int]
    stop_reason: StopReason
    ledger: Ledger
    metrics: tuple[Metric, ...] = ()
    repeats: tuple[RepeatShare, ...] = ()
    attributes: Attributes = field(default_factory=Attributes)


def check(request: GenerateRequest) -> None:
    """Returns where the request can be done; InvalidArgument names the field where not."""
    if not 1 <= request.number <= MOST_EXAMPLES:
        _refuse("number", f"number is {request.number:,}; wanted 1 to {MOST_EXAMPLES:,}.")
    if not request.spec.own_instruction.strip() and not request.spec.demonstrations:
        _refuse("spec", "spec has neither an instruction nor demonstrations; wanted at least one of them.")
    for name in ("initial_temperature", "max_temperature"):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= 2:
            _refuse(name, f"{name} is {value:g}; wanted 0 to 2.")
    if not 0 <= request.part < max(1, request.parts):
        _refuse("part", f"part is {request.part} of {max(1, request.parts)}; parts are counted from 0.")


def _refuse(name: str, message: str) -> None:
    raise InvalidArgument("BAD_REQUEST", message, field=name)


def temperature(request: GenerateRequest, kept: int, repeated: float = 0.0) -> float:
    """T0 + (Tmax - T0) * n / N, within 0 and 2 (prompt2model's schedule).

    Where `repeated`, the share of examples that were nothing new, is more than n / N, it stands in its place: an LLM
    that repeats itself would stay at the low temperature at which it does so.
    """
    start = INITIAL_TEMPERATURE if request.initial_temperature is None else request.initial_temperature
    end = MAX_TEMPERATURE if request.max_temperature is None else request.max_temperature
    return min(2.0, max(0.0, start + (end - start) * max(kept / request.number, repeated)))


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
    plan = prompts.plan(request.spec, settings.llm_context_tokens)
    stored = {int(match[1]): (key, int(match[2])) for key in await session.replay() if (match := _SLOT.fullmatch(key))}
    pace = Pace(request.number, plan.examples)
    repeats = _Repeats(request.number)
    attributes = request.attributes
    failure = ""

    def in_flight() -> int:
        return -(-session.places // jobs())

    def next_size(slot: int) -> int:
        left = request.allowance.requests
        left = None if left is None else left - session.ledger.requests - len(tasks)
        places = -(-settings.llm_concurrency // jobs())
        return pace.size(slot, collection.kept, places, session.per_second, left)

    def question(slot: int, size: int) -> Ask:
        rng = random.Random(f"{request.seed}/{request.part}/{slot}")
        shape = prompts.choose_size(rng, collection.repeated)
        known = attributes if attributes.labels else replace(attributes, labels=collection.labels)
        steered = variety.steer(known, rng, request.part + slot, size, collection.outputs)
        written = collection.sample(rng, shape.written)
        text = prompts.messages(request.spec, shape, written, plan, size, steered)
        longest = prompts.of_bytes(collection.longest) if collection.usable >= _TELLING else 0
        degrees = temperature(request, collection.kept, collection.repeated)
        key = f"examples/{slot}/{size}"
        return Ask(key, text, prompts.schema(size), degrees, plan.limit(size, longest), rng.getrandbits(31))

    def take(size: int, answer: Any) -> None:
        examples = answer["examples"][:size] if answer else []
        pace.answered(size, [collection.add(example) for example in examples])
        repeats.note(pace.read, collection)

    # Stored answers are all taken, whatever the number: they were paid for.
    for slot in sorted(stored):
        key, size = stored[slot]
        take(size, await session.ask(Ask(key, (), prompts.schema(size))))
        await asyncio.sleep(0)  # thousands of them must not keep health checks waiting
    tasks: dict[asyncio.Task[Any], int] = {}
    slot = next(place for place in itertools.count() if place not in stored)
    within_budget = True
    enough_at = 0.0
    proposal = None
    if not attributes and _is_worth_steering(request):
        # The first examples do not wait for it.
        ask = prompts.proposal(request.spec, plan, random.Random(f"{request.seed}/{request.part}").getrandbits(31))
        proposal = asyncio.create_task(session.ask(ask))
        tasks[proposal] = 0
    try:
        while True:
            report(_progress(request, collection, session.ledger))
            while within_budget and len(tasks) < in_flight() and (size := next_size(slot)):
                tasks[asyncio.create_task(session.ask(question(slot, size)))] = size
                pace.sent(size)
                slot = next(place for place in itertools.count(slot + 1) if place not in stored)
            if not tasks:
                break
            patience = None
            if collection.kept >= request.number:
                enough_at = enough_at or time.monotonic()
                patience = max(0.0, enough_at + _SURPLUS_S - time.monotonic())
            done, _ = await asyncio.wait(tasks, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in done:
                size = tasks.pop(task)
                pace.ended(size)
                try:
                    answer = task.result()
                except InvalidAnswer as error:
                    answer, failure = None, error.message
                except BudgetExhausted:
                    within_budget = False
                    continue
                if task is proposal:
                    attributes = variety.from_answer(answer) if answer else attributes
                else:
                    take(size, answer)
            if pace.answers >= _NONSENSE and not collection.usable:
                raise _nonsense(llm, pace.answers, failure)
    except Exception:
        # What is under way is perhaps paid for: an answer that comes within the grace is still stored.
        if tasks:
            await asyncio.wait(tasks, timeout=settings.grace_s)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if within_budget and pace.answers and not collection.usable:
        raise _nonsense(llm, pace.answers, failure)
    reason = _stop_reason(collection.kept >= request.number, within_budget)
    rows = await asyncio.to_thread(collection.rows, request.number)
    metrics = await asyncio.to_thread(_metrics, rows, collection.labels or attributes.labels)
    return Generated(
        tuple(rows), collection.dropped(request.number), reason, session.ledger, metrics, repeats.shares(), attributes
    )


class _Repeats:
    """The share of repeats in each stretch of the run."""

    def __init__(self, number: int) -> None:
        self._stretch = max(10, number // _STRETCHES)
        self._shares: list[RepeatShare] = []
        self._usable, self._before = 0, (0, 0)

    def note(self, read: int, collection: Collection) -> None:
        """Closes a stretch where it is long enough."""
        new = collection.usable - self._usable
        if new < self._stretch:
            return
        now = collection.repeats
        exact, near = (100.0 * (a - b) / new for a, b in zip(now, self._before, strict=True))
        self._shares.append(RepeatShare(read, round(exact, 2), round(near, 2)))
        self._usable, self._before = collection.usable, now

    def shares(self) -> tuple[RepeatShare, ...]:
        return tuple(self._shares)


def _is_worth_steering(request: GenerateRequest) -> bool:
    requests = request.allowance.requests
    return request.number >= _STEERED_EXAMPLES and (requests is None or requests >= _STEERED_REQUESTS)


def _metrics(rows: Sequence[Row], labels: Sequence[str]) -> tuple[Metric, ...]:
    if not rows:
        return ()
    found = [
        Metric(f"distinct_{length}", round(variety.distinct((row.input for row in rows), length), 2))
        for length in (1, 2)
    ]
    if labels:
        found.append(Metric("label_balance", round(variety.balance((row.output for row in rows), labels), 2)))
    return tuple(found)


def _stop_reason(enough: bool, within_budget: bool) -> StopReason:
    if enough:
        return StopReason.NUMBER
    return StopReason.NOTHING_NEW if within_budget else StopReason.BUDGET


def _nonsense(llm: str, answers: int, failure: str) -> FailedPrecondition:
    last = f" The last: {failure}" if failure else " They lacked an input or an output, or were cut off."
    return FailedPrecondition(
        "LLM_NONSENSE",
        f"{answers} answers of {llm} held no example that can be used.{last} Take another LLM (P2M_LLM), or look "
        "whether OPENAI_BASE_URL names a chat model that can write JSON.",
    )


def _progress(request: GenerateRequest, collection: Collection, ledger: Ledger) -> Progress:
    kept = min(collection.kept, request.number)
    degrees = temperature(request, kept, collection.repeated)
    message = f"{kept:,} of {request.number:,} examples, {ledger.requests:,} requests"
    return Progress(kept, request.number, "examples", message, (Metric("temperature", degrees),), ledger)
