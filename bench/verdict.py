"""How often the verdict is wrong where the truth is known: one JSON line.

    python -m bench.verdict [--pairs N] [--seed S]

pairs                        simulated evaluations of each scenario
scenarios                    test sizes x correlations x accuracies x who is compared
ship_wrong                   percent of all evaluations whose truth forbids it that end in "ship"
worst_ship_wrong             the same of the worst scenario, and `worst_ship` which that is
no_wrong, worst_no_wrong, worst_no     "do not ship" where the truth is to ship
mixed_ship_wrong             percent of "ship" verdicts that are wrong where truths are random, up to 20 points off
settled, settled_by_more     percent of verdicts other than "not enough evidence": at first, and once those that are not
                             settled got as many rows as they ask for

A row's right answers are correlated: each contestant answers rightly where a shared difficulty of the row and a part of
its own are together below its threshold. The truth of a scenario lies at the border, where a wrong verdict is
likeliest: the student is exactly as good as one rival (and better than the others), or exactly the margin below the
teacher; for "do not ship" a point better than every rival.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from services.evaluator.intervals import Floats, of_share_difference
from services.evaluator.values import DEFAULT_MARGIN, Comparison, Verdict
from services.evaluator.verdict import NEGLIGIBLE, Judgement, judge

RIVALS = ("base", "nearest_neighbour")
ROWS = (20, 50, 100, 300, 1000)
CORRELATIONS = (0.0, 0.6, 0.9)
ACCURACIES = (0.15, 0.5, 0.8, 0.95)


@dataclass(frozen=True)
class Truth:
    """Accuracies, 0 to 1, by contestant; how alike they answer; how many test rows there are."""

    accuracy: dict[str, float]
    correlation: float
    rows: int


def answers(truth: Truth, rng: np.random.Generator) -> dict[str, Floats]:
    """Arrays (rows, 1) of 0 and 100 for each contestant."""
    shared = rng.standard_normal(truth.rows)
    found = {}
    for name, accuracy in truth.accuracy.items():
        own = rng.standard_normal(truth.rows)
        difficulty = truth.correlation * shared + np.sqrt(1 - truth.correlation**2) * own
        below = NormalDist().inv_cdf(min(max(accuracy, 1e-9), 1 - 1e-9))
        found[name] = 100.0 * (difficulty < below).astype(np.float64).reshape(-1, 1)
    return found


def verdict_on(answered: dict[str, Floats], margin: float = DEFAULT_MARGIN, seed: int = 0) -> Judgement:
    """The judgement of an evaluation with these answers, the student's among them."""
    comparisons = [
        Comparison(
            name, "exact_match", of_share_difference(answered["student"], theirs, seed), len(answered["student"])
        )
        for name, theirs in answered.items()
        if name != "student"
    ]
    rivals = [name for name in answered if name in RIVALS]
    return judge(comparisons, rivals, "teacher" if "teacher" in answered else "", margin)


def at_the_border(rows: int, correlation: float, accuracy: float, others: Sequence[str]) -> Truth:
    """The last of `others` is just too good for the student; those before it are well below."""
    known = {"student": accuracy} | {name: accuracy - 0.12 for name in others[:-1]}
    known[others[-1]] = accuracy + (DEFAULT_MARGIN / 100 if others[-1] == "teacher" else 0.0)
    return Truth(known, correlation, rows)


def worth_shipping(rows: int, correlation: float, accuracy: float, others: Sequence[str]) -> Truth:
    """Every rival is a negligible gain below the student, the teacher the margin above it."""
    known = {"student": accuracy} | {name: accuracy - NEGLIGIBLE / 100 for name in others if name != "teacher"}
    if "teacher" in others:
        known["teacher"] = accuracy + DEFAULT_MARGIN / 100
    return Truth(known, correlation, rows)


def possible(truth: Truth) -> bool:
    return all(0 < accuracy < 1 for accuracy in truth.accuracy.values())


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200, metavar="N", help="evaluations a scenario; default 200")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    args = parser.parse_args()
    groups = [("base",), RIVALS, ("base", "teacher"), (*RIVALS, "teacher")]
    grid = list(itertools.product(ROWS, CORRELATIONS, ACCURACIES, groups))

    def rates(kind: str, wrong: Verdict) -> dict[str, float]:
        found = {}
        for number, (rows, correlation, accuracy, others) in enumerate(grid):
            truth = (at_the_border if kind == "ship" else worth_shipping)(rows, correlation, accuracy, others)
            if not possible(truth):
                continue
            rng = np.random.default_rng([args.seed, number])
            verdicts = Counter(verdict_on(answers(truth, rng)).verdict for _ in range(args.pairs))
            name = f"{rows} rows, correlation {correlation}, accuracy {accuracy}, {'+'.join(others)}"
            found[name] = 100 * verdicts[wrong] / args.pairs
            if number % 12 == 11:
                print(f"{kind}: {number + 1} of {len(grid)}", file=sys.stderr)
        return found

    ship, no = rates("ship", Verdict.SHIP), rates("no", Verdict.DO_NOT_SHIP)
    figures = {
        "pairs": args.pairs,
        "scenarios": len(ship),
        "ship_wrong": round(sum(ship.values()) / len(ship), 2),
        "worst_ship_wrong": max(ship.values()),
        "worst_ship": max(ship, key=lambda name: ship[name]),
        "no_wrong": round(sum(no.values()) / len(no), 2),
        "worst_no_wrong": max(no.values()),
        "worst_no": max(no, key=lambda name: no[name]),
    }
    print(json.dumps(figures | _mixed(args.pairs, args.seed)))
    return 0


def _mixed(pairs: int, seed: int) -> dict[str, float]:
    """Truths drawn at random, 150 rows, base and nearest neighbour; what is not settled gets the rows it asks for."""
    rng = np.random.default_rng(seed)
    ships = wrong = settled = later = 0
    for _ in range(pairs):
        student = rng.uniform(0.3, 0.9)
        rivals = {name: float(np.clip(student + rng.uniform(-0.2, 0.2), 0.02, 0.98)) for name in RIVALS}
        truth = Truth({"student": student} | rivals, 0.6, 150)
        judgement = verdict_on(answers(truth, rng))
        ships += judgement.verdict == Verdict.SHIP
        wrong += judgement.verdict == Verdict.SHIP and student <= max(rivals.values())
        if judgement.verdict == Verdict.NOT_ENOUGH_EVIDENCE:
            more = Truth(truth.accuracy, truth.correlation, truth.rows + judgement.more_rows)
            again = verdict_on(answers(more, rng)).verdict
            later += judgement.more_rows > 0 and again != Verdict.NOT_ENOUGH_EVIDENCE
        else:
            settled += 1
    return {
        "mixed_ship_wrong": round(100 * wrong / max(ships, 1), 2),
        "settled": round(100 * settled / pairs, 1),
        "settled_by_more": round(100 * (settled + later) / pairs, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
