"""The teacher: one client for any OpenAI-compatible LLM, that pays for nothing twice and never more than it may.

    Ask         one question: messages, the schema of the answer, and the key under which the answer is stored
    Teacher     one LLM, as one service asks it        from_settings, session, close
    Session     one request's asking                   ask, waves (by batch), replay, ledger, costs
    InvalidAnswer

    teacher = Teacher.from_settings(settings, artifacts)
    session = teacher.session("my-run/generate", Allowance(requests=100))
    value = await session.ask(Ask("batch-0", messages, schema))

An answer is paid for from the allowance (`budget`), asked for within the server's limits (`endpoint`, `limits`), booked
before that and stored (`journal`), and only then used. The same key in the same request gives the stored answer.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import time
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

from services.kit import telemetry
from services.kit.artifacts import Artifacts
from services.kit.budget import Budget
from services.kit.concurrency import Concurrency
from services.kit.endpoint import Endpoint, Message, Reply, base_url, release, shared
from services.kit.errors import FailedPrecondition, InvalidArgument, P2MError
from services.kit.journal import Entry, Journal
from services.kit.limits import Rates
from services.kit.prices import Price, price_of
from services.kit.refusals import Again
from services.kit.settings import Settings
from services.kit.structured import Schema, parse
from services.kit.values import Allowance, Ledger
from services.kit.wave import Waves, answered, unsettled

__all__ = ["Ask", "InvalidAnswer", "Message", "Schema", "Session", "Teacher"]

log = logging.getLogger(__name__)

# Tries of one question, by how they end, before a server that has never answered is given up.
_FIRST_TRIES = {"refused": 4, "error": 6}
# Tries without an answer that may have been charged: at a server that answers nobody, at one that answers others. What
# is dropped at once is a server or a proxy that starts anew, and is soon over; who is silent once will be again.
_LOST_TRIES, _LOST_TRIES_ALIVE = {"dropped": 5, "timeout": 2}, 6
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True)
class Ask:
    """One question. `key` names it within its request: the stored answer of that key is given, whatever the rest says.

    temperature     0 to 2
    max_tokens      most tokens of the answer; reserved from the budget until the answer is there
    seed            handed to the LLM, which may or may not heed it
    fresh           keep the LLM from writing the prompt's own sentences again, where its server can
    """

    key: str
    messages: tuple[Message, ...]
    schema: Schema
    temperature: float = 0.0
    max_tokens: int = 1024
    seed: int | None = None
    fresh: bool = False


class InvalidAnswer(FailedPrecondition):
    """The LLM answered, and was paid, and the answer is not what was asked for. Another question may do better."""

    def __init__(self, message: str) -> None:
        super().__init__("INVALID_ANSWER", message)


class Teacher:
    """One LLM as one service asks it. All teachers of a process with the same URL share its limits."""

    def __init__(self, settings: Settings, artifacts: Artifacts) -> None:
        self.name = settings.llm
        self.price = price_of(settings.llm, base_url(settings), settings)
        self.settings = settings
        self.service = artifacts.service
        self._artifacts = artifacts
        self._endpoint: Endpoint | None = None
        self._journals: WeakSet[Journal] = WeakSet()
        if self.price.note:
            log.warning("%s", self.price.note)

    @classmethod
    def from_settings(cls, settings: Settings, artifacts: Artifacts) -> Teacher | None:
        """The teacher that OPENAI_BASE_URL and OPENAI_API_KEY name; None where neither is set."""
        if not settings.openai_base_url and not settings.openai_api_key.get_secret_value():
            return None
        return cls(settings, artifacts)

    @property
    def note(self) -> str:
        """What a report should say of the price; "" where it is known."""
        return self.price.note

    @property
    def concurrency(self) -> int:
        """How many questions are worth having under way at once, as far as is known by now."""
        concurrency = self._endpoint.concurrency if self._endpoint else Concurrency(self.settings.llm_concurrency)
        return concurrency.window

    def session(self, request_id: str, allowance: Allowance) -> Session:
        """Asks on behalf of one request: its answers are stored under `request_id`, paid from `allowance`."""
        return Session(self, request_id, allowance)

    async def close(self) -> None:
        """Stores what is still to be stored and closes the connections."""
        await asyncio.gather(*(journal.flush() for journal in list(self._journals)))
        if self._endpoint is not None:
            endpoint, self._endpoint = self._endpoint, None
            await release(endpoint, self.settings)

    async def _open(self) -> Endpoint:
        if self._endpoint is None:
            await asyncio.to_thread(importlib.import_module, "openai")  # half a second, in which others go on
        if self._endpoint is None:
            self._endpoint = shared(self.settings)
        endpoint = self._endpoint
        await endpoint.look()
        return endpoint

    def _journal(self, request_id: str) -> Journal:
        journal = Journal(self._artifacts, request_id)
        self._journals.add(journal)
        return journal


class Session:
    """One request's questions. `ask` may be called from many tasks at once."""

    def __init__(self, teacher: Teacher, request_id: str, allowance: Allowance) -> None:
        self.request_id = request_id
        self._teacher = teacher
        self._budget = Budget(allowance, teacher.price)
        self._rates = Rates(allowance.requests_per_minute, allowance.tokens_per_minute)
        self._journal = teacher._journal(request_id)
        self._stored: dict[str, Entry] | None = None
        self._loading = asyncio.Lock()

    @property
    def ledger(self) -> Ledger:
        """What this request has spent, in earlier attempts too; `replayed` counts answers that were stored already."""
        return self._budget.spent

    @property
    def places(self) -> int:
        """How many questions are worth having under way at once, as far as is known by now."""
        return self._teacher.concurrency

    @property
    def at_once(self) -> int | None:
        """How many questions the server works on at once, where it was found to queue the rest; else None."""
        return self._teacher._endpoint.concurrency.at_once if self._teacher._endpoint else None

    async def try_with(self, number: int) -> int:
        """Lets so many be sent while nothing is known of the server. How many these are; 0 where something is known."""
        return (await self._teacher._open()).concurrency.try_with(number)

    @property
    def per_second(self) -> float | None:
        """Questions a second that the server's limits and the allowance's let through; None where none is known."""
        endpoint = self._teacher._endpoint
        rates = (self._rates.requests.rate, endpoint.rates.requests.rate if endpoint else None)
        return min((rate for rate in rates if rate), default=None)

    async def replay(self) -> dict[str, Any]:
        """The stored answers of this request by their keys, those that could not be used left out."""
        return {key: entry.value for key, entry in (await self._load()).items() if not entry.invalid}

    @property
    def batched(self) -> int:
        """How many of the answers came by batch."""
        return answered(self._stored or {})

    def costs(self, prefix: str = "") -> tuple[Ledger, Ledger]:
        """What the stored answers whose keys begin so cost: those that can be used, and those that cannot."""
        usable, invalid = Ledger(), Ledger()
        for entry in (self._stored or {}).values():
            if entry.key.startswith(prefix) and entry.invalid:
                invalid += entry.cost
            elif entry.key.startswith(prefix):
                usable += entry.cost
        return usable, invalid

    async def unsettled(self) -> bool:
        """Whether an earlier attempt left a batch that nobody has collected."""
        return bool(unsettled(await self._load()))

    async def waves(self) -> Waves:
        """The same questions by batch, later and at another price: see `wave`."""
        stored, teacher = await self._load(), self._teacher
        endpoint = await teacher._open()
        settings = teacher.settings

        def read(ask: Ask, body: dict[str, Any], price: Price) -> Entry:
            try:
                entry = self._judge(ask, endpoint, endpoint.read(body, ask), price)
            except Again as again:
                used = body["usage"]
                cost = self._budget.cost(used.get("prompt_tokens", 0), used.get("completion_tokens", 0), price)
                entry = Entry(ask.key, invalid=again.error.message, cost=replace(cost, invalid=1))
            telemetry.by_batch(teacher.service, teacher.name, entry.cost)
            return entry

        return Waves(
            endpoint.batches(), endpoint, self._journal, stored, self._budget, teacher.price.by_batch, read,
            settings.llm_batch_look_s, settings.grace_s,
        )  # fmt: skip

    async def ask(self, ask: Ask) -> Any:
        """The JSON value that fits the schema: the stored one of `ask.key`, else the LLM's.

        Raises InvalidAnswer, BudgetExhausted, Unauthenticated (WRONG_KEY), NotFound (LLM_UNKNOWN), InvalidArgument
        (CONTEXT_OVERFLOW), FailedPrecondition (LLM_QUOTA), and Unavailable (LLM_UNREACHABLE, LLM_TIMEOUT, LLM_BUSY,
        LLM_FAILING) after trying again as often as is sensible; DiskFull and the like where it cannot be stored.
        """
        stored = await self._load()
        entry = stored.get(ask.key)
        if entry is not None:
            self._budget.spent += Ledger(replayed=1)
            telemetry.metrics.LLM_REPLAYED.add(1, self._teacher.service, self._teacher.name)
        else:
            entry = await self._paid(ask)
            stored[ask.key] = entry
        if entry.invalid:
            raise InvalidAnswer(f"{self._teacher.name} gave an answer that cannot be used: {entry.invalid}.")
        return entry.value

    async def _load(self) -> dict[str, Entry]:
        async with self._loading:
            if self._stored is None:
                entries = await self._journal.load()
                self._stored = {}
                for entry in entries:
                    self._budget.spent += entry.cost
                    if not entry.lost:
                        self._stored.setdefault(entry.key, entry)
            return self._stored

    async def _paid(self, ask: Ask) -> Entry:
        """Asks until there is an answer or no hope of one; stores the answer."""
        endpoint = await self._teacher._open()
        prompt_tokens = endpoint.prompt_tokens(ask)
        self._check_length(prompt_tokens)
        began, tries, lost = time.monotonic(), 0, 0
        while True:
            tries += 1
            try:
                return await self._once(ask, endpoint, prompt_tokens)
            except Again as again:
                lost += again.may_be_paid
                wait = _wait(again, tries)
                if self._hopeless(again, endpoint, began, tries, lost, wait):
                    raise again.error from None
                # A single fault is daily bread; one that stays is worth a line.
                level = logging.INFO if tries < 3 or again.kind == "limited" else logging.WARNING
                log.log(level, "%s Trying again in %.1f s.", again.error.message, wait)
                await asyncio.sleep(wait)

    async def _once(self, ask: Ask, endpoint: Endpoint, prompt_tokens: int) -> Entry:
        """One try, with its reservation: what it cost is booked whatever comes of it."""
        reserved = await self._budget.reserve(prompt_tokens, ask.max_tokens)
        spent = Ledger()
        try:
            await self._rates.enter(lambda: prompt_tokens + ask.max_tokens)
            async with endpoint.turn(ask):
                # What a kill leaves under way is booked already, so that no budget is passed by way of a restart.
                booked = await self._journal.book(ask.key, reserved)
                with telemetry.asking(self._teacher.service, self._teacher.name) as asked:
                    try:
                        reply = await endpoint.send(ask)
                    except BaseException as error:
                        if isinstance(error, Again):
                            asked.failed(error.error.code, error.kind)
                        if isinstance(error, P2MError) or (isinstance(error, Again) and not error.may_be_paid):
                            self._journal.unbook(ask.key, booked)
                        else:
                            # The server may charge for all that it wrote until it learned that nobody listens.
                            spent = reserved
                        raise
                    entry = replace(self._judge(ask, endpoint, reply), replaces=booked)
                    spent = entry.cost
                    asked.answered(spent)
                # The place is kept until the answer is stored: a crash then loses no more than places.
                await self._journal.append(entry)
                return entry
        finally:
            self._budget.settle(reserved, spent)
            telemetry.spent(self._teacher.service, self._teacher.name, spent)
            used = spent.prompt_tokens + spent.completion_tokens
            self._rates.tokens.take(used - prompt_tokens - ask.max_tokens)

    def _judge(self, ask: Ask, endpoint: Endpoint, reply: Reply, price: Price | None = None) -> Entry:
        cost = self._budget.cost(reply.prompt_tokens, reply.completion_tokens, price)
        try:
            if reply.refusal:
                raise ValueError(f"it refused: {reply.refusal[:200]!r}")
            value = parse(reply.text, ask.schema.schema, reply.complete)
        except ValueError as error:
            endpoint.judged(ask.schema.name, reply, valid=False)
            return Entry(ask.key, invalid=str(error), cost=replace(cost, invalid=1))
        endpoint.judged(ask.schema.name, reply, valid=True)
        return Entry(ask.key, value, cost=cost)

    def _check_length(self, prompt_tokens: int) -> None:
        most = self._teacher.settings.llm_context_tokens
        if prompt_tokens > most:
            raise InvalidArgument(
                "CONTEXT_OVERFLOW",
                f"The prompt has about {prompt_tokens} tokens; {self._teacher.name} is set to read {most}. Shorten it,"
                " or set P2M_LLM_CONTEXT_TOKENS where the LLM can read more.",
                field="prompt",
            )

    def _hopeless(self, again: Again, endpoint: Endpoint, began: float, tries: int, lost: int, wait: float) -> bool:
        if again.may_be_paid:
            return lost >= (_LOST_TRIES_ALIVE if endpoint.answered_at > began else _LOST_TRIES[again.kind])
        if not endpoint.answered_at and tries >= _FIRST_TRIES.get(again.kind, tries + 1):
            return True
        # A server at its rate limit that goes on answering others is waited for.
        since = max(began, endpoint.answered_at) if again.kind == "limited" else began
        return time.monotonic() + wait - since > self._teacher.settings.llm_patience_s


def _wait(again: Again, tries: int) -> float:
    """Seconds until the next try: what the server asked for, else a half, doubling; jittered, lest all come at once."""
    if again.after is not None and again.kind == "limited":
        return again.after + random.uniform(0.0, 0.25)
    backed_off = min(_LONGEST_WAIT_S, 0.5 * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)
    return max(again.after or 0.0, backed_off)
