"""How many examples the next request asks for, and whether there is to be one.

    Pace        size: of the next request, 0 for none now; sent, answered: what became of it

Several examples in a request share its prompt; but one request of many makes the last wait long, and a small LLM loses
the thread. So requests get smaller as the end comes near (guided self-scheduling, Polychronopoulos and Kuck, 1987), the
first are small too, since their answers tell how fast the LLM is and give later ones something to differ from, and
they end where one example more no longer pays: where it is so often unusable or repeated that it brings less than the
average of the request, its prompt counted as one example.

How many are still needed is a forecast: what is missing, by the share that was new so far, less what is under way.
While all that comes is new, the forecast is exact, and which requests are sent depends on the number alone: a request
that was lost in a crash is sent again at its own size. With repeats, it depends on what was known when one was sent,
and a few examples may be surplus.
"""

from __future__ import annotations

import math

EXAMPLES_PER_REQUEST = 5

# So many requests' worth of places are kept for the end: more makes the requests smaller earlier.
_EVENNESS = 1.4
# By the time that all places are taken, requests may ask for so many examples more than the first did.
_FIRST_SHARE = 8
# More places than these are no reason for smaller requests: each costs its prompt again, and gains little time.
_MOST_PLACES = 64
# What one believes before there are answers: so many examples were all new.
_PRIOR = 10.0
_PLACE_PRIOR = 2.0
_LEAST_SHARE = 0.2
# Seconds that an answer may take at a server with a rate limit: places beyond the limit's answers are no use.
_ANSWER_S = 4.0
# Examples in a row that brought nothing before generation is given up: a tenth of the number, at least this many.
_DRY = 50


class Pace:
    """Requests for `number` examples, at most `most` in one."""

    def __init__(self, number: int, most: int) -> None:
        self.answers = 0
        self.read = 0
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
        if self._since_new >= self._patience:
            return 0
        needed = math.ceil((self._number - kept) / self._share(kept)) - self._under_way
        if kept >= self._number or needed <= 0:
            return 0
        places = min(places, _MOST_PLACES)
        if per_second is not None:
            places = min(places, max(1, math.ceil(per_second * _ANSWER_S)))
        even = _even(slot, max(needed, self._left_for(slot, places)), places)
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

    def _left_for(self, slot: int, places: int) -> int:
        while len(self._left) <= slot:
            left = self._left[-1]
            size = min(left, _even(len(self._left) - 1, left, places), len(self._asked_at))
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


def _even(slot: int, needed: int, places: int) -> int:
    """The size of request `slot` with which `places` at once come to an end together; small for the first ones."""
    return min(math.ceil(_EVENNESS * needed / max(1, places)), 1 + _FIRST_SHARE * slot // max(1, places))
