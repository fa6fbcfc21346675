"""How many at once: what keeps a client from flooding a server that does not tell what it can bear.

Concurrency     how many requests are in flight: by refusals and by latency
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections import defaultdict, deque

# Latencies whose median is compared: fewer waver too much, more come too late.
_SAMPLE = 8
# An answer that took no more than so many times its usual time did not wait for others.
_UNHINDERED = 1.5
# Questions in flight before anything is known of a server.
UNTRIED = 16

_Answer = tuple[float, int]  # seconds, tokens


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
        # The first of its kind can be compared with nothing; those sent before a narrowing came into a queue that ends.
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
