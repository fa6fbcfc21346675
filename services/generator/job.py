"""What one generation knows by now, whichever way its questions go.

Job     question: what request `slot` asks; take: what an answer brings; progress; check_sense
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from services.generator import prompts, variety
from services.generator.consensus import Collection
from services.generator.pace import Pace
from services.generator.values import GenerateRequest, RepeatShare, temperature
from services.generator.variety import Attributes
from services.kit.errors import FailedPrecondition
from services.kit.llm import Ask, InvalidAnswer, Session
from services.kit.settings import Settings
from services.kit.values import Metric, Progress

# Answers without one usable example before the LLM is given up.
_NONSENSE = 20
# Fewer examples than these are not worth a request for what they may differ in; nor are few requests.
_STEERED_EXAMPLES, _STEERED_REQUESTS = 100, 20
# Examples after which the longest one tells how long an answer may be.
_TELLING = 20
# Parts of the run for which the share of repeats is told.
_STRETCHES = 20

SLOT = re.compile(r"examples/(\d+)/(\d+)")


class Job:
    """One generation: its request, what came of it so far, and what the next question is to be.

    Requests are numbered (slots). `within_budget` is False once the allowance does not pay for another.
    """

    def __init__(
        self,
        request: GenerateRequest,
        session: Session,
        llm: str,
        settings: Settings,
        collection: Collection,
        report: Callable[[Progress], None],
    ) -> None:
        self.request, self.session, self.settings, self.collection = request, session, settings, collection
        self.plan = prompts.plan(request.spec, settings.llm_context_tokens)
        self.pace = Pace(request.number, self.plan.examples, settings.llm_concurrency)
        self.attributes = request.attributes or Attributes()
        self.repeats = _Repeats(request.number)
        self.notes: list[str] = []
        self.within_budget = True
        self.failure = ""
        # What keeps an LLM from copying would spoil outputs that have to.
        self._fresh = not variety.repeats_inputs(request.spec.demonstrations)
        self._llm = llm
        self._report = report
        self._taken: set[int] = set()

    @property
    def enough(self) -> bool:
        return self.collection.kept >= self.request.number

    async def replay(self) -> None:
        """Takes all stored answers, whatever the number: they were paid for."""
        stored = {}
        for key in await self.session.replay():
            if match := SLOT.fullmatch(key):
                stored[int(match[1])] = (key, int(match[2]))
        for slot in sorted(stored.keys() - self._taken):
            key, size = stored[slot]
            self.answered(slot, size, await self.session.ask(Ask(key, (), prompts.schema(size))))
            await asyncio.sleep(0)  # thousands of them must not keep health checks waiting

    def slots(self) -> itertools.filterfalse[int]:
        """The numbers of requests that no answer is stored for, in order."""
        return itertools.filterfalse(self._taken.__contains__, itertools.count())

    def question(self, slot: int, size: int) -> Ask:
        """What request `slot` asks: `size` examples."""
        request, collection = self.request, self.collection
        rng = random.Random(f"{request.seed}/{request.part}/{slot}")
        seed = rng.getrandbits(31)
        shape = prompts.choose_size(rng, collection.repeated)
        known = self.attributes if self.attributes.labels else replace(self.attributes, labels=collection.labels)
        steered = variety.steer(known, rng, request.part + slot, size, collection.outputs)
        written = collection.sample(rng, shape.written)
        # The largest size shows the same ones, so that the server's prefix cache helps; what is shown alone is copied.
        drawn = None if shape is prompts.COMPLEX and collection.repeated < prompts.COPIES else rng
        text = prompts.messages(request.spec, shape, written, self.plan, size, steered, drawn)
        longest = prompts.of_bytes(collection.longest) if collection.usable >= _TELLING else 0
        degrees = temperature(request, collection.kept, collection.repeated)
        limit = self.plan.limit(size, longest)
        return Ask(f"examples/{slot}/{size}", text, prompts.schema(size), degrees, limit, seed, fresh=self._fresh)

    def proposal(self) -> Ask | None:
        """Asks what the examples may differ in; None where that is known, or not worth a request."""
        request = self.request
        few = request.allowance.requests is not None and request.allowance.requests < _STEERED_REQUESTS
        if request.attributes is not None or self.attributes or request.number < _STEERED_EXAMPLES or few:
            return None
        seed = random.Random(f"{request.seed}/{request.part}").getrandbits(31)
        return prompts.proposal(request.spec, self.plan, seed)

    def proposed(self, answer: Any) -> None:
        """Takes the answer to `proposal` in; None where it could not be read."""
        if answer:
            self.attributes = variety.from_answer(answer, self.request.spec.demonstrations)

    def _take(self, size: int, answer: Any) -> None:
        """Takes the answer to a request for `size` examples in; None where it could not be read."""
        examples = answer["examples"][:size] if answer else []
        self.pace.answered(size, [self.collection.add(example) for example in examples])
        self.repeats.note(self.pace.read, self.collection)

    def answered(self, slot: int, size: int, answer: Any) -> None:
        """Takes the answer to request `slot` in, which is then done with."""
        self._taken.add(slot)
        self._take(size, answer)

    def failed(self, slot: int, size: int, error: InvalidAnswer) -> None:
        """Counts the answer to request `slot`, which could not be read; the request is done with."""
        self.failure = error.message
        self.answered(slot, size, None)

    def next_of_wave(self) -> int:
        """Examples that one more request of a wave is to ask for; 0 where those planned may do."""
        return self.pace.size(max(1, self.pace.first), self.collection.kept, 1)

    def report(self, more: str = "") -> None:
        """Tells how far it is; `more` is what else a person may want to know."""
        kept = min(self.collection.kept, self.request.number)
        ledger = self.session.ledger
        degrees = temperature(self.request, kept, self.collection.repeated)
        message = f"{kept:,} of {self.request.number:,} examples, {ledger.requests:,} requests{more}"
        metrics = (Metric("temperature", degrees),)
        self._report(Progress(kept, self.request.number, "examples", message, metrics, ledger))

    def check_sense(self, least: int = _NONSENSE) -> None:
        """FailedPrecondition (LLM_NONSENSE) where at least so many answers held nothing usable."""
        if self.pace.answers < least or self.collection.usable:
            return
        last = f" The last: {self.failure}" if self.failure else " They lacked an input or an output, or were cut off."
        raise FailedPrecondition(
            "LLM_NONSENSE",
            f"{self.pace.answers} answers of {self._llm} held no example that can be used.{last} Take another LLM "
            "(P2M_LLM), or look whether OPENAI_BASE_URL names a chat model that can write JSON.",
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

    def shares(self) -> Sequence[RepeatShare]:
        return self._shares
