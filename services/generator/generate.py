"""Has the LLM write examples until there are enough.

    generate
    ├── _Requests       which request is sent next, and whether
    │   └── _News       which answers brought something new, in the order of the requests
    ├── prompts         what is asked
    └── consensus       what becomes of the answers

Requests are numbered (slots), and answers are taken as they come: nobody waits for the slowest of a batch. Still, which
requests are sent, and the dataset, depend on the answers alone and not on their timing:

- A request is sent only if, were everything that is under way new, the number would still not be reached. An answer
  adds at most as many groups as it may hold examples, so a slot is sent early or late but never in vain; and no
  request under way is cancelled when the number is reached.
- Generation is given up when a long row of slots brought nothing new. In the stretch where that can happen, a request
  is sent only if one of the slots just before is known to have brought something.
- What is kept counts by groups of near duplicates, whatever their order (`consensus`).

An answer that is stored already, from an attempt that was cut off, is taken first and is not asked for again.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from services.generator import prompts
from services.generator.consensus import Collection
from services.kit.dedup import NearDuplicates
from services.kit.errors import BudgetExhausted, FailedPrecondition, InvalidArgument
from services.kit.llm import Ask, InvalidAnswer, Session
from services.kit.settings import Settings
from services.kit.values import Allowance, Artifact, Ledger, Metric, Progress, PromptSpec, Row

MOST_EXAMPLES = 1_000_000
INITIAL_TEMPERATURE, MAX_TEMPERATURE = 0.5, 1.2

# Answers without one usable example before the LLM is given up.
_NONSENSE = 20
# Slots in a row with nothing new before generation is given up: a tenth of the fewest it can take, at least this many.
_DRY = 10

_SLOT = re.compile(r"examples/(\d+)")


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


@dataclass(frozen=True)
class Generated:
    """The rows, in a canonical order; examples left out, by reason; why it ended; what was spent."""

    rows: tuple[Row, ...]
    dropped: dict[str, int]
    stop_reason: StopReason
    ledger: Ledger


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


def temperature(request: GenerateRequest, kept: int) -> float:
    """T0 + (Tmax - T0) * n / N, within 0 and 2 (prompt2model's schedule)."""
    start = INITIAL_TEMPERATURE if request.initial_temperature is None else request.initial_temperature
    end = MAX_TEMPERATURE if request.max_temperature is None else request.max_temperature
    return min(2.0, max(0.0, start + (end - start) * kept / request.number))


async def generate(
    request: GenerateRequest,
    session: Session,
    llm: str,
    excluded: Sequence[str],
    settings: Settings,
    report: Callable[[Progress], None] = lambda _: None,
) -> Generated:
    """Generates `request.number` examples, or as many as the allowance and the LLM give.

    `excluded` are inputs that must not be generated again. Raises what `check` and `Session.ask` do, but for an invalid
    answer, which costs one slot, and an exhausted budget, which ends generation; FailedPrecondition (LLM_NONSENSE)
    where the LLM wrote nothing usable.
    """
    check(request)
    collection = await asyncio.to_thread(Collection, request.spec.demonstrations, excluded)
    plan = prompts.plan(request.spec, settings.llm_context_tokens)
    stored = sorted(int(match[1]) for key in await session.replay() if (match := _SLOT.fullmatch(key)))
    requests = _Requests(request.number, plan.examples, stored)
    schema = prompts.schema(plan)
    failure = ""

    def question(slot: int) -> Ask:
        rng = random.Random(f"{request.seed}/{request.part}/{slot}")
        size = prompts.choose_size(rng)
        text = prompts.messages(request.spec, size, collection.sample(rng, size.written), plan)
        degrees = temperature(request, collection.kept)
        return Ask(f"examples/{slot}", text, schema, degrees, plan.max_tokens, rng.getrandbits(31))

    def take(slot: int, answer: Any) -> None:
        examples = answer["examples"][: plan.examples] if answer else []
        requests.answered(slot, [text for text in map(collection.add, examples) if text])

    # Stored answers are all taken, whatever the number: they were paid for.
    for slot in stored:
        take(slot, await session.ask(Ask(f"examples/{slot}", (), schema)))
        await asyncio.sleep(0)  # thousands of them must not keep health checks waiting
    tasks: dict[asyncio.Task[Any], int] = {}
    within_budget = True
    try:
        while True:
            report(_progress(request, collection.kept, session.ledger))
            while within_budget and len(tasks) < settings.llm_concurrency and requests.may_send(collection.kept):
                slot = requests.send()
                tasks[asyncio.create_task(session.ask(question(slot)))] = slot
            if not tasks:
                break
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=tasks.__getitem__):
                slot = tasks.pop(task)
                try:
                    take(slot, task.result())
                except InvalidAnswer as error:
                    failure = error.message
                    take(slot, None)
                except BudgetExhausted:
                    within_budget = False
            if requests.answers >= _NONSENSE and not collection.usable:
                raise _nonsense(llm, requests.answers, failure)
    except Exception:
        # What is under way is perhaps paid for: an answer that comes within the grace is still stored.
        if tasks:
            await asyncio.wait(tasks, timeout=settings.grace_s)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if within_budget and requests.answers and not collection.usable:
        raise _nonsense(llm, requests.answers, failure)
    reason = _stop_reason(collection.kept >= request.number, within_budget)
    rows = await asyncio.to_thread(collection.rows, request.number)
    return Generated(tuple(rows), collection.dropped(request.number), reason, session.ledger)


class _Requests:
    """Which slots are sent: in order, each once, those with a stored answer never."""

    def __init__(self, number: int, per_request: int, stored: Iterable[int]) -> None:
        self.answers = 0
        self._number = number
        self._per_request = per_request
        self._stored = frozenset(stored)
        self._next = 0
        self._under_way = 0
        fewest = -(-number // per_request)
        self._window = max(_DRY, fewest // 10)
        # Before this slot nothing is given up.
        self._patience = max(self._window, fewest)
        self._news = _News()

    def may_send(self, kept: int) -> bool:
        """Whether the next slot is needed for certain."""
        while self._next in self._stored:
            self._next += 1
        if kept + self._under_way * self._per_request >= self._number:
            return False
        return self._next < self._patience or self._news.any(self._next - self._window, self._next)

    def send(self) -> int:
        """The next slot."""
        self._next += 1
        self._under_way += 1
        return self._next - 1

    def answered(self, slot: int, texts: list[str]) -> None:
        """What came of a slot: the inputs that it votes for, none where its answer was no use."""
        self.answers += 1
        self._under_way -= slot not in self._stored
        self._news.answered(slot, texts)


class _News:
    """Which slots brought a new group, judged in their order: one counts once all before it have answered."""

    def __init__(self) -> None:
        self._near = NearDuplicates()
        self._waiting: dict[int, list[str]] = {}
        self._brought: list[bool] = []

    def answered(self, slot: int, texts: list[str]) -> None:
        self._waiting[slot] = texts
        while len(self._brought) in self._waiting:
            self._brought.append(any([self._near.add(text) for text in self._waiting.pop(len(self._brought))]))

    def any(self, start: int, end: int) -> bool:
        """Whether a slot of start..end-1 is known to have brought something new."""
        return any(self._brought[max(0, start) : end])


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


def _progress(request: GenerateRequest, kept: int, ledger: Ledger) -> Progress:
    kept = min(kept, request.number)
    degrees = temperature(request, kept)
    message = f"{kept:,} of {request.number:,} examples, {ledger.requests:,} requests"
    return Progress(kept, request.number, "examples", message, (Metric("temperature", degrees),), ledger)
