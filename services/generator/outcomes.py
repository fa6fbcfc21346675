"""What became of the money: kept, surplus, duplicate, invalid, lost, planning, judging. Together they are the ledger.

An answer's examples end differently, and how one ends may be known only at the end, when near duplicates are grouped.
So the cost of all answers that could be read is shared evenly among their examples. What could not be read, and what
was lost, is known to the cent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from services.generator.values import Outcome
from services.kit.llm import Session
from services.kit.values import Ledger

NAMES = ("kept", "surplus", "duplicate", "invalid", "lost", "planning", "judging")
_REPEATS = ("duplicate", "near_duplicate", "excluded", "copied_demonstration")


def of(session: Session, kept: int, dropped: Mapping[str, int]) -> tuple[Outcome, ...]:
    """The outcomes that there were, in the order of NAMES. `dropped` counts examples left out by reason."""
    usable, unreadable = session.costs("examples/")
    planning = sum(session.costs("attributes"), Ledger())
    judging = sum(session.costs("judge/"), Ledger())
    known = usable + unreadable + planning + judging
    counts = {"kept": kept, "surplus": dropped.get("surplus", 0), "duplicate": sum(dropped.get(r, 0) for r in _REPEATS)}
    counts["invalid"] = sum(dropped.values()) - counts["surplus"] - counts["duplicate"]
    # Answers that held no example at all were of no use either.
    read = sum(counts.values()) or 1
    shares = {name: count / read for name, count in counts.items()} if sum(counts.values()) else {"invalid": 1.0}
    found = {name: _part(usable, shares.get(name, 0.0), name, counts.get(name, 0)) for name in NAMES}
    found["invalid"] = _plus(found["invalid"], unreadable)
    found["lost"] = _plus(found["lost"], _less(session.ledger, known))
    found["planning"] = _plus(found["planning"], planning)
    found["judging"] = _plus(found["judging"], judging)
    return tuple(one for one in found.values() if one.requests > 0 or one.examples)


def _part(cost: Ledger, share: float, name: str, examples: int) -> Outcome:
    return Outcome(
        name, examples, cost.requests * share, cost.prompt_tokens * share, cost.completion_tokens * share,
        cost.dollars * share,
    )  # fmt: skip


def _plus(one: Outcome, cost: Ledger) -> Outcome:
    return replace(
        one,
        requests=one.requests + cost.requests,
        prompt_tokens=one.prompt_tokens + cost.prompt_tokens,
        completion_tokens=one.completion_tokens + cost.completion_tokens,
        dollars=one.dollars + cost.dollars,
    )


def _less(total: Ledger, known: Ledger) -> Ledger:
    return Ledger(
        total.requests - known.requests,
        total.prompt_tokens - known.prompt_tokens,
        total.completion_tokens - known.completion_tokens,
        max(0.0, total.dollars - known.dollars),
    )
