"""How fast and how many at once: what keeps a client within a server's limits without knowing them beforehand.

Bucket          so much a minute; learns its figures from x-ratelimit-* headers
Rates           a request bucket and a token bucket, passed in order of arrival
Concurrency     how many requests are in flight: by refusals and by latency
retry_after     the delay that a refusal asks for

Several replicas, or programs, with one key share its limits without a word to each other: each sees in x-ratelimit-*
how much all of them have left, and slows down or speeds up by it (`Bucket`). A run that is told its rate
(`Allowance.requests_per_minute`) is given a share of it per part beforehand; the lower of the two holds. A server that
tells no figures is shared by refusals and latency alone (`Concurrency`).
"""

from __future__ import annotations

import asyncio
import itertools
import re
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

# Latencies whose median is compared: fewer waver too much, more come too late.
_SAMPLE = 8
# An answer that took no more than so many times its usual time did not wait for others.
_UNHINDERED = 1.5
# Questions in flight before anything is known of a server.
UNTRIED = 16
# How far a level read from a header moves our own count.
_TRUST = 0.2
# Share of a server's bucket that is left in it; the least of its rate that one client takes.
_RESERVE, _LEAST = 0.5, 0.02
_Answer = tuple[float, int]  # seconds, tokens
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
        self._at = self._shared_at = self._refused_at = time.monotonic()
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
            self._level, self._refused_at = remaining, time.monotonic()
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
        return _RESERVE * self._capacity if self._capacity >= 4 else 0.0

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


class Concurrency:
    """How many requests may be in flight: from `start` up to `most`, by what the server can bear.

    A server that refuses narrows it to 0.7 of what it was, once a round trip, and from then on each answer widens it by
    1/window, which is one a round trip (Chiu and Jain, 1989).

    A server that queues in silence tells by its latency. Answers are kept by their load, which is how many were in
    flight when they were sent: those of the lightest loads give the time of an answer that did not wait, a part of it
    for each of its tokens. Only they move it, lest a queue be taken for the rule. Until a queue was met, four times as
    many are sent as were served without a wait, once nearly all were: of many sent at once, a server without a queue
    answers early and late ones first, one with a queue the early ones. From then on the window is twice what is served
    at once, by Little's law: load * time without waiting / time. So as many wait as are served: the server is never
    idle, nobody waits for long (after BBR, Cardwell et al., 2016).
    """

    def __init__(self, most: int, start: int = UNTRIED) -> None:
        self.most = most
        self.in_flight = 0
        self._window = float(min(start, most))
        self._refused = self._queued = self._widened = False
        self._narrowed_at = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._by_load: dict[str, dict[int, deque[_Answer]]] = defaultdict(lambda: defaultdict(lambda: deque(maxlen=8)))
        self._recent: deque[tuple[float, int]] = deque(maxlen=_SAMPLE)  # growth of the latency; load

    @property
    def window(self) -> int:
        return max(1, int(self._window))

    @property
    def at_once(self) -> int | None:
        """How many the server serves at once, as far as its answers tell; None while no end of it was found."""
        if self._queued:
            return max(1, round(self._window / 2))
        untried = not self._widened and self._window < self.most
        return max(1, self._served_without_a_wait()) if self._recent and untried else None

    def try_with(self, number: int) -> int:
        """Lets so many be sent while nothing is known of the server. How many these are; 0 where something is known."""
        if self._by_load or self._refused or self._queued:
            return 0
        self._window = max(self._window, float(min(number, self.most)))
        self._admit()
        return number

    def narrow_to(self, most: int) -> None:
        """The server queues what is beyond half of `most`: never more than `most` from now on."""
        self.most = min(self.most, most)
        self._window = min(self._window, self.most)
        self._queued = True

    async def enter(self) -> None:
        if self.in_flight < self.window and not self._waiting:
            self.in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place was given in the very moment
            raise

    def leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def answered(self, kind: str, seconds: float, load: int, tokens: int = 0) -> None:
        """An answer of so many tokens came after so many seconds, sent as the `load`th in flight.

        Latencies of one kind are compared.
        """
        self._by_load[kind][load.bit_length()].append((seconds, tokens))
        growth = seconds / max(self._unhindered(kind, tokens), 1e-6)
        # The first of its kind is like itself alone; those sent before a narrowing came into a queue that is being mended.
        compared = sum(map(len, self._by_load[kind].values())) > 1
        if compared and time.monotonic() - seconds >= self._narrowed_at:
            self._recent.append((growth, load))
        if self.in_flight >= self.window:
            self._widen()
        self._narrow_to_a_short_queue()
        self._admit()

    def refused(self, sent_at: float) -> None:
        """A request sent at `sent_at` (monotonic) was refused or timed out."""
        if sent_at > self._narrowed_at:  # those sent before the last decrease say nothing new
            self._refused = True
            self._narrow(0.7 * min(self._window, self.in_flight))

    def _unhindered(self, kind: str, tokens: int) -> float:
        """Seconds of an answer of so many tokens that did not wait for others.

        That is the lowest mean over the answers of the lightest loads, each brought to that length.
        """
        by_load = [list(sample) for _, sample in sorted(self._by_load[kind].items())]
        lightest = list(itertools.accumulate(by_load))
        each = _per_token(next((some for some in lightest if len(some) >= _SAMPLE), []))
        enough = [some for some in lightest if len(some) >= _SAMPLE // 2] or lightest[-1:]
        fixed = min(statistics.fmean(seconds - each * length for seconds, length in some) for some in enough)
        return max(0.0, fixed) + each * tokens

    def _served_without_a_wait(self) -> int:
        """The heaviest load of late whose answer did not wait."""
        return max((load for growth, load in self._recent if growth < _UNHINDERED), default=0)

    def _widen(self) -> None:
        unhindered = self._served_without_a_wait()
        if not self._refused and not self._queued:
            wider = 4.0 * unhindered if 1.5 * unhindered >= self._window else 0.0
        elif len(self._recent) < _SAMPLE // 2:
            return
        elif self._refused:
            wider = self._window + 1.0 / self._window if self._growth() < 2 else 0.0
        else:
            wider = 2 * self._served()
        self._widened |= wider > self._window
        self._window = max(self._window, min(self.most, wider))

    def _narrow_to_a_short_queue(self) -> None:
        if len(self._recent) == _SAMPLE and self._growth() > 2.5 and 2 * self._served() < self._window:
            self._queued = True
            self._narrow(2 * self._served())

    def _growth(self) -> float:
        """Of the latency, over that of answers that did not wait."""
        return statistics.median(growth for growth, _ in self._recent)

    def _served(self) -> float:
        """How many the server serves at once, by the last answers."""
        return statistics.median(load / max(growth, 1e-6) for growth, load in self._recent)

    def _narrow(self, window: float) -> None:
        self._window = max(1.0, window)
        self._recent.clear()
        for sample in self._by_load.values():  # of heavier loads nothing new will be heard for long
            for heavier in [bits for bits in sample if 1 << bits > 2 * self._window]:
                del sample[heavier]
        self._narrowed_at = time.monotonic()

    def _admit(self) -> None:
        while self._waiting and self.in_flight < self.window:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)


def _per_token(answers: list[_Answer]) -> float:
    """The seconds that each token more takes, by least squares; 0 for answers of about one length."""
    seconds, tokens = [one for one, _ in answers], [one for _, one in answers]
    if not answers or max(tokens) <= 1.5 * min(tokens):
        return 0.0
    most = statistics.fmean(seconds) / statistics.fmean(tokens)
    return min(most, max(0.0, statistics.linear_regression(tokens, seconds).slope))


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
