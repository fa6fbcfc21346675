"""Leases out of a run's budget: stages that run at the same time get disjoint ones, so that none can overrun it.

A stage that runs alone may have all that is left. The three at the same time share what parsing left, and a part of it
is held back for the evaluation; what they do not spend flows back, since the evaluation's lease is what is left then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.kit.values import Allowance, Ledger

# Generation is where the money goes; a search needs a handful of requests.
SHARES = {"datasets": 0.15, "models": 0.05, "generate": 0.65, "evaluate": 0.15}


def left(budget: Allowance, spent: Iterable[Ledger]) -> Allowance:
    """The budget less what was spent, never below 0."""
    total = sum(spent, Ledger())
    return Allowance(
        requests=None if budget.requests is None else max(0, budget.requests - total.requests),
        tokens=None if budget.tokens is None else max(0, budget.tokens - total.prompt_tokens - total.completion_tokens),
        dollars=None if budget.dollars is None else max(0.0, budget.dollars - total.dollars),
        requests_per_minute=budget.requests_per_minute,
        tokens_per_minute=budget.tokens_per_minute,
    )


def split(budget: Allowance, weights: Mapping[str, float]) -> dict[str, Allowance]:
    """Disjoint leases by weight; together they are at most the budget. Whole numbers go to the heaviest first."""
    names = sorted(weights, key=lambda name: -weights[name])
    total = sum(weights.values())
    shares = {name: weights[name] / total for name in names}

    def whole(amount: int | None, least: int) -> dict[str, int | None]:
        if amount is None:
            return dict.fromkeys(names)
        parts = {name: int(amount * shares[name]) for name in names}
        # A share that rounds to nothing still gets one, where the heaviest can spare it.
        for name in reversed(names[1:]):
            if parts[name] < least <= parts[names[0]] - least:
                parts[names[0]] -= least - parts[name]
                parts[name] = least
        parts[names[0]] += amount - sum(parts.values())
        return {**parts}

    requests, tokens = whole(budget.requests, 1), whole(budget.tokens, 0)
    request_rate, token_rate = whole(budget.requests_per_minute, 1), whole(budget.tokens_per_minute, 1)
    return {
        name: Allowance(
            requests=requests[name],
            tokens=tokens[name],
            dollars=None if budget.dollars is None else budget.dollars * shares[name],
            requests_per_minute=request_rate[name],
            tokens_per_minute=token_rate[name],
        )
        for name in names
    }
