"""The verdict: ship, do not ship, or not enough evidence, why, and how many more test rows would settle it.

It rests on exact match, and on the paired intervals of the student less each other contestant:

    SHIP                   better than base and nearest neighbour (the interval is above 0) and, where the teacher was
                           measured on enough rows, not below it by more than the margin (the interval is above -margin)
    DO_NOT_SHIP            even at an interval's upper end not better by a point, or below the teacher by more than the
                           margin
    NOT_ENOUGH_EVIDENCE    the intervals do not say, or there are fewer than 20 rows, or nobody to compare with

Several comparisons are made at once. To ship all of them must hold, so the chance that a wrong one slips through is no
greater than in a single comparison (an intersection-union test: Berger, 1982). One that fails is enough not to ship, so
for that the intervals are widened (Bonferroni). Against the teacher the interval is widened too: where the student
mostly loses the rows in which they differ, that interval alone lets through 4 of 100 that are at the margin
(`python -m bench.verdict`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from services.evaluator.values import Comparison, Verdict

METRIC = "exact_match"
ENOUGH_ROWS = 20
# In points of exact match; a gain that is smaller even at the interval's upper end is none.
NEGLIGIBLE = 1.0
# The chance that the rows asked for settle the verdict, if the difference is what it seems.
POWER = 0.8
MOST_ROWS = 100_000
_TWO_SIDED = 0.05
_TEACHER_TWO_SIDED = 0.025


@dataclass(frozen=True)
class Judgement:
    """The verdict and its reason; `more_rows`: how many more test rows would probably settle it, 0 where it is settled
    or no number up to 100,000 would."""

    verdict: Verdict
    reason: str
    more_rows: int = 0


def judge(comparisons: Sequence[Comparison], rivals: Sequence[str], teacher: str, margin: float) -> Judgement:
    """The verdict and its reason.

    `rivals` are the names of those whom the student must beat (base, nearest neighbour), `teacher` of the one it may be
    `margin` points below, "" where there is none.
    """
    found = {comparison.against: comparison for comparison in comparisons if comparison.metric == METRIC}
    beaten = [found[name] for name in rivals if name in found]
    if not beaten:
        return Judgement(
            Verdict.NOT_ENOUGH_EVIDENCE,
            "There is neither a base nor a nearest neighbour to compare the student with.",
        )
    few = min(comparison.rows for comparison in beaten)
    if few < ENOUGH_ROWS:
        return Judgement(
            Verdict.NOT_ENOUGH_EVIDENCE,
            f"The verdict would rest on {few} test rows; wanted at least {ENOUGH_ROWS}: {ENOUGH_ROWS - few} more.",
            ENOUGH_ROWS - few,
        )
    measured = [found[teacher]] if teacher in found and found[teacher].rows >= ENOUGH_ROWS else []
    compared = [*beaten, *measured]

    def floor(one: Comparison) -> float:
        """The difference that the student must exceed to ship."""
        return -margin if one.against == teacher else 0.0

    def hope(one: Comparison) -> float:
        """The difference that it must possibly reach to have a chance."""
        return -margin if one.against == teacher else NEGLIGIBLE

    def doubt(one: Comparison) -> float:
        return _TEACHER_TWO_SIDED if one.against == teacher else _TWO_SIDED

    hopeless = [one for one in compared if _high(one, _TWO_SIDED / len(compared)) < hope(one)]
    if hopeless:
        return Judgement(Verdict.DO_NOT_SHIP, _reason(hopeless, teacher, margin))
    unclear = [one for one in compared if _low(one, doubt(one)) <= floor(one)]
    if not unclear:
        return Judgement(Verdict.SHIP, _reason(compared, teacher, margin))
    above = [_rows_to_settle(one, one.difference.value - floor(one), doubt(one)) for one in unclear]
    below = [_rows_to_settle(one, hope(one) - one.difference.value, _TWO_SIDED / len(compared)) for one in unclear]
    # All must turn out better to ship; a single one that does not is enough not to.
    needed = min(max(above), *below)
    by = unclear[above.index(max(above))] if needed == max(above) else unclear[below.index(needed)]
    more = math.ceil(needed) - by.rows if needed <= MOST_ROWS else 0
    told = _more_text(more, by, teacher, few)
    return Judgement(Verdict.NOT_ENOUGH_EVIDENCE, f"{_reason(unclear, teacher, margin)} {told}", more)


def _rows_to_settle(one: Comparison, distance: float, doubt: float) -> float:
    """Rows with which the interval would probably exclude a value that is `distance` points from the difference.

    From the spread of the paired differences that the interval shows: the usual formula for the size of a paired test,
    rows = ((z of the interval + z of the power) * spread / distance)^2.
    """
    if distance <= 0:
        return math.inf
    half = (one.difference.high - one.difference.low) / 2
    factor = (_z(doubt) + NormalDist().inv_cdf(POWER)) / _z(_TWO_SIDED)
    # An interval may miss by a hair; then one row more is still the least that can be asked for.
    return max(one.rows * (factor * half / distance) ** 2, one.rows + 1.0)


def _low(one: Comparison, doubt: float) -> float:
    return one.difference.value - (one.difference.value - one.difference.low) * _z(doubt) / _z(_TWO_SIDED)


def _high(one: Comparison, doubt: float) -> float:
    return one.difference.value + (one.difference.high - one.difference.value) * _z(doubt) / _z(_TWO_SIDED)


def _z(two_sided: float) -> float:
    return NormalDist().inv_cdf(1 - two_sided / 2)


def _more_text(more: int, by: Comparison, teacher: str, rows: int) -> str:
    who = by.against.replace("_", " ")
    if not more:
        return f"The difference against {who} is so small that {MOST_ROWS:,} test rows would hardly settle it."
    # Two digits: it is an estimate from an estimate.
    digits = max(0, len(str(more)) - 2)
    told = f"{math.ceil(more / 10**digits) * 10**digits:,}"
    if by.against == teacher and by.rows + more <= rows:
        return f"About {told} more rows answered by the {who} would probably settle it."
    return f"About {told} more test rows would probably settle it, if the difference against {who} is what it seems."


def _reason(comparisons: Sequence[Comparison], teacher: str, margin: float) -> str:
    """ "Exact match: +41.3 points against base (95 % interval +35.0 to +47.2, 300 rows)." """
    told = ", ".join(
        f"{one.difference.value:+.1f} points against {one.against.replace('_', ' ')} "
        f"(95 % interval {one.difference.low:+.1f} to {one.difference.high:+.1f}, {one.rows} rows)"
        for one in comparisons
    )
    allowed = f"; up to {margin:g} below the {teacher} are accepted" if comparisons[-1].against == teacher else ""
    return f"Exact match of the student: {told}{allowed}."
