"""How long a generation takes at servers that serve many at once, or few and say nothing."""

from __future__ import annotations

import heapq
import random
import statistics

import pytest

from services.generator.generate import GenerateRequest, generate
from services.generator.pace import Pace
from services.kit import concurrency as module
from services.kit.artifacts import Artifacts
from services.kit.concurrency import Concurrency
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, PromptSpec
from tests.support.teacher import ScriptedTeacher

# Seconds of an answer: lognormal of this mean, and so much for each of an example's 146 tokens. Shares are as recorded.
MEAN_S, TOKEN_S, TOKENS, NEW = 1.2, 0.005, 146, 0.81


class Clock:
    """A simulated time, in place of the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def simulated(clock: Clock, number: int, slots: int, seed: int, told: int | None = None) -> tuple[float, int]:
    """Seconds and requests until there are `number` examples, `slots` requests being served at once, first come."""
    rng = random.Random(seed)
    concurrency = Concurrency(told or 512)
    pace = Pace(number, 5, told or 512)
    pace.first = concurrency.try_with(pace.first)
    began, kept, slot, free, ends = clock.now, 0, 0, [clock.now] * slots, []
    while kept < number:
        places = concurrency.at_once or concurrency.window
        while concurrency.in_flight < concurrency.window and (size := pace.size(slot, kept, places)):
            concurrency.in_flight += 1
            pace.sent(size)
            tokens = sum(rng.choice((100, 140, 150, 194)) for _ in range(size))
            end = max(clock.now, heapq.heappop(free)) + MEAN_S * rng.lognormvariate(-0.125, 0.5) + TOKEN_S * tokens
            heapq.heappush(free, end)
            heapq.heappush(ends, (end, slot, clock.now, concurrency.in_flight, size, tokens))
            slot += 1
            places = concurrency.at_once or concurrency.window
        clock.now, _, sent_at, load, size, tokens = heapq.heappop(ends)
        pace.ended(size)
        new = [rng.random() < NEW for _ in range(size)]
        kept += sum(new)
        pace.answered(size, new)
        concurrency.answered("examples", clock.now - sent_at, load, tokens)
        concurrency.leave()
    return clock.now - began, slot


@pytest.mark.parametrize(("slots", "number"), [(2, 150), (4, 200), (8, 400), (24, 1_200), (100, 3_000)])
def test_a_server_that_queues_in_silence_is_used_as_well_as_one_that_is_known(
    clock: Clock, slots: int, number: int
) -> None:
    """Not told how many are served at once, it takes at most a tenth longer than with the best number told."""
    seeds = range(10)
    found = statistics.mean(simulated(clock, number, slots, seed)[0] for seed in seeds)
    told = (
        statistics.mean(simulated(clock, number, slots, seed, most)[0] for seed in seeds) for most in (slots, 2 * slots)
    )
    assert found < 1.1 * min(told)


def test_a_server_with_places_for_all_is_soon_given_all(clock: Clock) -> None:
    """200 examples take hardly longer than the slowest of a few large answers, 2,000 little more than twice as long."""
    seeds = range(20)
    assert statistics.mean(simulated(clock, 200, 10_000, seed)[0] for seed in seeds) < 6.5
    assert statistics.mean(simulated(clock, 2_000, 10_000, seed)[0] for seed in seeds) < 14


def test_what_is_spared_is_little(clock: Clock) -> None:
    """Of 2,000 examples at a fifth of repeats, not one in ten more is asked for than has to be."""
    needed = 2_000 / NEW
    assert all(simulated(clock, 2_000, 100, seed)[1] < 1.1 * needed for seed in range(5))


async def test_few_requests_are_made_of_a_server_with_few_places(settings: Settings) -> None:
    """For 120 examples from a server that serves four at once, about half as many again as if that were told."""
    spec = PromptSpec("Name the colour among the words.", (Demonstration("lamp red door", "red"),))
    requests = []
    for told in (4, 512):
        own = settings.model_copy(update={"home": settings.home / str(told), "llm_concurrency": told})
        async with ScriptedTeacher(latency=0.05, token_latency=0.002, max_concurrent=4) as server:
            own = own.model_copy(update={"openai_base_url": server.url})
            teacher = Teacher(own, Artifacts.open(own, "generator"))
            session = teacher.session("run", Allowance())
            made = await generate(GenerateRequest("run", Allowance(), spec, 120), session, "it", (), own)
            await teacher.close()
            assert len(made.rows) == 120
            requests.append(server.count["requests"])
    assert requests[1] <= 1.7 * requests[0]
