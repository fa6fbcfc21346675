"""Every metric there is: its name, unit, labels and meaning. What counts one says `metrics.CALLS.add(1, ...)`.

    Counter ── add              only grows
    Histogram ── observe        times; the endpoint gives _bucket, _sum and _count
    Gauge ── add, watch         what is so now: by steps, or looked at whenever somebody asks

They do nothing until `endpoint` has bound them, and cost nothing either. Labels are given in the order that the table
below has them; what a label holds is the name of a service, a call, a stage, an LLM, and never what a person wrote.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

Labels = tuple[str, ...]
# From a stored answer to a day's training.
_LONG = (0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_SHORT = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300)


class Metric:
    """One metric. `bound` is what the endpoint counts with; None while there is none."""

    kind: ClassVar[str]

    def __init__(self, name: str, meaning: str, *labels: str, buckets: tuple[float, ...] = ()) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self.buckets = buckets
        self.bound: Any = None
        METRICS.append(self)

    def _of(self, labels: Labels) -> Any:
        return self.bound.labels(*labels) if labels else self.bound


class Counter(Metric):
    """Only grows, until its process ends. `known` are the values of its one label that are told from the start, as 0:
    Prometheus sees no growth in what is there for the first time."""

    kind = "counter"

    def __init__(self, name: str, meaning: str, *labels: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(name, meaning, *labels)
        self.known = known

    def add(self, amount: float, *labels: str) -> None:
        if self.bound is not None:
            self._of(labels).inc(amount)


class Histogram(Metric):
    """How often a time fell into which of its buckets."""

    kind = "histogram"

    def observe(self, seconds: float, *labels: str) -> None:
        if self.bound is not None:
            self._of(labels).observe(seconds)


class Gauge(Metric):
    """What is so now."""

    kind = "gauge"

    def add(self, amount: float, *labels: str) -> None:
        if self.bound is not None:
            self._of(labels).inc(amount)


class Watched(Metric):
    """What is so now, looked at when somebody asks: what is watched neither knows nor pays."""

    kind = "gauge"

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        super().__init__(name, meaning, *labels)
        self._watched: WeakKeyDictionary[Any, Callable[[Any], Mapping[Labels, float]]] = WeakKeyDictionary()

    def watch(self, owner: Any, read: Callable[[Any], Mapping[Labels, float]]) -> None:
        """`read(owner)` gives values by labels, for as long as `owner` lives; several owners' values are added up."""
        self._watched[owner] = read

    def values(self) -> Iterator[tuple[Labels, float]]:
        """The sums by labels. What cannot be read just now is left out."""
        sums: dict[Labels, float] = {}
        for owner, read in list(self._watched.items()):
            with contextlib.suppress(Exception):  # a database that is down shows in other metrics
                for labels, value in read(owner).items():
                    sums[labels] = sums.get(labels, 0.0) + value
        yield from sums.items()


METRICS: list[Metric] = []

# -- runs, told by the orchestrator
RUNS = Watched("p2m_runs", "Runs in the database that all orchestrators share, by state", "state")
RUNS_ENDED = Counter(
    "p2m_runs_ended_total", "Runs that this orchestrator ended, by how", "state",
    known=("succeeded", "failed", "cancelled"),
)  # fmt: skip
RUNS_TAKEN_OVER = Counter("p2m_runs_taken_over_total", "Runs taken over from an orchestrator that died")
STAGE_SECONDS = Histogram(
    "p2m_stage_seconds", "Seconds that a stage of a run took, by stage and how it ended", "stage", "outcome",
    buckets=_LONG,
)  # fmt: skip

# -- calls between services
CALLS = Counter("p2m_calls_total", "Calls that a service answered, by gRPC status", "service", "call", "code")
CALL_SECONDS = Histogram(
    "p2m_call_seconds", "Seconds from a call's arrival to its end", "service", "call", buckets=_LONG
)
CALLS_REFUSED = Counter(
    "p2m_calls_refused_total", "Calls that a service would not serve, by the error's reason", "service", "reason"
)
CALLS_WAITING = Gauge("p2m_calls_waiting", "Calls of this process that wait for a free slot: the queue", "service")
SLOTS = Watched("p2m_slots", "Slots of this replica: jobs that it does at once", "service")
SLOTS_TAKEN = Watched("p2m_slots_taken", "Slots of this replica that are taken", "service")
RESULTS_REUSED = Counter(
    "p2m_results_reused_total", "Stage requests answered by a stored result: nothing was done again", "service"
)
WORKERS = Gauge("p2m_workers", "Worker processes at work", "job")
WORKER_SECONDS = Histogram(
    "p2m_worker_seconds", "Seconds that a worker process lived, by job and how it ended", "job", "outcome",
    buckets=_LONG,
)  # fmt: skip

# -- the LLM
LLM_REQUESTS = Counter("p2m_llm_requests_total", "Requests to the LLM, by outcome", "service", "llm", "outcome")
LLM_SECONDS = Histogram(
    "p2m_llm_request_seconds", "Seconds that one request to the LLM took", "service", "llm", buckets=_SHORT
)
LLM_TOKENS = Counter("p2m_llm_tokens_total", "Tokens that the LLM charged", "service", "llm", "kind")
LLM_DOLLARS = Counter("p2m_llm_dollars_total", "Dollars that the LLM charged", "service", "llm")
LLM_REPLAYED = Counter(
    "p2m_llm_replayed_total", "Answers taken from the journal: they had been paid for already", "service", "llm"
)
LLM_IN_FLIGHT = Watched("p2m_llm_in_flight", "Requests to the LLM under way", "llm")
LLM_WINDOW = Watched("p2m_llm_window", "Requests that may be under way, as far as the LLM's server bears them", "llm")
