"""One OpenAI-compatible endpoint: what all who ask it in this process share.

    Question    messages, schema, sampling: what one HTTP request asks
    Reply       what the server answered: text, tokens, whether it was cut off
    Endpoint    look: at the server, once; turn: waits until a request may be sent; send: sends it, once

It knows the server's rate limits (`limits`), how many requests it can bear at once, and which form of structured
output it takes for a schema: json_schema, else json_object, else plain text with the schema in the messages. The key
is never in a message.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from services.kit.batch_endpoint import BatchEndpoint
from services.kit.concurrency import Concurrency
from services.kit.limits import Rates, retry_after
from services.kit.prices import is_loopback
from services.kit.refusals import Again, Means, overflows
from services.kit.settings import Settings
from services.kit.structured import Schema, closed, is_strict
from services.kit.telemetry import metrics

log = logging.getLogger(__name__)

OPENAI_URL = "https://api.openai.com/v1"
FORMATS = ("json_schema", "json_object", "text")

_CHARS_PER_TOKEN = 4
# llama.cpp's DRY sampler: what goes on as the prompt does for more than so many tokens becomes ever less likely. It
# begins anew at a quote, so a short output may still be a part of its input.
_FRESH = {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 4, "dry_penalty_last_n": 8192}
_BATCH_PATIENCE = 30


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


class Question(Protocol):
    """What `Endpoint.send` needs to know of a request."""

    @property
    def messages(self) -> tuple[Message, ...]: ...
    @property
    def schema(self) -> Schema: ...
    @property
    def temperature(self) -> float: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def fresh(self) -> bool: ...


@dataclass(frozen=True)
class Reply:
    """What the server wrote.

    `complete` is False where it was cut off at max_tokens; `refusal` is its reason to write nothing; `format` is the
    place in FORMATS of the form that it was asked in.
    """

    text: str
    complete: bool
    refusal: str
    prompt_tokens: int
    completion_tokens: int
    format: int


class Endpoint:
    """A server and an LLM's name there."""

    def __init__(self, settings: Settings) -> None:
        import openai  # half a second, which only those who ask an LLM should wait

        self._openai = openai
        self.url = base_url(settings)
        self.llm = settings.llm
        self.timeout_s = settings.llm_timeout_s
        self.patience_s = settings.llm_patience_s
        self.rates = Rates()
        self.concurrency = Concurrency(settings.llm_concurrency)
        self.answered_at = 0.0  # monotonic; 0: never
        self.users = 0
        self._under_way = 0
        self._looking, self._looked = asyncio.Lock(), False
        self._means = Means(self.url, self.llm, settings.openai_api_key.get_secret_value())
        self._format: Counter[str] = Counter()  # by schema: the place in FORMATS of the best form that works
        self._valid: Counter[tuple[str, int]] = Counter()
        self._invalid: Counter[tuple[str, int]] = Counter()
        self._renamed: dict[str, str | None] = {}  # parameters that this LLM calls otherwise, or does not take
        self._samplers: dict[str, float] = {}  # what keeps this server's LLM from copying its prompt
        self._beyond_prompt: dict[str, float] = {}  # by schema: tokens of late, less the estimate of the prompt
        llm = (self.llm,)
        metrics.LLM_IN_FLIGHT.watch(self.concurrency, lambda of: {llm: of.in_flight})
        metrics.LLM_WINDOW.watch(self.concurrency, lambda of: {llm: of.window})
        self._client = openai.AsyncOpenAI(
            api_key=self._means.key or "none",
            base_url=self.url,
            max_retries=0,
            timeout=self.timeout_s,
            # A proxy of the environment does not lead back to this machine.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not is_loopback(self.url)),
        )

    async def look(self) -> None:
        """Asks a llama.cpp server how many it serves at once, once; any other server has no such answer to give.

        Only over plain HTTP, as one's own servers are reached: they alone may be so small that one wants to know.
        """
        async with self._looking:
            if self._looked or urlsplit(self.url).scheme != "http":
                return
            self._looked = True
            url = f"{self.url.removesuffix('/v1')}/props"
            try:
                props = await self._client.get(url, cast_to=object, options={"timeout": 1.0})
            except self._openai.OpenAIError:
                return
            slots = props.get("total_slots") if isinstance(props, dict) else None
            if isinstance(slots, int) and slots > 0:
                self.concurrency.narrow_to(2 * slots)  # one waits for each that is served, so that none is idle
                self._samplers = _FRESH

    @property
    def shown_url(self) -> str:
        """The URL without a user and a password that may be in it."""
        return self._means.shown_url

    async def close(self) -> None:
        await self._client.close()

    def prompt_tokens(self, question: Question) -> int:
        """An estimate: four bytes a token, eight tokens a message, the schema."""
        size = sum(len(message["content"].encode()) for message in question.messages)
        size += len(json.dumps(question.schema.schema))
        return math.ceil(size / _CHARS_PER_TOKEN) + 8 * len(question.messages)

    @asynccontextmanager
    async def turn(self, question: Question) -> AsyncIterator[None]:
        """Waits for a free place and for the rate limits; the place is held for the length of the block."""
        await self.concurrency.enter()
        try:
            await self.rates.enter(lambda: self._estimate(question))
            yield
        finally:
            self.concurrency.leave()

    async def send(self, question: Question) -> Reply:
        """One answer, within a `turn`. Raises Again where a later try may succeed, else what is wrong for good."""
        name, estimate = question.schema.name, self._estimate(question)
        # Not all that have a place are at the server: some are being booked or stored.
        self._under_way += 1
        load = self._under_way
        try:
            reply, seconds = await self._in_some_format(question)
        finally:
            self._under_way -= 1
        self.concurrency.answered(name, seconds, load, reply.completion_tokens)
        self.answered_at = time.monotonic()
        self.rates.tokens.take(reply.prompt_tokens + reply.completion_tokens - estimate)
        beyond = float(reply.prompt_tokens + reply.completion_tokens - self.prompt_tokens(question))
        self._beyond_prompt[name] = 0.9 * self._beyond_prompt.get(name, beyond) + 0.1 * beyond
        return reply

    def body(self, question: Question) -> dict[str, Any]:
        """The request as a batch's line holds it, in the best form that works as far as is known."""
        return self._body(question, self._format[question.schema.name])

    def read(self, body: dict[str, Any], question: Question) -> Reply:
        """A chat completion out of a batch's file. Raises Again where it is none."""
        return self._reply(json.dumps(body), question, self._format[question.schema.name])

    def batches(self) -> BatchEndpoint:
        """The same server's batch endpoint. What takes hours anyway is waited for longer where the server fails."""
        return BatchEndpoint(self._client, self.shown_url, _BATCH_PATIENCE * self.patience_s)

    def judged(self, name: str, reply: Reply, valid: bool) -> None:
        """Tells whether the reply fits the schema `name`. A form that never works is given up after three replies."""
        if valid:
            self._valid[name, reply.format] += 1
        elif reply.complete:
            self._invalid[name, reply.format] += 1
        useless = self._invalid[name, reply.format] >= 3 and not self._valid[name, reply.format]
        if useless and reply.format == self._format[name] and reply.format + 1 < len(FORMATS):
            self._format[name] += 1
            given_up, next_best = FORMATS[reply.format], FORMATS[reply.format + 1]
            log.warning("%s does not keep to %s for %r; asking for %s.", self.llm, given_up, name, next_best)

    def _estimate(self, question: Question) -> float:
        """The tokens that a request will take: its prompt and what the last ones took beyond theirs."""
        return self.prompt_tokens(question) + self._beyond_prompt.get(question.schema.name, question.max_tokens)

    async def _in_some_format(self, question: Question) -> tuple[Reply, float]:
        """The reply in the best form that the server takes, and the seconds that it took."""
        chosen = self._format[question.schema.name]
        while True:
            started = time.monotonic()
            try:
                reply = await self._request(question, chosen, started)
            except self._openai.APIStatusError as error:
                if self._adapts(error):
                    continue
                if error.status_code in (400, 415, 422, 501) and not overflows(error) and chosen + 1 < len(FORMATS):
                    log.info("%s refused %s (%s).", self.shown_url, FORMATS[chosen], self._means.said(error))
                    chosen += 1
                    continue
                refusal = self._means.status(error)
                if isinstance(refusal, Again) and (refusal.kind == "limited" or refusal.after is not None):
                    self._slow_down(error.response.headers, started)
                raise refusal from None
            self._format[question.schema.name] = max(self._format[question.schema.name], chosen)
            return reply, time.monotonic() - started

    async def _request(self, question: Question, chosen: int, started: float) -> Reply:
        try:
            # The client's own timeout is one of silence; this one is of the whole answer.
            async with asyncio.timeout(self.timeout_s):
                body, own = self._body(question, chosen), self._samplers if question.fresh else {}
                raw = await self._client.chat.completions.with_raw_response.create(**body, extra_body=own)
        except (TimeoutError, self._openai.APITimeoutError):
            self.concurrency.refused(started)
            raise self._means.silence(self.timeout_s) from None
        except self._openai.APIConnectionError as error:
            raise self._means.no_connection(error) from None
        self.rates.learn(raw.headers)
        return self._reply(raw.text, question, chosen)

    def _body(self, question: Question, chosen: int) -> dict[str, Any]:
        schema = question.schema
        body: dict[str, Any] = {
            "model": self.llm,
            "messages": list(question.messages),
            "temperature": question.temperature,
            "max_tokens": question.max_tokens,
        }
        if question.seed is not None:
            body["seed"] = question.seed
        if FORMATS[chosen] == "json_schema":
            spec = {"name": schema.name, "schema": closed(schema.schema), "strict": is_strict(schema.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": spec}
        else:
            body["messages"] = _with_schema(question.messages, schema)
            if FORMATS[chosen] == "json_object":
                body["response_format"] = {"type": "json_object"}
        for parameter, other in self._renamed.items():
            if parameter in body:
                value = body.pop(parameter)
                if other:
                    body[other] = value
        return body

    def _reply(self, text: str, question: Question, chosen: int) -> Reply:
        try:
            body = json.loads(text)
            choice = body["choices"][0]
            content = choice["message"].get("content") or ""
            refusal = choice["message"].get("refusal") or ""
            usage = body.get("usage") or {}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise self._means.nonsense(text) from None
        finish = choice.get("finish_reason")
        if finish == "content_filter":
            refusal = refusal or "the server's content filter stopped it"
        return Reply(
            content,
            finish != "length",
            refusal,
            usage.get("prompt_tokens") or self.prompt_tokens(question),
            usage.get("completion_tokens") or math.ceil(len(content.encode()) / _CHARS_PER_TOKEN),
            chosen,
        )

    def _slow_down(self, headers: Mapping[str, str], started: float) -> None:
        # A server that tells its limits is kept to them by the buckets; fewer at once would not be the cure.
        if not self.rates.learn(headers, started):
            self.concurrency.refused(started)
        if after := retry_after(headers):
            self.rates.pause(min(after, 60.0))

    def _adapts(self, error: Any) -> bool:
        """Whether the LLM takes the request once a parameter is renamed or left out; remembers it."""
        if error.status_code != 400:
            return False
        said = self._means.said(error)
        for parameter, other in (("max_tokens", "max_completion_tokens"), ("temperature", None), ("seed", None)):
            named = f"'{parameter}'" in said and re.search("unsupported|not support", said, re.I)
            if named and parameter not in self._renamed:
                self._renamed[parameter] = other
                return True
        return False


_endpoints: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str, str], Endpoint]] = WeakKeyDictionary()


def shared(settings: Settings) -> Endpoint:
    """The running loop's one endpoint of this URL, LLM and key. Give it back with `release`."""
    mine = _endpoints.setdefault(asyncio.get_running_loop(), {})
    key = _identity(settings)
    if key not in mine:
        mine[key] = Endpoint(settings)
    mine[key].users += 1
    return mine[key]


async def release(endpoint: Endpoint, settings: Settings) -> None:
    """Closes the endpoint's connections when its last user is gone."""
    endpoint.users -= 1
    if endpoint.users == 0:
        _endpoints.get(asyncio.get_running_loop(), {}).pop(_identity(settings), None)
        await endpoint.close()


def base_url(settings: Settings) -> str:
    return (settings.openai_base_url or OPENAI_URL).rstrip("/")


def _identity(settings: Settings) -> tuple[str, str, str]:
    return base_url(settings), settings.llm, settings.openai_api_key.get_secret_value()


def _with_schema(messages: tuple[Message, ...], schema: Schema) -> list[Message]:
    """The messages with the schema told at their end: it may differ from request to request, what is before does not,
    and a server's prefix cache serves what is the same up to the first difference.
    """
    told = (
        "Answer with one JSON value and nothing else, no explanation and no code fence. It fits this"
        f' JSON schema "{schema.name}": {json.dumps(schema.schema, ensure_ascii=False)}'
    )
    if messages and messages[-1]["role"] == "user":
        return [*messages[:-1], {"role": "user", "content": f"{messages[-1]['content']}\n\n{told}"}]
    return [*messages, {"role": "user", "content": told}]
