"""How many examples the next request asks for, and whether there is to be one.

    Pace        size: of the next request, 0 for none now; sent, answered: what became of it

Several examples in a request share its prompt; but one request of many makes the last wait long, and a small LLM loses
the thread. So requests get smaller as the end comes near (guided self-scheduling, Polychronopoulos and Kuck, 1987), and
they end where one example more no longer pays: where it is so often unusable or repeated that it brings less than the
average of the request, its prompt counted as one example.

What is sent while nobody knows how many the server works on at once should serve either case: large requests, since
many small ones would keep a server with few places busy for long; and after them a few for one example, since a server
with many places answers these first, and so tells that it has them. The others wait for the first answers.

How many are still needed is a forecast: what is missing, by the share that was new so far, less what is under way.
While all that comes is new, the forecast is exact, and which requests are sent depends on the number and the places
alone: a request that was lost in a crash is sent again at its own size. With repeats, it depends on what was known when
one was sent, and a few examples may be surplus; where places are free, some are asked for on purpose, so that the
slowest answers need not be waited for.
"""

from __future__ import annotations

import math

from services.kit.concurrency import UNTRIED

EXAMPLES_PER_REQUEST = 5

# So many requests' worth of places are kept for the end: more makes the requests smaller earlier.
_EVENNESS = 1.4
# The first requests: at most so many, for half of the number; the last of them are for one example.
_MOST_FIRST, _FIRST_SHARE, _LAST_OF_FIRST = 40, 0.5, 6
# More places than these are no reason for smaller requests: each costs its prompt again, and gains little time.
_MOST_PLACES = 64
# What one believes before there are answers: so many examples were all new.
_PRIOR = 10.0
_PLACE_PRIOR = 2.0
_LEAST_SHARE = 0.2
# To spare, in standard deviations of the number of new ones.
_SPARE = 2.0
# At a server with a rate limit, so many seconds' requests count as places: fewer, larger ones are through sooner.
_ANSWER_S = 1.0
# Examples in a row that brought nothing before generation is given up: a tenth of the number, at least this many.
_DRY = 50


class Pace:
    """Requests for `number` examples, at most `most` in one; of `places` at once, where they turn out to be there."""

    def __init__(self, number: int, most: int, places: int = 1) -> None:
        self.answers = 0
        self.read = 0
        self.first = 0
        self._first_size = min(most, 3 + number // 100)
        if places > UNTRIED:
            large = math.ceil(_FIRST_SHARE * number / self._first_size)
            self.first = min(_MOST_FIRST, large + _LAST_OF_FIRST)
        self._number = number
        self._under_way = 0
        self._since_new = 0
        self._patience = max(_DRY, number // 10)
        self._left = [number]  # by slot: what would be left for it and those after it, were all new
        self._asked_at = [0] * most
        self._new_at = [0] * most

    def size(
        self, slot: int, kept: int, places: int, per_second: float | None = None, requests_left: int | None = None
    ) -> int:
        """Examples to ask for in request `slot`; 0 where what is under way may do, or nothing new comes any more.

        `places` requests can be under way at once, `per_second` of them sent where there is a limit, and
        `requests_left` paid for.
        """
        if kept >= self._number or self._since_new >= self._patience:
            return 0
        share = self._share(kept)
        needed = math.ceil((self._number - kept) / share) - self._under_way
        if places > UNTRIED and per_second is None and requests_left is None:
            needed += math.ceil(_SPARE * math.sqrt((self._number - kept) * (1 - share)) / share)
        if needed <= 0 or (slot >= self.first > 0 and not self.answers):
            return 0
        places = min(places, _MOST_PLACES)
        if per_second is not None:
            places = min(places, max(1, math.ceil(per_second * _ANSWER_S)))
        even = self._even(slot, max(needed, self._left_for(slot, places)), places)
        if requests_left is not None:
            even = max(even, math.ceil(_EVENNESS * needed / max(1, requests_left)))
        return min(needed, even, self._most_that_pays())

    def sent(self, size: int) -> None:
        """A request for `size` examples is under way."""
        self._under_way += size

    def ended(self, size: int) -> None:
        """It is no longer, whatever came of it."""
        self._under_way -= size

    def answered(self, size: int, new: list[bool]) -> None:
        """An answer to a request for `size` examples: which of those that could be read were new, in their order."""
        self.answers += 1
        self.read += size
        for place in range(min(size, len(self._asked_at))):
            self._asked_at[place] += 1
            self._new_at[place] += place < len(new) and new[place]
        self._since_new = 0 if any(new) else self._since_new + size

    def _even(self, slot: int, needed: int, places: int) -> int:
        """The size of request `slot` with which `places` at once come to an end together."""
        if slot < self.first:
            return 1 if slot >= self.first - _LAST_OF_FIRST else self._first_size
        # Later ones have something to differ from.
        return math.ceil(_EVENNESS * needed / max(1, places)) if slot else 1

    def _left_for(self, slot: int, places: int) -> int:
        while len(self._left) <= slot:
            left = self._left[-1]
            size = min(left, self._even(len(self._left) - 1, left, places), len(self._asked_at))
            self._left.append(left - size)
        return self._left[slot]

    def _share(self, kept: int) -> float:
        """The share of what was asked for that was new."""
        # The first answers repeat each other most: they alone would have too many asked for.
        prior = max(_PRIOR, self._number / 20)
        return max(_LEAST_SHARE, (min(kept, self.read) + prior) / (self.read + prior))

    def _most_that_pays(self) -> int:
        """The size at which a request brings most new examples for its length, the prompt counted as one."""
        best, best_rate, total = 1, 0.0, 0.0
        for size, (asked, new) in enumerate(zip(self._asked_at, self._new_at, strict=True), 1):
            total += (new + _PLACE_PRIOR) / (asked + _PLACE_PRIOR)
            if total / (1 + size) >= best_rate:
                best, best_rate = size, total / (1 + size)
        return best
