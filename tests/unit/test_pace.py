"""How many examples each request asks for."""

from __future__ import annotations

import random

import pytest

from services.generator.pace import Pace


def _sizes(number: int, places: int, most: int = 5) -> list[int]:
    """The sizes of a run in which all is new."""
    pace, sizes = Pace(number, most), []
    while size := pace.size(len(sizes), sum(sizes), places):
        sizes.append(size)
        pace.sent(size)
        pace.ended(size)
        pace.answered(size, [True] * size)
    return sizes


@pytest.mark.parametrize("places", [1, 4, 16, 256])
@pytest.mark.parametrize("number", [1, 7, 200, 2_000])
def test_all_is_asked_for_once(number: int, places: int) -> None:
    """Where all that comes is new, exactly the number is asked for, and never more than five in a request."""
    sizes = _sizes(number, places)
    assert sum(sizes) == number
    assert max(sizes) <= 5


def test_small_at_both_ends() -> None:
    """With many places the first and the last requests are small, and those between as large as they may be."""
    sizes = _sizes(2_000, 64)
    assert sizes[0] == sizes[-1] == 1
    assert max(sizes) == 5
    peak = sizes.index(5)
    assert sizes[:peak] == sorted(sizes[:peak])
    assert sizes[peak:] == sorted(sizes[peak:], reverse=True)


def test_small_jobs_are_one_wave() -> None:
    """With places for all, requests are small, so that none waits for another; more places change nothing."""
    assert max(_sizes(100, 256)) <= 3
    assert _sizes(100, 256) == _sizes(100, 64)


def test_what_was_lost_is_asked_for_at_its_own_size() -> None:
    """After a crash, the slots that were lost make up exactly for what they would have brought."""
    sizes = _sizes(500, 16)
    lost = set(random.Random(3).sample(range(len(sizes)), 12))
    pace, kept = Pace(500, 5), 0
    for slot, size in enumerate(sizes):
        if slot not in lost:
            pace.answered(size, [True] * size)
            kept += size
    again = {}
    for slot in sorted(lost):
        again[slot] = pace.size(slot, kept, 16)
        pace.sent(again[slot])
    assert again == {slot: sizes[slot] for slot in lost}
    assert pace.size(len(sizes), kept, 16) == 0


def test_repeats_are_foreseen() -> None:
    """With half of all repeated, twice as many are under way as are missing."""
    pace = Pace(1_000, 5)
    for _ in range(40):
        pace.answered(5, [True, False] * 2 + [True])
    kept, asked = 120, 0
    for slot in range(40, 1_000):
        size = pace.size(slot, kept, 16)
        asked += size
        pace.sent(size)
    assert 1.3 * 880 < asked < 1.7 * 880


def test_a_rate_limit_makes_requests_large() -> None:
    """Where few requests a second may be sent, more places than their answers fill are no reason for small ones."""
    assert Pace(100, 5).size(100, 0, 256) < 5
    assert Pace(100, 5).size(100, 0, 256, per_second=2) == 5
    assert Pace(100, 5).size(0, 0, 256, requests_left=20) == 5


def test_it_ends_where_nothing_new_comes() -> None:
    """After fifty examples in a row with nothing new, or a tenth of the number, no more is asked for."""
    for number, patience in [(30, 50), (2_000, 200)]:
        pace = Pace(number, 5)
        for _ in range(patience // 5 - 1):
            pace.answered(5, [False] * 5)
        assert pace.size(9, 0, 16)
        pace.answered(5, [])
        assert pace.size(10, 0, 16) == 0
