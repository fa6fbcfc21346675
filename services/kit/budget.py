"""Money as a contract: a request is paid for from an allowance before it is sent.

Budget      reserve before, settle after; what is in flight counts as spent until it is settled
"""

from __future__ import annotations

import asyncio
import math

from services.kit.errors import BudgetExhausted
from services.kit.prices import Price
from services.kit.values import Allowance, Ledger

# How many times its reservation an answer is thought to take at most, before there is one; and how many times what the
# worst one took, where that was more than its reservation.
_CAUTION, _MARGIN = 4.0, 1.25
_TOGETHER = 1.5


class Budget:
    """One request's allowance and what was spent of it."""

    def __init__(self, allowance: Allowance, price: Price) -> None:
        self.allowance = allowance
        self.price = price
        self.spent = Ledger()
        self._reserved = Ledger()
        self._growth: float | None = None  # how many times its reservation an answer took; None before the first one
        self._settled = asyncio.Event()

    async def reserve(self, prompt_tokens: int, completion_tokens: int) -> Ledger:
        """Sets aside one request of at most so many tokens.

        Where only what others have set aside stands in the way, waits until they have settled. BudgetExhausted when the
        request does not fit what is left. A server may count more tokens than were foreseen: what is set aside counts
        by what the worst answer took of its reservation, and fourfold before there is an answer.
        """
        wanted = self.cost(prompt_tokens, completion_tokens)
        while True:
            if short := self._short(self.spent + _times(wanted, self._growth or 1.0)):
                raise BudgetExhausted(short)
            ahead = self._reserved + wanted
            alone = not self._reserved.requests
            if alone or not self._short(self.spent + _times(ahead, self._growth or _CAUTION)):
                self._reserved = ahead
                return wanted
            self._settled.clear()
            await self._settled.wait()

    def reserve_now(self, prompt_tokens: int, completion_tokens: int, price: Price) -> Ledger:
        """Sets aside one request at `price`; BudgetExhausted where it does not fit what is left and not set aside.

        It is one of many that go out together: where answers take more than was foreseen, nothing can be made good
        until all are there, so half as much again is reckoned with.
        """
        wanted = self.cost(prompt_tokens, completion_tokens, price)
        ahead = self._reserved + wanted
        growth = self._growth or (_CAUTION if self._reserved.requests else 1.0)
        if self._growth and growth > 1:
            growth *= _TOGETHER
        if short := self._short(self.spent + _times(ahead, growth)):
            raise BudgetExhausted(short)
        self._reserved = ahead
        return wanted

    def settle(self, reserved: Ledger, spent: Ledger) -> None:
        """Gives back what was set aside and books what was really spent (Ledger() where nothing was)."""
        self._reserved += Ledger(
            -reserved.requests, -reserved.prompt_tokens, -reserved.completion_tokens, -reserved.dollars
        )
        if spent.requests:
            growth = _growth(reserved, spent)
            self._growth = max(self._growth or 1.0, _MARGIN * growth if growth > 1 else 1.0)
        self.spent += spent
        self._settled.set()

    def cost(self, prompt_tokens: int, completion_tokens: int, price: Price | None = None) -> Ledger:
        """The ledger of one request of so many tokens, at `price` where it is another than the usual one."""
        dollars = (price or self.price).dollars(prompt_tokens, completion_tokens)
        return Ledger(1, prompt_tokens, completion_tokens, dollars)

    def _short(self, total: Ledger) -> str:
        """Why `total` is more than is allowed; "" where it is not."""
        allowed = self.allowance
        tokens = total.prompt_tokens + total.completion_tokens
        used = self.spent.prompt_tokens + self.spent.completion_tokens
        if allowed.requests is not None and total.requests > allowed.requests:
            return _spent("requests", allowed.requests, self.spent.requests)
        if allowed.tokens is not None and tokens > allowed.tokens:
            return _spent("tokens", allowed.tokens, used)
        # Sums of floats: a billionth of a dollar more is no overrun.
        if allowed.dollars is not None and (allowed.dollars <= 0 or total.dollars > allowed.dollars + 1e-9):
            return _spent("dollars", allowed.dollars, self.spent.dollars)
        return ""


def _times(ledger: Ledger, factor: float) -> Ledger:
    """So many requests whose tokens and dollars are `factor` times as many."""
    prompt, completion = math.ceil(factor * ledger.prompt_tokens), math.ceil(factor * ledger.completion_tokens)
    return Ledger(ledger.requests, prompt, completion, factor * ledger.dollars)


def _growth(reserved: Ledger, spent: Ledger) -> float:
    """How many times its reservation an answer took, in tokens or dollars."""
    tokens = reserved.prompt_tokens + reserved.completion_tokens
    return max(
        (spent.prompt_tokens + spent.completion_tokens) / max(1, tokens),
        spent.dollars / reserved.dollars if reserved.dollars else 0.0,
    )


def _spent(kind: str, allowed: float, used: float) -> str:
    return (
        f"The allowance of {allowed:g} {kind} does not pay for another request to the LLM ({used:.4g} spent so far)."
        " Raise the budget and run the same command again: what was paid for is kept."
    )
