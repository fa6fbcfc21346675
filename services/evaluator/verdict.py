"""The verdict: ship, do not ship, or not enough evidence, and why, in one line.

It rests on exact match, and on the paired intervals of the student less each other contestant:

    SHIP                   better than base and nearest neighbour (the interval is above 0) and, where the teacher was
                           measured on enough rows, not below it by more than the margin (the interval is above -margin)
    DO_NOT_SHIP            even at an interval's upper end not better by a point, or below the teacher by more than the
                           margin
    NOT_ENOUGH_EVIDENCE    the intervals do not say, or there are fewer than 20 rows, or nobody to compare with
"""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.values import Comparison, Verdict

METRIC = "exact_match"
ENOUGH_ROWS = 20
# In points of exact match; a gain that is smaller even at the interval's upper end is none.
NEGLIGIBLE = 1.0


def judge(comparisons: Sequence[Comparison], rivals: Sequence[str], teacher: str, margin: float) -> tuple[Verdict, str]:
    """The verdict and its reason.

    `rivals` are the names of those whom the student must beat (base, nearest neighbour), `teacher` of the one it may be
    `margin` points below, "" where there is none.
    """
    found = {comparison.against: comparison for comparison in comparisons if comparison.metric == METRIC}
    beaten = [found[name] for name in rivals if name in found]
    if not beaten:
        return (
            Verdict.NOT_ENOUGH_EVIDENCE,
            "There is neither a base nor a nearest neighbour to compare the student with.",
        )
    few = min(comparison.rows for comparison in beaten)
    if few < ENOUGH_ROWS:
        return Verdict.NOT_ENOUGH_EVIDENCE, f"The verdict would rest on {few} test rows; wanted at least {ENOUGH_ROWS}."
    measured = [found[teacher]] if teacher in found and found[teacher].rows >= ENOUGH_ROWS else []

    hopeless = [one for one in beaten if one.difference.high < NEGLIGIBLE]
    hopeless += [one for one in measured if one.difference.high < -margin]
    if hopeless:
        return Verdict.DO_NOT_SHIP, _reason(hopeless, teacher, margin)
    unclear = [one for one in beaten if one.difference.low <= 0]
    unclear += [one for one in measured if one.difference.low < -margin]
    if unclear:
        return Verdict.NOT_ENOUGH_EVIDENCE, _reason(unclear, teacher, margin)
    return Verdict.SHIP, _reason(beaten + measured, teacher, margin)


def _reason(comparisons: Sequence[Comparison], teacher: str, margin: float) -> str:
    """ "Exact match: +41.3 points against base (95 % interval +35.0 to +47.2, 300 rows)." """
    told = ", ".join(
        f"{one.difference.value:+.1f} points against {one.against.replace('_', ' ')} "
        f"(95 % interval {one.difference.low:+.1f} to {one.difference.high:+.1f}, {one.rows} rows)"
        for one in comparisons
    )
    allowed = f"; up to {margin:g} below the {teacher} are accepted" if comparisons[-1].against == teacher else ""
    return f"Exact match of the student: {told}{allowed}."
