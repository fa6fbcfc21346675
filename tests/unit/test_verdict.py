"""Intervals that claim no more than the rows can show, and the verdict that rests on them."""

from __future__ import annotations

import numpy as np
import pytest

from bench.verdict import RIVALS as BEATEN
from bench.verdict import Truth, answers, at_the_border, verdict_on, worth_shipping
from services.evaluator import intervals
from services.evaluator.score import right_answers, slices
from services.evaluator.values import Comparison, Estimate, Verdict
from services.evaluator.verdict import judge
from services.kit import metrics
from services.kit.values import Row

RIVALS = ("base", "nearest_neighbour")


def shares(right: int, rows: int) -> intervals.Floats:
    """`rows` rows of which the first `right` are right."""
    return np.array([[100.0]] * right + [[0.0]] * (rows - right))


def against(name: str, low: float, high: float, rows: int = 300) -> Comparison:
    return Comparison(name, "exact_match", Estimate((low + high) / 2, low, high), rows)


# -- intervals


def test_the_interval_of_a_share_is_wilsons() -> None:
    """81 of 263 right: Newcombe (1998) gives 25.5 to 36.6; and a share of 0 or 100 has a width."""
    found = intervals.share(100 * 81 / 263, 263)
    assert (round(found.low, 1), round(found.high, 1)) == (25.5, 36.6)
    assert intervals.share(0, 300).low == 0
    assert 1 < intervals.share(0, 300).high < 1.5
    assert 98.5 < intervals.share(100, 300).low < 99
    assert intervals.share(100, 300).high == 100


def test_a_bootstrap_covers_the_true_mean_about_95_times_of_100() -> None:
    """Of 200 samples of 100 rows each, the interval of the mean holds the true one in 90 to 99 %."""
    rng = np.random.default_rng(1)
    drawn = intervals.resamples(100, seed=0)
    held = 0
    for _ in range(200):
        rows = rng.gamma(2.0, 10.0, size=(100, 1))
        estimate = intervals.of_score(rows, lambda sums, number: sums[..., 0] / number, drawn)
        held += estimate.low <= 20.0 <= estimate.high
    assert 0.90 <= held / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval_and_another_one_nearly() -> None:
    """Intervals are repeatable; the seed moves the ends by a fraction of the width."""
    rows = np.random.default_rng(1).gamma(2.0, 10.0, size=(300, 1))

    def estimate(seed: int) -> Estimate:
        return intervals.of_score(rows, lambda sums, number: sums[..., 0] / number, intervals.resamples(300, seed))

    assert estimate(3) == estimate(3)
    assert estimate(3) != estimate(4)
    assert abs(estimate(3).low - estimate(4).low) < (estimate(3).high - estimate(3).low) / 10


def test_a_difference_is_taken_row_by_row() -> None:
    """Two contestants that are right on the same rows differ by less than two that are right on other ones."""
    ours = shares(150, 300)
    together = intervals.of_share_difference(ours, shares(140, 300), seed=0)
    apart = intervals.of_share_difference(ours, shares(140, 300)[::-1], seed=0)
    assert together.value == apart.value == pytest.approx(10 / 3)
    assert together.high - together.low < (apart.high - apart.low) / 3


def test_a_few_rows_that_go_one_way_are_no_proof() -> None:
    """4 wins and no loss in 30 rows: McNemar's exact test has p = 0.125, and the interval reaches 0."""
    found = intervals.of_share_difference(shares(4, 30), shares(0, 30), seed=0)
    assert found.low <= 0 < found.value < found.high


def test_rows_that_all_agree_still_leave_doubt() -> None:
    """No row of 40 differs: the interval is around 0, not 0 to 0; all differ: it does not begin at 100."""
    none = intervals.of_share_difference(shares(40, 40), shares(40, 40), seed=0)
    assert none.low < -1 < none.value == 0 < 1 < none.high
    every = intervals.of_share_difference(shares(40, 40), shares(0, 40), seed=0)
    assert 80 < every.low < every.value == every.high == 100


def test_chrf_is_resampled_as_a_ratio_of_sums() -> None:
    """The estimate of chrF++ is the corpus score, inside its interval, and long rows weigh more than short ones."""
    predictions = ["a long sentence that is entirely right and goes on for a while"] * 10 + ["x"] * 10
    answers = [(text,) for text in predictions[:10]] + [("y",)] * 10
    rows = metrics.chrf_statistics(predictions, answers)
    found = intervals.of_score(rows, lambda sums, _: metrics.chrf(sums), intervals.resamples(20, 0))
    assert found.value > 90
    assert found.low < found.value < found.high


# -- slices


def test_slices_are_all_real_generated_and_each_source() -> None:
    """A row is in "all", in "real" or "generated", and in its source's slice."""
    rows = [Row("a", "1", "web"), Row("b", "2", "llm"), Row("c", "3", "web")]
    found = slices(rows, [True, False, True])
    assert found == {"all": [0, 1, 2], "real": [0, 2], "generated": [1], "llm": [1], "web": [0, 2]}


def test_the_answers_of_a_row_are_all_right_outputs() -> None:
    """`answers` counts where there is one, else the output."""
    assert right_answers(Row("a", "1")) == ("1",)
    assert right_answers(Row("a", "1", answers=("1", "one"))) == ("1", "one")


# -- the verdict


def test_ship_when_better_than_base_and_nearest_neighbour() -> None:
    """Both intervals above 0: ship, and the reason has the numbers."""
    found = judge([against("base", 30, 40), against("nearest_neighbour", 10, 20)], RIVALS, "", 5)
    reason = found.reason
    assert found.verdict == Verdict.SHIP
    assert found.more_rows == 0
    assert "+35.0 points against base (95 % interval +30.0 to +40.0, 300 rows)" in reason
    assert "nearest neighbour" in reason


@pytest.mark.parametrize("low", [0.0, -3.0])
def test_not_enough_evidence_when_an_interval_holds_nothing_gained(low: float) -> None:
    """The interval against the nearest neighbour reaches 0 or below: not enough evidence, for that reason alone."""
    found = judge([against("base", 30, 40), against("nearest_neighbour", low, 9)], RIVALS, "", 5)
    reason = found.reason
    assert found.verdict == Verdict.NOT_ENOUGH_EVIDENCE
    assert "nearest neighbour" in reason
    assert "against base" not in reason


@pytest.mark.parametrize(("low", "high"), [(-20.0, -10.0), (-0.8, 0.8)])
def test_do_not_ship_when_at_best_no_better(low: float, high: float) -> None:
    """Worse than a rival, or at the interval's best less than a point better: do not ship."""
    found = judge([against("base", low, high), against("nearest_neighbour", 10, 20)], RIVALS, "", 5)
    reason = found.reason
    assert found.verdict == Verdict.DO_NOT_SHIP
    assert "base" in reason


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-4.0, 2.0, Verdict.SHIP),
        (-5.0, 2.0, Verdict.NOT_ENOUGH_EVIDENCE),
        (-9.0, 2.0, Verdict.NOT_ENOUGH_EVIDENCE),
        (-20.0, -7.0, Verdict.DO_NOT_SHIP),
    ],
)
def test_the_teacher_may_be_better_by_the_margin(low: float, high: float, verdict: Verdict) -> None:
    """With a margin of 5 points: within it ship, across it not enough evidence, beyond it do not ship."""
    rest = [against("base", 30, 40), against("nearest_neighbour", 10, 20)]
    found = judge([*rest, against("teacher", low, high)], RIVALS, "teacher", 5)
    assert found.verdict == verdict
    assert "up to 5 below the teacher" in found.reason


def test_a_teacher_measured_on_few_rows_does_not_count() -> None:
    """A teacher's 19 rows change nothing."""
    rest = [against("base", 30, 40), against("nearest_neighbour", 10, 20)]
    found = judge([*rest, against("teacher", -90, -80, rows=19)], RIVALS, "teacher", 5)
    assert found.verdict == Verdict.SHIP


def test_fewer_than_twenty_rows_are_not_enough() -> None:
    """19 rows are not enough evidence, however large the difference; 20 can be."""
    assert judge([against("base", 80, 100, rows=19)], ("base",), "", 5).verdict == Verdict.NOT_ENOUGH_EVIDENCE
    assert judge([against("base", 80, 100, rows=20)], ("base",), "", 5).verdict == Verdict.SHIP


def test_nobody_to_compare_with_is_not_enough() -> None:
    """A student alone, or beside the teacher alone, is not judged."""
    assert judge([], (), "", 5).verdict == Verdict.NOT_ENOUGH_EVIDENCE
    assert judge([against("teacher", 10, 20)], (), "teacher", 5).verdict == Verdict.NOT_ENOUGH_EVIDENCE


def test_other_metrics_do_not_decide() -> None:
    """A gain in chrF++ alone is no reason to ship."""
    found = Comparison("base", "chrf", Estimate(50, 40, 60), 300)
    assert judge([found], ("base",), "", 5).verdict == Verdict.NOT_ENOUGH_EVIDENCE


# -- several comparisons at once


def test_one_of_three_that_fails_by_a_hair_does_not_condemn() -> None:
    """A single rival's interval just below a point ends it; among three comparisons the same interval is not enough,
    since one of three is likelier to fall low by chance."""
    low = against("base", -6.0, 0.9)
    rest = [against("nearest_neighbour", 10, 20), against("teacher", 0, 9)]
    assert judge([low], ("base",), "", 5).verdict == Verdict.DO_NOT_SHIP
    assert judge([low, *rest], RIVALS, "teacher", 5).verdict == Verdict.NOT_ENOUGH_EVIDENCE


@pytest.mark.parametrize("others", [("base",), BEATEN, ("base", "teacher"), (*BEATEN, "teacher")])
@pytest.mark.parametrize("rows", [20, 150])
def test_ship_is_wrong_in_at_most_five_of_a_hundred(others: tuple[str, ...], rows: int) -> None:
    """Over 400 simulated evaluations in which the student is no better than one rival (or just too far below the
    teacher), at most 5 % say ship; over 400 in which it is worth shipping, at most 5 % say not to."""
    border, worthy = (make(rows, 0.6, 0.8, others) for make in (at_the_border, worth_shipping))
    rng = np.random.default_rng([rows, len(others)])
    wrong = sum(verdict_on(answers(border, rng)).verdict == Verdict.SHIP for _ in range(400))
    harsh = sum(verdict_on(answers(worthy, rng)).verdict == Verdict.DO_NOT_SHIP for _ in range(400))
    assert wrong <= 20
    assert harsh <= 20


def test_a_real_gain_is_found() -> None:
    """A student that is 20 points better is shipped in nearly all of 100 evaluations of 300 rows; one that is 10 points
    worse in none, and mostly refused."""
    rng = np.random.default_rng(5)
    better, worse = (Truth({"student": p, "base": 0.5}, 0.6, 300) for p in (0.7, 0.4))
    found = [verdict_on(answers(better, rng)).verdict for _ in range(100)]
    assert found.count(Verdict.SHIP) > 95
    refused = [verdict_on(answers(worse, rng)).verdict for _ in range(100)]
    assert refused.count(Verdict.SHIP) == 0
    assert refused.count(Verdict.DO_NOT_SHIP) > 80


# -- how many more rows


def test_the_reason_says_how_many_more_rows_would_settle_it() -> None:
    """+3 points, interval -1 to +7 on 300 rows: (2.80 / 1.96 * 4 / 3)^2 of the rows are wanted, that is 1,089."""
    found = judge([against("base", -1.0, 7.0)], ("base",), "", 5)
    assert found.verdict == Verdict.NOT_ENOUGH_EVIDENCE
    assert found.more_rows == pytest.approx(1089 - 300, abs=2)
    assert "About 790 more test rows would probably settle it" in found.reason


def test_the_hardest_comparison_says_how_many() -> None:
    """Two unclear ones: the one that needs more rows decides, unless one settles it for the worse sooner."""
    one, other = against("base", -1.0, 7.0), against("nearest_neighbour", -3.0, 7.0)
    alone = [judge([comparison], (comparison.against,), "", 5).more_rows for comparison in (one, other)]
    together = judge([one, other], RIVALS, "", 5)
    assert together.more_rows == max(alone)
    assert "nearest neighbour is what it seems" in together.reason
    bad = judge([one, against("nearest_neighbour", -9.0, 1.1)], RIVALS, "", 5)
    assert 0 < bad.more_rows < min(alone)


def test_a_teacher_asked_more_rows_may_settle_it() -> None:
    """Where the teacher answered only some of the rows, it is asked for more of those there are."""
    rest = [against("base", 30, 40, rows=2000), against("nearest_neighbour", 10, 20, rows=2000)]
    found = judge([*rest, against("teacher", -8.0, 4.0, rows=100)], RIVALS, "teacher", 5)
    assert found.verdict == Verdict.NOT_ENOUGH_EVIDENCE
    assert "more rows answered by the teacher" in found.reason
    assert 0 < found.more_rows < 1900


def test_no_difference_at_all_is_said_to_be_beyond_measuring() -> None:
    """Half a point is neither a gain nor none: 100,000 rows would not tell, and the number is 0."""
    found = judge([against("base", -19.5, 20.5)], ("base",), "", 5)
    assert found.verdict == Verdict.NOT_ENOUGH_EVIDENCE
    assert found.more_rows == 0
    assert "so small that 100,000 test rows would hardly settle it" in found.reason
    assert judge([against("base", 1, 9, rows=12)], ("base",), "", 5).more_rows == 8


def test_the_rows_asked_for_mostly_do_settle_it() -> None:
    """Of 60 unclear evaluations with a true gain of 8 points, most are settled by the rows that they ask for."""
    rng = np.random.default_rng(3)
    asked = settled = 0
    while asked < 60:
        truth = Truth({"student": 0.58, "base": 0.5}, 0.6, 100)
        found = verdict_on(answers(truth, rng))
        if found.verdict != Verdict.NOT_ENOUGH_EVIDENCE or not 0 < found.more_rows < 5000:
            continue
        asked += 1
        more = Truth(truth.accuracy, truth.correlation, truth.rows + found.more_rows)
        settled += verdict_on(answers(more, rng)).verdict != Verdict.NOT_ENOUGH_EVIDENCE
    assert settled > 36
