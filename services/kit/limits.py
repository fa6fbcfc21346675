"""How fast: what keeps a client within a server's limits without knowing them beforehand.

Bucket          so much a minute; learns its figures from x-ratelimit-* headers
Rates           a request bucket and a token bucket, passed in order of arrival
retry_after     the delay that a refusal asks for

Several replicas, or programs, with one key share its limits without a word to each other: each sees in x-ratelimit-*
how much all of them have left, and slows down or speeds up by it (`Bucket`). A run that is told its rate
(`Allowance.requests_per_minute`) is given a share of it per part beforehand; the lower of the two holds. A server that
tells no figures is shared by refusals and latency alone (`concurrency`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

# How far a level read from a header moves our own count.
_TRUST = 0.2
# Share of a server's bucket that is left in it; the least of its rate that one client takes.
_RESERVE, _LEAST = 0.5, 0.02
# Seconds in which the reserve is built up: a short job would else leave a tenth of the limit unused for it.
_RESERVED_S = 20.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Bucket:
    """A token bucket: `per_minute` a minute (None: no limit known), a second's worth at once unless told more.

    Of a limit that a server tells, others may have a share: other replicas, other programs with the same key. All see
    the server's count, so they need not know of each other. Below `_RESERVE` of what the bucket holds each slows down
    by a factor, above it each speeds up by a step: what they have grows equal (Chiu and Jain, 1989), and the server's
    bucket stays between empty, where it refuses, and full, where it wastes.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        self.rate: float | None = None
        self.share = 1.0
        self._capacity = self._level = 0.0
        self._at = self._shared_at = self._refused_at = self._told_at = time.monotonic()
        if per_minute:
            self._resize(per_minute / 60, per_minute / 60)
            self._level = self._capacity

    def wait(self, cost: float) -> float:
        """Seconds until `cost` may pass. What exceeds the capacity passes when the bucket is full."""
        if self.rate is None:
            return 0.0
        self._refill()
        short = min(cost, self._capacity) - self._level
        return short / (self.rate * self.share) if short > 1e-9 else 0.0

    def take(self, cost: float) -> None:
        """Takes `cost`, if need be into debt; a negative cost gives back."""
        if self.rate is not None:
            self._refill()
            self._level = min(self._capacity, self._level - cost)

    def learn(self, limit: float, remaining: float, reset_s: float | None, refused: float | None = None) -> None:
        """What the server says: `limit` a minute, `remaining` now, full again in `reset_s`.

        `refused` is when (monotonic) the request was sent that the server would not take, None where it took it.
        """
        rate = limit / 60
        if rate <= 0:
            return
        known = self.rate is not None
        if remaining > 0 and reset_s is not None:
            # What remains and what flows in until it is full is all that it holds.
            self._resize(rate, min(limit, remaining + reset_s * rate))
        else:
            self._resize(rate, rate)
        if remaining <= 0 and reset_s is not None:
            remaining = max(-limit, min(0.0, self._capacity - reset_s * rate))  # it may be in debt
        if not known:
            self._level = remaining
            self._refused_at = self._told_at = time.monotonic()
            return
        # A count that starts anew each minute ends low, and that is no sign of others: then it is full again soon.
        left = max(remaining, self._capacity - (reset_s or 0.0) * rate) if reset_s is not None else remaining
        self._share_out(left, refused)
        # The figure is as old as the answer's last byte, or older: our own count is only drawn towards it.
        spare = remaining - self._reserve if remaining > 0 else remaining
        self._level += _TRUST * (spare - self._level)

    @property
    def _reserve(self) -> float:
        """What is left in the server's bucket; nothing of one that holds next to nothing."""
        built = min(1.0, (time.monotonic() - self._told_at) / _RESERVED_S)
        return _RESERVE * built * self._capacity if self._capacity >= 4 else 0.0

    def _share_out(self, left: float, refused: float | None) -> None:
        now = time.monotonic()
        self._refill()
        if refused is not None:
            # Those sent before the last slowing down say nothing new.
            if left <= 0.5 * self._capacity and refused > self._refused_at:
                self._refused_at = self._shared_at = now
                self.share = max(_LEAST, 0.7 * self.share)
        elif now - self._shared_at >= 0.2:
            self._shared_at = now
            if left < 0.75 * self._reserve:
                self.share = max(_LEAST, 0.95 * self.share)
            elif left >= self._reserve:
                self.share = min(1.0, self.share + 0.01)

    def _resize(self, rate: float, capacity: float) -> None:
        self._refill()
        # Headers round down, so a capacity read from them wavers: the largest seen at this rate is the true one.
        known = self._capacity if rate == self.rate else 1.0
        self._capacity = max(capacity, known, 1.0)
        self.rate = rate

    def _refill(self) -> None:
        now = time.monotonic()
        if self.rate is not None:
            self._level = min(self._capacity, self._level + (now - self._at) * self.rate * self.share)
        self._at = now


class Rates:
    """Requests and tokens a minute, together."""

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self.requests = Bucket(requests_per_minute)
        self.tokens = Bucket(tokens_per_minute)
        self._paused_until = 0.0
        self._turn = asyncio.Lock()

    async def enter(self, estimate: Callable[[], float]) -> None:
        """Waits until one request of `estimate()` tokens may be sent, first come, first served.

        The estimate is asked for when the request's turn has come, since it may be better known by then.
        """
        async with self._turn:
            while True:
                tokens = estimate()
                delay = max(self.requests.wait(1), self.tokens.wait(tokens), self._paused_until - time.monotonic())
                if delay <= 0:
                    break
                await asyncio.sleep(delay)
            self.requests.take(1)
            self.tokens.take(tokens)

    def pause(self, seconds: float) -> None:
        """Lets nothing pass for so long."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def learn(self, headers: Mapping[str, str], refused: float | None = None) -> bool:
        """Takes the figures from x-ratelimit-{limit,remaining,reset}-{requests,tokens}; whether there were any.

        `refused` is when (monotonic) the request was sent, where it was refused.
        """
        found = False
        for kind, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            limit, remaining = (_number(headers.get(f"x-ratelimit-{word}-{kind}")) for word in ("limit", "remaining"))
            if limit and remaining is not None:
                bucket.learn(limit, remaining, duration(headers.get(f"x-ratelimit-reset-{kind}", "")), refused)
                found = True
        return found


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds until the server wants to be asked again: retry-after-ms, else Retry-After (seconds or a date)."""
    exact = _number(headers.get("retry-after-ms"))
    if exact is not None:
        return max(0.0, exact / 1000)
    text = headers.get("retry-after", "")
    seconds = _number(text)
    if seconds is not None:
        return max(0.0, seconds)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def duration(text: str) -> float | None:
    """Seconds of "1.5s", "6m0s", "120ms" or "3"; None where it is none of these."""
    plain = _number(text)
    if plain is not None:
        return plain
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
