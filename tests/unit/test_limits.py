"""Rates: kept within a server's limits, and not far below them."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from email.utils import formatdate

import pytest

from services.kit import limits
from services.kit.limits import Bucket, Rates, duration, retry_after
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    return clock


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


def share_one_key(clock: Clock, clients: int, seconds: int, rate: float = 10.0, latency: float = 0.05):
    """What clients that know nothing of each other send to one server: by second, the admitted and the refused."""
    rng = random.Random(0)
    rates = [Rates() for _ in range(clients)]
    capacity, level, filled = max(1.0, rate), max(1.0, rate), clock.now
    admitted, refused, answers = [[0] * clients for _ in range(seconds)], [0] * seconds, []
    began = clock.now
    while clock.now < began + seconds:
        clock.now += 0.01
        while answers and answers[0][0] <= clock.now:
            _, nth, sent, ok = heapq.heappop(answers)
            told = {"limit": f"{60 * rate}", "remaining": f"{int(level)}", "reset": f"{(capacity - level) / rate:.3f}s"}
            headers = {f"x-ratelimit-{word}-requests": text for word, text in told.items()}
            rates[nth].learn(headers, None if ok else sent)
        level, filled = min(capacity, level + (clock.now - filled) * rate), clock.now
        for nth in rng.sample(range(clients), clients):
            under_way = sum(answer[1] == nth for answer in answers)
            while under_way < 64 and rates[nth].requests.wait(1) <= 0:
                rates[nth].requests.take(1)
                under_way += 1
                ok = level >= 1
                level -= ok
                second = min(seconds - 1, int(clock.now - began))
                admitted[second][nth] += ok
                refused[second] += not ok
                heapq.heappush(answers, (clock.now + (latency if ok else 0.01), nth, clock.now, ok))
    return admitted, refused


@pytest.mark.parametrize("clients", [1, 3, 5])
@pytest.mark.parametrize("latency", [0.05, 1.0])
def test_those_who_share_a_key_share_its_limit(clock, clients, latency):
    """Told nothing but x-ratelimit-*, they use over 95 % of it, each about as much, and none is refused after 10 s."""
    admitted, refused = share_one_key(clock, clients, 60, latency=latency)
    steady = admitted[10:]
    assert sum(map(sum, steady)) > 0.95 * 50 * 10
    assert sum(refused[10:]) == 0
    of_each = [sum(second[nth] for second in steady) for nth in range(clients)]
    assert max(of_each) < 5 * min(of_each)


def test_a_count_that_starts_anew_each_minute_is_used_up(clock):
    """Where little remains because the minute is nearly over, that is no sign of others: the pace is kept."""
    bucket = Bucket()
    for second in range(60):
        bucket.learn(600, 600 - 10 * second, 60 - second)
        clock.now += 1
    assert bucket.share == 1


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
