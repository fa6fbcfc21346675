"""Something that goes on for the length of a `with` block, and how it ended: ok, skipped, cancelled or failed.

Observed, NOTHING   what each of them is while all is off
Seen                one that is watched
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from services.kit.errors import P2MError
from services.kit.telemetry import metrics
from services.kit.telemetry.switch import Where, here, state

if TYPE_CHECKING:
    from services.kit.telemetry.spans import Attributes, Span
    from services.kit.values import Ledger


class Observed:
    """Something that goes on for the length of a `with` block. This one is what each of them is while all is off."""

    def __enter__(self) -> Observed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing."""

    def failed(self, code: str, reason: str) -> None:
        """It failed, though no exception says so."""

    def skipped(self) -> None:
        """It turned out to be of no use."""

    def waits(self) -> None:
        """It waits for a free slot."""

    def sends(self, response: Any) -> None:
        """It sends that to its caller, who goes when the result has come: that is no cancel then."""

    def answered(self, cost: Ledger) -> None:
        """The LLM answered, at this cost."""


NOTHING = Observed()


class Seen(Observed):
    """One with a span, where there is a trace.

    there       what goes on in the block
    parent      the span that it belongs to, as W3C Trace Context writes it; "" where there is none
    then        called with this and its seconds when it has ended
    kind        internal, client or server
    queue       the service that it may wait for
    """

    def __init__(
        self,
        name: str,
        there: Where,
        parent: str,
        attributes: Attributes,
        then: Callable[[Seen, float], None],
        kind: str = "internal",
        queue: str = "",
    ) -> None:
        self.outcome, self.code, self.reason, self.waiting, self._sent = "ok", "OK", "", False, False
        self._then, self._queue = then, queue
        self._began = time.monotonic()
        self._span: Span | None = None
        if state.spans is not None and parent:
            known = {"p2m.run": there.run, "p2m.stage": there.stage}
            given = {**{key: value for key, value in known.items() if value}, **attributes}
            self._span = state.spans.begin(name, there.service, parent, given, kind)
            there = replace(there, span=self._span)
        self._token = here.set(there)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is not None and self.outcome == "ok":
            self.failed(*_code_and_reason(error))
        with contextlib.suppress(ValueError):  # a generator may be closed by another task than began it
            here.reset(self._token)
        self._then(self, time.monotonic() - self._began)
        if self._span is not None:
            self._span.set({"p2m.outcome": self.outcome})
            self._span.end(self.reason if self.outcome == "failed" else "")

    def failed(self, code: str, reason: str) -> None:
        if self._sent and code == "CANCELLED":
            return
        self.outcome, self.code, self.reason = "cancelled" if code == "CANCELLED" else "failed", code, reason

    def skipped(self) -> None:
        self.outcome = "skipped"

    def waits(self) -> None:
        if not self.waiting:
            self.waiting = True
            metrics.CALLS_WAITING.add(1, self._queue)

    def sends(self, response: Any) -> None:
        events = response.DESCRIPTOR.oneofs_by_name.get("event")
        self._sent |= events is not None and response.WhichOneof("event") == "result"

    def answered(self, cost: Ledger) -> None:
        self.outcome = "invalid" if cost.invalid else "ok"
        if self._span is not None:
            self._span.set(
                {"gen_ai.usage.input_tokens": cost.prompt_tokens, "gen_ai.usage.output_tokens": cost.completion_tokens}
            )


def _code_and_reason(error: BaseException) -> tuple[str, str]:
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "CANCELLED", "CANCELLED"
    if isinstance(error, P2MError):
        return error.code, error.reason
    return "UNKNOWN", type(error).__name__
