"""Rates and concurrency: kept within a server's limits, and not far below them."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest

from services.kit.limits import Bucket, Concurrency, Rates, duration, retry_after


def test_a_bucket_lets_its_rate_through():
    """60 a minute is one at once, then one a second; what is taken too much is waited for."""
    bucket = Bucket(60)
    assert bucket.wait(1) == 0
    bucket.take(1)
    assert bucket.wait(1) == pytest.approx(1, abs=0.05)
    bucket.take(2)
    assert bucket.wait(1) == pytest.approx(3, abs=0.05)
    bucket.take(-3)
    assert bucket.wait(1) == 0


def test_a_bucket_without_a_limit_never_waits():
    """Nothing is known, so nothing is held back."""
    bucket = Bucket()
    bucket.take(1e9)
    assert bucket.wait(1e9) == 0


def test_more_than_a_bucket_holds_passes_when_it_is_full():
    """A request larger than the burst is delayed, not refused for ever."""
    bucket = Bucket(600)
    assert bucket.wait(10_000) == 0
    bucket.take(100)
    assert bucket.wait(10_000) == pytest.approx(10, abs=0.1)


def test_a_bucket_learns_rate_size_and_debt():
    """From limit, remaining and reset follow the rate, the burst, and what is owed."""
    bucket = Bucket()
    bucket.learn(600, 4, 0.6)  # ten a second, ten at once
    assert bucket.wait(4) == 0
    assert bucket.wait(10) == pytest.approx(0.6, abs=0.05)
    owing = Bucket()
    owing.learn(600, 0, 3.0)
    assert owing.wait(1) == pytest.approx(2.1, abs=0.05)


def test_nonsense_in_headers_is_passed_over():
    """A limit of nothing, or words for figures, leaves the bucket as it was."""
    rates = Rates()
    assert not rates.learn({"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"})
    assert not rates.learn({"x-ratelimit-limit-requests": "many", "x-ratelimit-remaining-requests": "some"})
    assert rates.requests.rate is None


async def test_a_pause_holds_everybody():
    """After `pause` nobody passes before its end."""
    rates = Rates()
    rates.pause(0.2)
    began = time.monotonic()
    await asyncio.gather(*(rates.enter(lambda: 1.0) for _ in range(3)))
    assert 0.2 <= time.monotonic() - began < 1


async def test_those_who_wait_pass_in_order():
    """First come, first served: a small request does not overtake a large one."""
    rates = Rates(tokens_per_minute=6000)
    passed = []

    async def one(name: str, tokens: float) -> None:
        await rates.enter(lambda: tokens)
        passed.append(name)

    await asyncio.gather(one("first", 100), one("large", 15), one("small", 1))
    assert passed == ["first", "large", "small"]


async def full(concurrency: Concurrency) -> None:
    while concurrency.in_flight < concurrency.window:
        await concurrency.enter()


async def test_the_window_doubles_then_narrows_then_creeps():
    """Slow start up to the first refusal, 0.7 of it after, then one more a round trip; never beyond `most`."""
    concurrency = Concurrency(64, start=4)
    for _ in range(4):
        await full(concurrency)
        concurrency.answered("a", 1.0)
    assert concurrency.window == 8
    concurrency.refused(time.monotonic())
    assert concurrency.window == 5
    concurrency.refused(0.0)
    assert concurrency.window == 5, "one that was sent before the decrease says nothing new"
    for _ in range(6):
        await full(concurrency)
        concurrency.answered("a", 1.0)
    assert concurrency.window == 6
    wide = Concurrency(8)
    for _ in range(50):
        await full(wide)
        wide.answered("a", 1.0)
    assert wide.window == 8


async def test_an_unused_window_does_not_widen():
    """Answers to few requests say nothing about many."""
    concurrency = Concurrency(64, start=8)
    await concurrency.enter()
    for _ in range(40):
        concurrency.answered("a", 1.0)
    assert concurrency.window == 8


async def test_a_growing_latency_narrows_the_window():
    """Where a server queues in silence, latency tells, kind by kind: three times the lowest narrows."""
    concurrency = Concurrency(64, start=8)
    for seconds in (1.0, 3.0):
        for _ in range(16):
            concurrency.answered("examples", seconds)
            concurrency.answered("answer", 0.1)
    assert concurrency.window == 5


async def test_a_place_given_to_one_who_left_is_passed_on():
    """A cancelled waiter takes no place with it."""
    concurrency = Concurrency(1, start=1)
    await concurrency.enter()
    waiting = [asyncio.create_task(concurrency.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    concurrency.leave()  # the first of them is given the place, and is cancelled before it runs
    waiting[0].cancel()
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 1)
    assert concurrency.in_flight == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": formatdate(time.time() - 60, usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    """Milliseconds before seconds before a date; nothing where nothing is said."""
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360.0), ("120ms", 0.12), ("1.5s", 1.5), ("1h2m", 3720.0), ("3", 3.0), ("later", None)],
)
def test_duration(text, seconds):
    """The ways in which servers write how long it takes until a limit is full again."""
    assert duration(text) == seconds
