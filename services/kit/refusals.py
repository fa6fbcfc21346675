"""What it means where an OpenAI-compatible server gives no answer, in words that say what to do.

    Again       not now: try again after a while (raised, with the error to give up with)
    Means       the error for a status, a connection that failed, silence, and another protocol
    overflows   whether a refusal is about the prompt's length

The key is never in a message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from services.kit.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    P2MError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from services.kit.limits import retry_after

_CONTEXT = re.compile(r"context.{0,20}(length|window|size)|maximum context|exceed.{0,30}context|too many tokens", re.I)


class Again(Exception):
    """The request came to nothing this time. `kind` is refused, dropped, timeout, error or limited."""

    def __init__(self, kind: str, error: P2MError, after: float | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.error = error
        self.after = after

    @property
    def may_be_paid(self) -> bool:
        """Whether the server may have answered, and charged, without our seeing it."""
        return self.kind in ("dropped", "timeout")


@dataclass(frozen=True)
class Means:
    """The meaning of what a server at `url`, asked for `llm` with `key` ("": none), says in place of an answer."""

    url: str
    llm: str
    key: str

    @property
    def shown_url(self) -> str:
        """The URL without a user and a password that may be in it."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def no_connection(self, error: Exception) -> Again:
        cause = error.__cause__ or error
        refused = type(cause).__name__ in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol", "ProxyError")
        text = f"The LLM at {self.shown_url} is out of reach ({_first_line(cause) or type(cause).__name__})."
        advice = " Start it, or set OPENAI_BASE_URL to one that runs."
        if refused:
            return Again("refused", Unavailable("LLM_UNREACHABLE", text + advice))
        text = f"The LLM at {self.shown_url} dropped the connection before it answered."
        return Again("dropped", Unavailable("LLM_UNREACHABLE", text + " Look at that server's log."))

    def status(self, error: Any) -> Exception:
        """What an HTTP status means: Again, or an error that no second try mends."""
        status, headers, said = error.status_code, error.response.headers, self.said(error)
        at = f"The LLM at {self.shown_url}"
        if status == 429 and "insufficient_quota" not in _codes(error):
            text = f"{at} takes no more requests for now (429: {said}). Wait a while, or lower P2M_LLM_CONCURRENCY."
            return Again("limited", Unavailable("LLM_BUSY", text), retry_after(headers))
        if status == 429:
            text = f"{at}: the account has nothing left to spend (429: {said}). Add credit there, or use another LLM."
            return FailedPrecondition("LLM_QUOTA", text)
        if status in (401, 403):
            return self._wrong_key(status)
        if status in (408, 409, 425) or status >= 500:
            text = f"{at} fails ({status}: {said}). Look at that server's log, or try again later."
            return Again("error", Unavailable("LLM_FAILING", text), retry_after(headers))
        if status == 404:
            text = f"{at} knows no LLM {self.llm!r} (404: {said})."
            advice = " Set P2M_LLM to one that it serves, and look whether OPENAI_BASE_URL is right."
            return NotFound("LLM_UNKNOWN", text + advice, field="llm")
        if overflows(error):
            text = f"The prompt is longer than {self.llm} can read ({said})."
            advice = " Shorten it, or use an LLM with a larger context."
            return InvalidArgument("CONTEXT_OVERFLOW", text + advice, field="prompt")
        if status == 402:
            return PermissionDenied("LLM_QUOTA", f"{at} wants to be paid first (402: {said}).")
        return InvalidArgument("LLM_REFUSED", f"{at} refused the request ({status}: {said}).")

    def _wrong_key(self, status: int) -> P2MError:
        # What the server says often repeats a part of the key, so it is left out.
        if not self.key:
            text = f"The LLM at {self.shown_url} wants a key ({status}), and none is set. Set OPENAI_API_KEY."
        else:
            text = (
                f"The LLM at {self.shown_url} refused the key ({status}). Set OPENAI_API_KEY to one that is valid there"
                f" and may use {self.llm}, or OPENAI_BASE_URL to the server that it belongs to."
            )
        return Unauthenticated("WRONG_KEY", text)

    def silence(self, seconds: float) -> Again:
        """Nothing came for so long."""
        text = f"The LLM at {self.shown_url} did not answer within {seconds:g} s."
        advice = " Look whether it is overloaded, or set P2M_LLM_TIMEOUT_S higher."
        return Again("timeout", Unavailable("LLM_TIMEOUT", text + advice))

    def nonsense(self, text: str) -> Again:
        """A 200 that holds no chat completion."""
        return Again(
            "error",
            Unavailable(
                "LLM_PROTOCOL",
                f"{self.shown_url} does not answer as an OpenAI-compatible server does: it said {text[:80]!r}."
                " Look whether OPENAI_BASE_URL is right; it usually ends in /v1.",
            ),
        )

    def said(self, error: Any) -> str:
        """What the server wrote, without the key."""
        body = error.body if isinstance(error.body, dict) else {}
        said = str(body.get("message") or _first_line(error) or "no reason given")[:200]
        return said.replace(self.key, "***") if self.key else said


def overflows(error: Any) -> bool:
    """Whether the server refused a prompt that is too long for the LLM."""
    known = {"context_length_exceeded", "exceed_context_size_error"}
    return not known.isdisjoint(_codes(error)) or bool(_CONTEXT.search(str(error)))


def _codes(error: Any) -> set[str]:
    body = error.body if isinstance(error.body, dict) else {}
    return {str(body.get("code")), str(body.get("type"))}


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
