"""How many requests are in flight: what a server bears, and not far below it."""

from __future__ import annotations

import asyncio
import heapq
import random
import statistics

import pytest

from services.kit import concurrency as module
from services.kit.concurrency import Concurrency
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def serve(concurrency: Concurrency, clock: Clock, slots: int, number: int, seed: int) -> float:
    """The seconds that a simulated server takes for `number` requests, `slots` at once, the others in a queue."""
    rng = random.Random(seed)
    began, sent, free, ends = clock.now, 0, [clock.now] * slots, []
    while sent < number or ends:
        while sent < number and concurrency.in_flight < concurrency.window:
            concurrency.in_flight += 1
            end = max(clock.now, heapq.heappop(free)) + rng.lognormvariate(-0.08, 0.4)
            heapq.heappush(free, end)
            heapq.heappush(ends, (end, clock.now, concurrency.in_flight))
            sent += 1
        clock.now, at, load = heapq.heappop(ends)
        concurrency.answered("a", clock.now - at, load)
        concurrency.leave()
    return clock.now - began


@pytest.mark.parametrize("slots", [1, 4, 8, 24, 100])
def test_a_server_that_queues_in_silence_is_kept_busy_and_not_flooded(clock, slots):
    """Without being told, within 10 % of the time of the best fixed number; the queue ends short."""
    for seed in range(20):
        concurrency = Concurrency(512)
        taken = serve(concurrency, clock, slots, 30 * slots + 200, seed)
        assert concurrency.window <= max(24, 4 * slots), "no more wait than it can be through with soon"
        assert slots / 2 <= (concurrency.at_once or 0) <= max(12, 2 * slots)
        fixed = []
        for most in (slots, 2 * slots):
            best = Concurrency(most, start=most)
            best._narrow = lambda window: None
            fixed.append(serve(best, clock, slots, 30 * slots + 200, seed))
        assert taken < 1.1 * min(fixed)


def test_a_server_without_a_queue_is_given_all_at_once_soon(clock):
    """Where 512 at once take no longer than one, 2,000 answers of a second take far less than 64 at a time would."""
    times = []
    for seed in range(20):
        concurrency = Concurrency(512)
        times.append(serve(concurrency, clock, 10_000, 2000, seed))
        assert concurrency.window > 300
        assert (concurrency.at_once or 512) > 150
    assert statistics.mean(times) < 2000 / 512 + 6
    assert 3 * statistics.mean(times) < 2000 / 64


def test_a_server_that_became_slower_is_not_taken_for_a_queue_for_ever(clock):
    """After answers take three times as long for good, the window comes back: a light load tells the new time."""
    concurrency = Concurrency(64)
    for factor in (1.0, 4.0):
        for _ in range(40):
            load = concurrency.in_flight = concurrency.window
            clock.now += factor
            for nth in range(load):
                concurrency.answered("a", factor, nth + 1)
            concurrency.in_flight = 0
    assert concurrency.window == 64


async def full(concurrency: Concurrency) -> None:
    while concurrency.in_flight < concurrency.window:
        await concurrency.enter()


async def test_the_window_narrows_at_a_refusal_then_creeps(clock):
    """0.7 of it after a refusal, once a round trip; then one more a round trip; never beyond `most`."""
    concurrency = Concurrency(64, start=8)
    concurrency.in_flight = 8
    concurrency.refused(clock.now)
    concurrency.in_flight = 0
    assert concurrency.window == 5
    concurrency.refused(clock.now - 1)
    assert concurrency.window == 5, "one that was sent before the decrease says nothing new"
    for _ in range(4 + 6):
        clock.now += 2
        await full(concurrency)
        concurrency.answered("a", 1.0, 5)
    assert concurrency.window == 6
    wide = Concurrency(12, start=8)
    for _ in range(50):
        await full(wide)
        wide.answered("a", 1.0, 8)
    assert wide.window == 12


async def test_an_unused_window_does_not_widen(clock):
    """Answers to few requests say nothing about many."""
    concurrency = Concurrency(64, start=8)
    await concurrency.enter()
    for _ in range(40):
        concurrency.answered("a", 1.0, 8)
    assert concurrency.window == 8


def test_answers_of_one_kind_are_compared(clock):
    """A kind that takes ten times as long as another by its nature narrows nothing."""
    concurrency = Concurrency(64, start=8)
    for load in range(1, 9):
        clock.now += 20
        concurrency.answered("answer", 0.1, load)
        concurrency.answered("examples", 1.0, load)
    assert concurrency.window == 8


def test_a_server_that_tells_its_slots_is_not_given_more(clock):
    """`narrow_to` holds from then on, whatever the latency says."""
    concurrency = Concurrency(512)
    concurrency.narrow_to(2)
    serve(concurrency, clock, 10_000, 100, 0)
    assert concurrency.window == 2


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
