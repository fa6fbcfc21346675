"""A scripted teacher: an OpenAI-compatible chat server on a loopback port, the edge where tests fake the world.

    async with ScriptedTeacher() as teacher:             in the test's own process
        Settings(openai_base_url=teacher.url, ...)
    python -m tests.support.teacher [--latency S]        a process of its own; prints its URL, then serves

    ScriptedTeacher     answers, rate limits, slots, counts; GET /stats
    Fault               what goes wrong with one request
    toy_example, TOY_PROMPT, toy_answer
                        the task it teaches: name the one colour among seven words

An answer depends on the request's messages and seed alone, and on how often that very request came before: so the same
requests in another order get the same answers, and none of them runs dry. Tokens are estimated: four bytes each.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web

COLOURS = ("red", "blue", "green", "yellow", "black", "white", "brown", "purple", "pink", "silver", "golden", "grey")
WORDS = re.findall(
    r"\w+",
    """
    apple arm army baby ball bank bath bed bell bird boat bone book bottle bowl box boy bread bridge
    brother bus cake camp car cat chair child church city clock cloud coat coffee corn cow cup dance
    dog door dress drink ear earth egg eye face farm father field film fire fish floor flower foot
    forest fox friend fruit game garden gate gift girl glass grass hair hall hand hat head heart
    hill horse hospital hotel house ice island job key king kitchen knife lake lamp leaf leg letter
    library light lion lip market meal milk mirror money moon mother mountain mouse mouth music name
    neck night nose ocean office paper park pen people picture plane plant plate poem queen radio
    rain ring river road rock roof room salt sand school sea ship shirt shoe shop sister sky sleep
    snow song spoon star station stone street sugar summer sun table tea tooth tower town train tree
    uncle valley village voice wall watch water wind window winter wood world year
    """,
)


def toy_example(rng: random.Random) -> dict[str, str]:
    """One example of the toy task: six plain words and a colour in some order; the output is the colour."""
    colour = rng.choice(COLOURS)
    words = [*rng.sample(WORDS, 6), colour]
    rng.shuffle(words)
    return {"input": " ".join(words), "output": colour}


def toy_answer(text: str) -> str:
    """The right output for the last input in `text`; "" where there is none."""
    found = [word for word in re.findall(r"[a-z]+", text.lower()) if word in COLOURS]
    return found[-1] if found else ""


def _toy_prompt() -> str:
    lines = ["Each input is a handful of words. One of them is the name of a colour. Give that word alone."]
    for number in range(3):
        example = toy_example(random.Random(number))
        lines.append(f'input="{example["input"]}"\noutput="{example["output"]}"')
    return "\n\n".join(lines) + "\n"


TOY_PROMPT = _toy_prompt()

Answer = Callable[[dict[str, Any], random.Random], Any]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request. `status` 0: answered, but with `content` in place of the right text.

    `retry_after` is sent as Retry-After (rounded up) and as retry-after-ms; `hang_s` is waited first and the
    connection then dropped.
    """

    status: int = 0
    message: str = "scripted fault"
    code: str = "scripted_fault"
    retry_after: float | None = None
    hang_s: float = 0.0
    content: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


WRONG_KEY = Fault(401, "Incorrect API key provided.", "invalid_api_key")
BUSY = Fault(429, "Rate limit reached.", "rate_limit_exceeded", retry_after=0.05)
OVERLOADED = Fault(503, "The server is overloaded.", "service_unavailable")
NONSENSE = Fault(content="I'm sorry, but I can't help with that.")
EMPTY = Fault(content="")
HANG = Fault(hang_s=3600.0)


class ScriptedTeacher:
    """The server. Everything it was asked is in `requests` (bodies), everything it counted in `count`.

    answers          {schema name: f(body, rng) -> JSON value, or the value itself}, or one f for all; what it lacks
                     or answers with None falls to the default of the toy task
    latency          seconds that an answer takes, and token_latency those that each of its tokens adds
    rpm              requests a minute that are let in (a second's worth at once); more get 429 with Retry-After
    max_concurrent   requests served at once; the others queue
    faults           one per request, in order, None for a right answer; then all are right
    always           a fault for every request, until it is set to None
    overcharge       the tokens that an answer is said to have taken, by those that it took
    formats          the response formats that are not refused with 400
    tells_slots      GET /props tells so many slots, as llama.cpp does; None: it is not there
    """

    def __init__(
        self,
        answers: Mapping[str, Any] | Answer | None = None,
        *,
        latency: float = 0.0,
        token_latency: float = 0.0,
        rpm: int | None = None,
        max_concurrent: int | None = None,
        faults: Iterable[Fault | None] = (),
        always: Fault | None = None,
        overcharge: float = 1.0,
        formats: Iterable[str] = ("json_schema", "json_object", "text"),
        tells_slots: int | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self.answers = answers or {}
        self.latency = latency
        self.token_latency = token_latency
        self.rpm = rpm
        self.faults = list(faults)
        self.always = always
        self.overcharge = overcharge
        self.formats = frozenset(formats)
        self.tells_slots = tells_slots
        self.port = port
        self.host = host
        self.requests: list[dict[str, Any]] = []
        self.count: Counter[str] = Counter()
        self.by_schema: Counter[str] = Counter()
        self.peak_concurrency = 0
        self._in_flight = 0
        self._seen: Counter[str] = Counter()
        self._slots = asyncio.Semaphore(max_concurrent) if max_concurrent else None
        self._level, self._level_at = (rpm or 0) / 60, time.monotonic()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL is to be."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> ScriptedTeacher:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        for path in ("/stats", "/v1/stats"):
            app.router.add_get(path, self._stats)
        if self.tells_slots:
            app.router.add_get("/props", self._props)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, backlog=4096).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Closes the port: whoever asks now is refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def stats(self) -> dict[str, Any]:
        """requests: all that came; answered: all 200s; the rest as it is named."""
        kinds = ("requests", "answered", "rate_limited", "faults", "prompt_tokens", "completion_tokens")
        return {kind: self.count[kind] for kind in kinds} | {
            "in_flight": self._in_flight,
            "peak_concurrency": self.peak_concurrency,
            "by_schema": dict(self.by_schema),
        }

    async def _props(self, _request: web.Request) -> web.Response:
        return web.json_response({"total_slots": self.tells_slots})

    async def _stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self.stats())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.count["requests"] += 1
        fault = self.faults.pop(0) if self.faults else self.always
        wait = self._limited()
        if wait and not fault:
            self.count["rate_limited"] += 1
            fault = Fault(
                429, f"Rate limit reached. Retry after {wait:.3f} s.", "rate_limit_exceeded", retry_after=wait
            )
        if fault and fault.status:
            self.count["faults"] += 1
            return self._failure(fault)
        kind = (body.get("response_format") or {"type": "text"})["type"]
        if kind not in self.formats:
            return self._failure(Fault(400, f"response_format {kind!r} is not supported.", "invalid_request_error"))
        return await self._answer(request, body, fault)

    async def _answer(self, request: web.Request, body: dict[str, Any], fault: Fault | None) -> web.StreamResponse:
        content = ""
        self._in_flight += 1
        self.peak_concurrency = max(self.peak_concurrency, self._in_flight)
        try:
            if self._slots:
                await self._slots.acquire()
            try:
                await asyncio.sleep(fault.hang_s if fault and fault.hang_s else self.latency)
                if not (fault and fault.hang_s):
                    content = fault.content if fault and fault.content is not None else self._content(body)
                    await asyncio.sleep(self.token_latency * _tokens(content))
            finally:
                if self._slots:
                    self._slots.release()
        finally:
            self._in_flight -= 1
        if fault and fault.hang_s:
            self.count["faults"] += 1
            if request.transport:
                request.transport.abort()
            return web.Response(status=504)
        usage = {"prompt_tokens": _tokens(prompt_of(body)), "completion_tokens": _tokens(content)}
        usage = {name: round(self.overcharge * tokens) for name, tokens in usage.items()}
        for name, tokens in usage.items():
            self.count[name] += tokens
        self.count["answered"] += 1
        message = {"role": "assistant", "content": content}
        return web.json_response(
            headers=self._limits(),
            data={
                "id": f"chatcmpl-{self.count['answered']}", "object": "chat.completion", "created": int(time.time()),
                "model": body.get("model", "scripted"), "usage": usage | {"total_tokens": sum(usage.values())},
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            }
        )  # fmt: skip

    def _content(self, body: dict[str, Any]) -> str:
        name, schema = schema_of(body)
        self.by_schema[name] += 1
        identity = json.dumps([body["messages"], body.get("seed")], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()
        rng = random.Random(f"{digest}/{self._seen[digest]}")
        self._seen[digest] += 1
        scripted = self.answers if callable(self.answers) else self.answers.get(name)
        value = scripted(body, rng) if callable(scripted) else scripted
        if value is None:
            value = default_answer(name, schema, body, rng)
        return json.dumps(value, ensure_ascii=False)

    def _failure(self, fault: Fault) -> web.Response:
        headers = self._limits() | dict(fault.headers)
        if fault.retry_after is not None:
            headers["retry-after-ms"] = str(math.ceil(fault.retry_after * 1000))
            headers["Retry-After"] = str(math.ceil(fault.retry_after))
        error = {"message": fault.message, "type": fault.code, "param": None, "code": fault.code}
        return web.json_response({"error": error}, status=fault.status, headers=headers)

    def _limits(self) -> dict[str, str]:
        """What a server with a limit tells of it."""
        if not self.rpm:
            return {}
        rate = self.rpm / 60
        return {
            "x-ratelimit-limit-requests": str(self.rpm),
            "x-ratelimit-remaining-requests": str(max(0, int(self._level))),
            "x-ratelimit-reset-requests": f"{(max(1.0, rate) - self._level) / rate:.3f}s",
        }

    def _limited(self) -> float:
        """Seconds until the request may come again; 0 when it is let in."""
        if not self.rpm:
            return 0.0
        rate, now = self.rpm / 60, time.monotonic()
        self._level = min(max(1.0, rate), self._level + (now - self._level_at) * rate)
        self._level_at = now
        if self._level < 1:
            return (1 - self._level) / rate
        self._level -= 1
        return 0.0


def default_answer(name: str, schema: dict[str, Any], body: dict[str, Any], rng: random.Random) -> Any:
    """What the toy task's teacher says."""
    if name == "examples":
        wanted = schema.get("properties", {}).get("examples", {})
        return {"examples": [toy_example(rng) for _ in range(wanted.get("maxItems", wanted.get("minItems", 1)))]}
    if name == "prompt_spec":
        return split_prompt(_text(body["messages"][-1]))
    if name == "answer":
        return instance(schema, toy_answer(_text(body["messages"][-1])))
    if name == "translation":
        return instance(schema, _text(body["messages"][-1]))
    return instance(schema, "a small model that reads words and names a colour")


def split_prompt(prompt: str) -> dict[str, Any]:
    """Instruction and demonstrations of a prompt that writes the latter as input="..." output="..."."""
    pairs = list(re.finditer(r'input="(.*?)"\s*\n\s*output="(.*?)"[ \t]*(?=\n|$)', prompt, re.DOTALL))
    instruction = prompt[: pairs[0].start()] if pairs else prompt
    demonstrations = [{"input": pair[1], "output": pair[2]} for pair in pairs]
    return {"instruction": instruction.strip(), "demonstrations": demonstrations}


def schema_of(body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The schema's name and content; where the format is not json_schema, those that the messages tell."""
    spec = (body.get("response_format") or {}).get("json_schema")
    if spec:
        return spec["name"], spec["schema"]
    told = re.search(r'JSON schema "(\w+)":\s*(\{.*\})', prompt_of(body))
    return (told[1], json.loads(told[2])) if told else ("text", {"type": "string"})


def instance(schema: dict[str, Any], text: str) -> Any:
    """A minimal valid value of a JSON schema: first enum values, `text` for strings."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            return instance(schema[word][0], text)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {key: instance(schema["properties"][key], text) for key in schema.get("required", schema["properties"])}
    if kind == "array":
        count = schema.get("minItems", min(1, schema.get("maxItems", 1)))
        return [instance(schema.get("items", {}), text) for _ in range(count)]
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind == "boolean":
        return True
    return None if kind == "null" else text[: schema.get("maxLength", len(text))]


def prompt_of(body: dict[str, Any]) -> str:
    """All messages as one text."""
    return "\n".join(_text(message) for message in body["messages"])


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else json.dumps(content)


def _tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / 4)


async def _serve(teacher: ScriptedTeacher) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with teacher:
        print(teacher.url, flush=True)
        await stop.wait()


_FAULTS = {"401": WRONG_KEY, "429": BUSY, "503": OVERLOADED, "nonsense": NONSENSE, "empty": EMPTY, "hang": HANG}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind; in a container of its own: 0.0.0.0")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds an answer takes")
    parser.add_argument("--rpm", type=int, help="requests a minute that are let in")
    parser.add_argument("--max-concurrent", type=int, help="requests served at once; the others queue")
    parser.add_argument("--always", choices=sorted(_FAULTS), help="every request fails like this")
    args = parser.parse_args()
    teacher = ScriptedTeacher(
        latency=args.latency, rpm=args.rpm, max_concurrent=args.max_concurrent, port=args.port,
        host=args.host, always=_FAULTS.get(args.always),
    )  # fmt: skip
    asyncio.run(_serve(teacher))


if __name__ == "__main__":
    main()
