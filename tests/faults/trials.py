"""The trials of the fault suite, drawn from a seed: the same seed gives the same ones in the same order.

    kill        200   each service and the orchestrator, at each point (see tests.support.killable) in turn
    partition    50   each link, in each of five ways
    slow         50   each link, five times, by delay or by throttle
    store        20   SeaweedFS is killed and started again
    database     20   PostgreSQL is stopped and started again, half of them as a crash
    cancel       10   a run is cancelled while its training's child works, and started again
    apart        10   two orchestrators as on two machines: six times the owner loses the database for 45 s, four times
                      it is killed; the other may know it by the heartbeat alone

28 of the kills, one of each victim at each point, are tried on the six real services, all else on the small ones
(tests.support.small).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from orchestrator.runs import STAGES
from services.kit.settings import SERVICES
from tests.support.cluster import DATABASE, LINKS, ORCHESTRATORS, OWN_STORE, STORE, TEACHER
from tests.support.killable import POINTS

NUMBERS = {"kill": 200, "partition": 50, "slow": 50, "store": 20, "database": 20, "cancel": 10, "apart": 10}
WAYS = ("cut", "hold", "hold-there", "hold-back", "strand")
# What each service is asked in a run, as (stage, type of the request).
REQUESTS = {
    "parser": [("parse", "ParseRequest")],
    "dataset_retriever": [("datasets", name) for name in ("SearchRequest", "InspectRequest", "RetrieveRequest")],
    "generator": [("generate", "GenerateRequest")],
    "model_retriever": [("models", "SearchRequest")],
    "trainer": [("prepare", "PrepareRequest"), ("train", "TrainRequest"), ("export", "ExportRequest")],
    "evaluator": [("evaluate", "EvaluateRequest"), ("export", "MeasureRequest")],
}


@dataclass(frozen=True)
class Trial:
    """One run with one fault."""

    number: int
    kind: str
    who: str
    """The victim: a part or a link."""
    where: str
    """In which stage it happens; for a service's kill at which request."""
    how: str
    """The point of a kill, the way of a partition, the mode of a restart."""
    owner: str
    """The orchestrator that is given the run."""
    real: bool = False
    apart: bool = False
    seconds: float = 0.0
    """How long a partition lasts."""
    delay_s: float = 0.0
    bytes_per_s: float = 0.0

    @property
    def name(self) -> str:
        return f"t{self.number:03d}"


def drawn(seed: int) -> list[Trial]:
    """All trials, the kinds in the order of NUMBERS."""
    trials: list[Trial] = []
    for kind, number in NUMBERS.items():
        rng = random.Random(f"{seed}/{kind}")
        first = len(trials)
        trials.extend(_DRAW[kind](rng, index, first + index) for index in range(number))
    return trials


def _kill(rng: random.Random, index: int, number: int) -> Trial:
    victims = (*SERVICES, "orchestrator")
    who, how = victims[index % len(victims)], POINTS[index // len(victims) % len(POINTS)]
    owner = rng.choice(ORCHESTRATORS)
    real = index >= NUMBERS["kill"] - len(victims) * len(POINTS)
    if who != "orchestrator":
        return Trial(number, "kill", who, rng.choice(REQUESTS[who])[1], how, owner, real)
    # The report asks no service.
    return Trial(number, "kill", owner, rng.choice(STAGES if how == "unsaid" else STAGES[:-1]), how, owner, real)


def _partition(rng: random.Random, index: int, number: int) -> Trial:
    who, how = LINKS[index % len(LINKS)], WAYS[index // len(LINKS) % len(WAYS)]
    return Trial(number, "partition", who, _stage_on(rng, who), how, rng.choice(ORCHESTRATORS),
                 seconds=rng.uniform(0.5, 4.0))  # fmt: skip


def _slow(rng: random.Random, index: int, number: int) -> Trial:
    who = LINKS[index % len(LINKS)]
    delay, rate = (rng.uniform(0.02, 0.08), 0.0) if rng.random() < 0.6 else (0.0, rng.uniform(10_000, 60_000))
    return Trial(number, "slow", who, "parse", "delay" if delay else "throttle", rng.choice(ORCHESTRATORS),
                 delay_s=delay, bytes_per_s=rate)  # fmt: skip


def _store(rng: random.Random, index: int, number: int) -> Trial:
    return Trial(number, "store", STORE, rng.choice(STAGES), "kill", rng.choice(ORCHESTRATORS))


def _database(rng: random.Random, index: int, number: int) -> Trial:
    how = ("fast", "immediate")[index % 2]
    return Trial(number, "database", DATABASE, rng.choice(STAGES), how, rng.choice(ORCHESTRATORS),
                 seconds=rng.uniform(0.0, 3.0))  # fmt: skip


def _cancel(rng: random.Random, index: int, number: int) -> Trial:
    return Trial(number, "cancel", "trainer", "train", "cancel", rng.choice(ORCHESTRATORS))


def _apart(rng: random.Random, index: int, number: int) -> Trial:
    owner = ORCHESTRATORS[index % 2]
    if index >= 6:
        return Trial(number, "apart", owner, "train", POINTS[index - 6], owner, apart=True)
    return Trial(number, "apart", DATABASE, rng.choice(STAGES[:-1]), WAYS[index // 2 % 2], owner, apart=True,
                 seconds=45.0)  # fmt: skip


def _stage_on(rng: random.Random, link: str) -> str:
    """A stage that uses the link."""
    if link in REQUESTS:
        return rng.choice(REQUESTS[link])[0]
    if link == TEACHER:
        return rng.choice(("parse", "generate", "evaluate"))
    return rng.choice(STAGES if link in (OWN_STORE, DATABASE) else STAGES[:-1])


_DRAW = {
    "kill": _kill, "partition": _partition, "slow": _slow, "store": _store, "database": _database, "cancel": _cancel,
    "apart": _apart,
}  # fmt: skip
