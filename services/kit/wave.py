"""Questions asked by batch, each batch paid for once whatever happens in between.

    Waves       ask: many questions at once; settle: what an earlier attempt left under way
    Ended       how a wave ended: what was answered, what could not be read, what was not served

Each wave leaves three marks in the journal, each stored before the next thing is done:

    wave/<token>/planned        which questions; then the batch is handed in, with the token in its metadata
    wave/<token>/submitted      the batch's id
    wave/<token>/settled        its answers are all in the journal, as any other answer is

A restart reads how far it came. Planned and not submitted: the server is asked whether it has a batch with the token;
it has, or nothing was handed in. Submitted and not settled: that batch is waited for. So nothing is paid twice, and
what was not served (expired, failed, cancelled) costs nothing and may be asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from services.kit.batch_endpoint import MOST_BYTES, MOST_REQUESTS, Answer, Batch, BatchEndpoint
from services.kit.errors import BudgetExhausted, FailedPrecondition, NotFound
from services.kit.journal import Entry, Journal
from services.kit.structured import Schema
from services.kit.values import Ledger

if TYPE_CHECKING:
    from services.kit.budget import Budget
    from services.kit.llm import Ask
    from services.kit.prices import Price

log = logging.getLogger(__name__)

# A batch that was handed in so long ago is in the server's list, if it ever came there.
_LISTED_S = 5.0
_FIRST_LOOK_S = 0.5

Watch = Callable[[Batch], None]


class Asked(Protocol):
    """What Waves needs of the endpoint: see `endpoint.Endpoint`."""

    def body(self, question: Any) -> dict[str, Any]: ...
    def prompt_tokens(self, question: Any) -> int: ...


@dataclass
class Ended:
    """How a wave ended.

    status      of the batch: completed, failed, expired, cancelled; "" where nothing had to be asked
    answers     the values that came, by key
    invalid     what was answered, and paid, and cannot be used: why, by key
    missing     what was not served: why, by key
    short       whether the allowance did not pay for all
    """

    status: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    short: bool = False
    why: str = ""


class Waves:
    """The waves of one request.

    stored      the request's stored entries by key; what is answered is put there too
    read        makes the entry of one answer: (question, the chat completion, price) -> Entry
    look_s      most seconds between two looks at a batch
    grace_s     how long a cancel may take
    """

    def __init__(
        self,
        batches: BatchEndpoint,
        endpoint: Asked,
        journal: Journal,
        stored: dict[str, Entry],
        budget: Budget,
        price: Price,
        read: Callable[[Ask, dict[str, Any], Price], Entry],
        look_s: float,
        grace_s: float,
    ) -> None:
        self._batches, self._endpoint, self._journal, self._stored = batches, endpoint, journal, stored
        self._budget, self._price, self._read = budget, price, read
        self._look_s, self._grace_s = look_s, grace_s

    async def ask(self, asks: Sequence[Ask], watch: Watch) -> Ended:
        """Asks all, as far as the allowance goes: what is set aside for the whole wave is so before it is handed in.

        Raises NoBatches where the server takes none, and what `BatchEndpoint` does. Cancelled, it cancels the batch.
        """
        ended = Ended()
        wanted = [ask for ask in asks if ask.key not in self._stored]
        for ask in asks:
            if ask.key in self._stored:
                _sort(self._stored[ask.key], ended)
        reserved = self._reserve(wanted, ended)
        if not reserved:
            return ended
        token = uuid.uuid4().hex
        wave = wanted[: len(reserved)]
        set_aside = {ask.key: one for ask, one in zip(wave, reserved, strict=True)}
        asked = {ask.key: (ask, set_aside[ask.key].prompt_tokens) for ask in wave}
        try:
            await self._mark(token, "planned", _plan(asked))
            bodies = {}
            for ask in wave:
                bodies[ask.key] = self._endpoint.body(ask)
                await asyncio.sleep(0)  # thousands of them must not keep health checks waiting
            batch = await self._handed_in(token, bodies)
            await self._mark(token, "submitted", {"id": batch.id})
            await self._collected(token, batch.id, asked, watch, ended, set_aside)
        except asyncio.CancelledError:
            await self._call_off(token)
            raise
        finally:
            for one in set_aside.values():
                self._budget.settle(one, Ledger())
        return ended

    async def settle(self, watch: Watch, *, stop: bool = False) -> list[Ended]:
        """Waits for what an earlier attempt handed in and nobody has collected; `stop`: cancels it first."""
        return [await self._settled(token, watch, stop) for token in unsettled(self._stored)]

    async def _settled(self, token: str, watch: Watch, stop: bool) -> Ended:
        plan = self._stored[f"wave/{token}/planned"].value
        asked, ended = _asked(plan), Ended()
        try:
            identity = await self._identity(token, plan["at"], asked)
            if not identity:
                await self._mark(token, "settled", {"status": "never handed in", "answered": 0})
                return ended
            if stop:
                await self._batches.cancel(identity)
            await self._collected(token, identity, asked, watch, ended)
        except asyncio.CancelledError:
            await self._call_off(token)
            raise
        return ended

    async def _identity(self, token: str, planned_at: float, asked: Mapping[str, tuple[Ask, int]]) -> str:
        """The batch's id; "" where nothing was handed in."""
        if submitted := self._stored.get(f"wave/{token}/submitted"):
            return str(submitted.value["id"])
        # It may be on its way into the server's list still.
        await asyncio.sleep(max(0.0, min(_LISTED_S, planned_at + _LISTED_S - time.time())))
        try:
            batch = await self._batches.find(token)
        except NotFound:
            await self._book_as_lost(token, asked)
            return ""
        if batch is None:
            return ""
        await self._mark(token, "submitted", {"id": batch.id})
        return batch.id

    async def _handed_in(self, token: str, bodies: Mapping[str, dict[str, Any]]) -> Batch:
        try:
            return await self._batches.submit(bodies, token)
        except FailedPrecondition:
            await self._mark(token, "settled", {"status": "refused", "answered": 0})
            raise

    async def _call_off(self, token: str) -> None:
        """Cancels the batch, within the grace; what it has answered by then the next attempt collects."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._grace_s):
                submitted = self._stored.get(f"wave/{token}/submitted")
                known = None if submitted else await self._batches.find(token)
                if identity := submitted.value["id"] if submitted else known and known.id:
                    await self._batches.cancel(identity)

    async def _collected(
        self,
        token: str,
        identity: str,
        asked: Mapping[str, tuple[Ask, int]],
        watch: Watch,
        ended: Ended,
        set_aside: dict[str, Ledger] | None = None,
    ) -> None:
        """Waits for the batch, puts what it brought into the journal, and books it out of what was set aside."""
        try:
            batch = await self._until_ended(identity, watch)
            answers = await self._batches.answers(batch)
        except NotFound as error:
            await self._book_as_lost(token, asked)
            batch, answers = Batch(identity, "failed", why=error.message), []
        ended.status, ended.why = batch.status, batch.why
        writes = []
        for answer in answers:
            if answer.key not in asked or answer.key in self._stored:
                continue
            if answer.status != 200:
                ended.missing[answer.key] = answer.why or f"status {answer.status}"
                continue
            entry = self._entry(*asked[answer.key], answer)
            self._stored[answer.key] = entry
            writes.append((entry, self._journal.append(entry)))
            await asyncio.sleep(0)
        for entry, written in writes:
            await written
            if set_aside and entry.key in set_aside:
                self._budget.settle(set_aside.pop(entry.key), entry.cost)
            else:  # an earlier attempt had set it aside
                self._budget.spent += entry.cost
            _sort(entry, ended)
        for key in asked.keys() - self._stored.keys():
            ended.missing.setdefault(key, batch.why or batch.status)
        came = len(asked.keys() & self._stored.keys())
        await self._mark(token, "settled", {"status": batch.status, "answered": came})

    async def _until_ended(self, identity: str, watch: Watch) -> Batch:
        wait = min(_FIRST_LOOK_S, self._look_s)
        while True:
            batch = await self._batches.look(identity)
            watch(batch)
            if batch.ended:
                return batch
            await asyncio.sleep(wait)
            wait = min(self._look_s, 1.5 * wait)

    def _entry(self, ask: Ask, prompt_tokens: int, answer: Answer) -> Entry:
        usage = answer.body.get("usage") or {"prompt_tokens": prompt_tokens}
        return self._read(ask, answer.body | {"usage": usage}, self._price)

    def _reserve(self, wanted: Sequence[Ask], ended: Ended) -> list[Ledger]:
        """Sets aside what the first of `wanted` may cost: as many as the allowance and the protocol let."""
        reserved: list[Ledger] = []
        size = 0
        for ask in wanted[:MOST_REQUESTS]:
            prompt_tokens = self._endpoint.prompt_tokens(ask)
            size += 8 * prompt_tokens + 1000  # four bytes a token, which JSON's escapes may double
            if size > MOST_BYTES:
                break
            try:
                reserved.append(self._budget.reserve_now(prompt_tokens, ask.max_tokens, self._price))
            except BudgetExhausted:
                ended.short = True
                break
        return reserved

    async def _book_as_lost(self, token: str, asked: Mapping[str, tuple[Ask, int]]) -> None:
        """What may have been charged and cannot be had."""
        log.warning("What became of a batch of %d requests is not known; it is booked as lost.", len(asked))
        prompt = sum(tokens for _, tokens in asked.values())
        completion = sum(ask.max_tokens for ask, _ in asked.values())
        cost = Ledger(len(asked), prompt, completion, self._price.dollars(prompt, completion))
        self._budget.spent += cost
        await self._journal.append(Entry(f"wave/{token}", lost=True, cost=cost))

    async def _mark(self, token: str, mark: str, value: dict[str, Any]) -> None:
        entry = Entry(f"wave/{token}/{mark}", value)
        await self._journal.append(entry)
        self._stored[entry.key] = entry


def unsettled(stored: Mapping[str, Entry]) -> list[str]:
    """The tokens of waves that were planned and not settled."""
    planned = [key.split("/")[1] for key in stored if key.startswith("wave/") and key.endswith("/planned")]
    return [token for token in planned if f"wave/{token}/settled" not in stored]


def answered(stored: Mapping[str, Entry]) -> int:
    """How many answers came by batch."""
    marks = (entry for key, entry in stored.items() if key.startswith("wave/") and key.endswith("/settled"))
    return sum(int(entry.value["answered"]) for entry in marks)


def _plan(asked: Mapping[str, tuple[Ask, int]]) -> dict[str, Any]:
    """The wave as its mark: questions by key, their schemas each once."""
    schemas: list[Schema] = []
    lines = []
    for ask, tokens in asked.values():
        if ask.schema not in schemas:
            schemas.append(ask.schema)
        lines.append([ask.key, tokens, ask.max_tokens, schemas.index(ask.schema)])
    return {"at": time.time(), "asks": lines, "schemas": [[one.name, one.schema] for one in schemas]}


def _asked(plan: Mapping[str, Any]) -> dict[str, tuple[Ask, int]]:
    from services.kit.llm import Ask

    schemas = [Schema(name, schema) for name, schema in plan["schemas"]]
    return {key: (Ask(key, (), schemas[schema], max_tokens=most), tokens) for key, tokens, most, schema in plan["asks"]}


def _sort(entry: Entry, ended: Ended) -> None:
    if entry.invalid:
        ended.invalid[entry.key] = entry.invalid
    else:
        ended.answers[entry.key] = entry.value
