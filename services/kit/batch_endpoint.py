"""The batch endpoint of an OpenAI-compatible server: a file of requests now, a file of answers within a day.

    /v1/files, /v1/batches

    BatchEndpoint   submit: a batch; find: one whose id was never learnt; look, cancel, answers
    Batch           where one stands
    Answer          what became of one request of it
    NoBatches       this server has none

A batch bears a token of ours in its metadata: where we died, or the line broke, between the server's taking it and our
knowing its id, `find` looks for the token among the server's batches, so that none is handed in, and paid, twice.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from services.kit.errors import FailedPrecondition, NotFound, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

# What the makers of the protocol allow in one batch: 50,000 requests, 200 MB.
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000

_TOKEN = "p2m"
_ABSENT = (404, 405, 501)
_PASSING = (408, 409, 425, 429)
_ENDED = ("completed", "failed", "expired", "cancelled")
_CHAT = "/v1/chat/completions"
_LONGEST_WAIT_S = 60.0
_MOST_PAGES = 50


class NoBatches(FailedPrecondition):
    """The server takes no batches, or not from us."""

    def __init__(self, message: str) -> None:
        super().__init__("NO_BATCHES", message)


@dataclass(frozen=True)
class Batch:
    """Where a batch stands.

    status      validating, in_progress, finalizing, cancelling; completed, failed, expired, cancelled
    done, total requests of it
    why         what the server says of a failed one
    """

    id: str
    status: str
    done: int = 0
    total: int = 0
    output_file: str = ""
    error_file: str = ""
    why: str = ""

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


@dataclass(frozen=True)
class Answer:
    """What became of the request `key`: an HTTP status (0: it was not served) and a body; else `why`."""

    key: str
    status: int
    body: dict[str, Any]
    why: str = ""


class BatchEndpoint:
    """The batches of one server.

    client      openai.AsyncOpenAI
    url         as a person may see it
    patience_s  how long a server that fails is tried again
    """

    def __init__(self, client: Any, url: str, patience_s: float) -> None:
        import openai

        self._openai = openai
        self._client = client
        self._url = url
        self._patience_s = patience_s

    async def submit(self, bodies: Mapping[str, dict[str, Any]], token: str) -> Batch:
        """Hands in one request a key, as a batch that bears the token.

        NoBatches where the server has no such endpoint; FailedPrecondition (BATCH_REFUSED) where it does not want it;
        Unavailable where it stays out of reach.
        """
        data = await asyncio.to_thread(_written, bodies)
        uploaded = await self._tried(
            lambda: self._client.files.create(file=(f"{token}.jsonl", data), purpose="batch"), absent=True
        )
        tries = 0

        async def create() -> Any:
            # A try that seemed to fail may have been heard.
            nonlocal tries
            tries += 1
            if tries > 1 and (known := await self._listed(token)):
                return known
            return await self._client.batches.create(
                input_file_id=uploaded.id, endpoint=_CHAT, completion_window="24h", metadata={_TOKEN: token}
            )

        return _batch(await self._tried(create, absent=True))

    async def find(self, token: str) -> Batch | None:
        """The batch that bears the token; None where there is none. NotFound where the server cannot list them."""
        try:
            found = await self._tried(lambda: self._listed(token), absent=True)
        except NoBatches as error:
            raise NotFound("NO_BATCH_LIST", error.message) from error
        return _batch(found) if found is not None else None

    async def look(self, batch: str) -> Batch:
        """Where it stands. NotFound where the server knows it no more."""
        try:
            return _batch(await self._tried(lambda: self._client.batches.retrieve(batch), absent=True))
        except NoBatches as error:
            raise NotFound("BATCH_GONE", f"{self._url} knows nothing of batch {batch} any more.") from error

    async def cancel(self, batch: str) -> None:
        """Asks the server to stop it. What it has answered by then is in its files, and charged."""
        try:
            await self._client.batches.cancel(batch)
        except self._openai.OpenAIError as error:  # it has ended, or the server is gone
            log.info("Batch %s could not be cancelled: %s", batch, error)

    async def answers(self, batch: Batch) -> list[Answer]:
        """All that its two files hold, whether it ended well or not. NotFound where the server has them no more."""
        found: list[Answer] = []
        for file in filter(None, (batch.output_file, batch.error_file)):
            try:
                content = await self._tried(functools.partial(self._client.files.content, file), absent=True)
            except NoBatches as error:
                raise NotFound("BATCH_GONE", f"{self._url} has the answers of batch {batch.id} no more.") from error
            found.extend(await asyncio.to_thread(_answers, content.text))
        return found

    async def _listed(self, token: str) -> Any:
        page = await self._client.batches.list(limit=100)
        for _ in range(_MOST_PAGES):
            for one in page.data:
                if (one.metadata or {}).get(_TOKEN) == token:
                    return one
            if not page.has_next_page():
                return None
            page = await page.get_next_page()
        return None

    async def _tried(self, call: Callable[[], Awaitable[T]], absent: bool = False) -> T:
        """The call's answer, tried again while the server fails; `absent`: a 404 means that there is no such thing."""
        began, wait = time.monotonic(), 0.5
        while True:
            try:
                return await call()
            except self._openai.APIStatusError as error:
                said = str(getattr(error, "message", "") or error)[:200]
                if absent and error.status_code in _ABSENT:
                    raise NoBatches(f"{self._url} takes no batches ({error.status_code}).") from None
                if error.status_code not in _PASSING and error.status_code < 500:
                    text = f"{self._url} refused a batch ({error.status_code}: {said})."
                    raise FailedPrecondition("BATCH_REFUSED", text) from None
                failure = f"it fails with {error.status_code}: {said}"
            except self._openai.APIConnectionError as error:
                failure = f"it is out of reach: {error}"
            if time.monotonic() + wait - began > self._patience_s:
                text = f"The batch endpoint of {self._url} does not serve ({failure}). What was handed in is kept there"
                raise Unavailable("LLM_UNREACHABLE", f"{text}: give the same command again to go on.") from None
            log.info("The batch endpoint of %s: %s. Trying again in %.1f s.", self._url, failure, wait)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(_LONGEST_WAIT_S, 2 * wait)


def _batch(given: Any) -> Batch:
    counts = given.request_counts
    errors = (given.errors.data if given.errors else None) or []
    why = "; ".join(f"{one.code or 'error'}: {one.message or ''}"[:200] for one in errors[:3])
    return Batch(
        given.id,
        given.status,
        (counts.completed + counts.failed) if counts else 0,
        counts.total if counts else 0,
        given.output_file_id or "",
        given.error_file_id or "",
        why,
    )


def _written(bodies: Mapping[str, dict[str, Any]]) -> bytes:
    """The requests as a batch's input file."""
    lines = (
        json.dumps({"custom_id": key, "method": "POST", "url": _CHAT, "body": body}, ensure_ascii=False)
        for key, body in bodies.items()
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _answers(text: str) -> list[Answer]:
    """What a batch's output or error file says; damaged lines are left out."""
    found = []
    for line in filter(str.strip, text.split("\n")):
        try:
            plain = json.loads(line)
            response, error = plain.get("response") or {}, plain.get("error") or {}
            body = response.get("body") or {}
            said = error.get("message") or error.get("code") or (body.get("error") or {}).get("message") or ""
            found.append(Answer(plain["custom_id"], int(response.get("status_code") or 0), body, str(said)[:200]))
        except (ValueError, LookupError, TypeError, AttributeError):
            log.warning("A line of a batch's file is damaged: %r", line[:80])
    return found
