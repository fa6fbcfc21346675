"""What a run does, seen from outside: traces, metrics, and names for the logs. Off unless the settings ask for it.

    start, stop          once per part of a process; the last stop sends what is left     switch
    where                service, run, stage and trace of what is going on, for the logs   switch
    began, stage         the orchestrator: a run's first span; a stage of a run            hooks
    calling, carried     a call to a service, and the metadata that it bears
    served, asked_for    a call that is served; for which request it is
    working, handed, received
                         a worker process: in the parent, on the way, in the child
    asking, spent, by_batch
                         a request to the LLM, and what it cost; an answer of a batch
    metrics              every metric there is: `metrics.RUNS_ENDED.add(1, "succeeded")`

    P2M_OTLP_ENDPOINT ── spans        one trace a run:  run ── stage ── call ── served ─┬─ worker ── job
    P2M_METRICS_PORT  ── endpoint                                                       └─ chat
    P2M_LOG_FORMAT    ── kit.logs

A call that bears no trace begins none, so a trace is always a run's. Its id follows from the run's name and the time of
its creation, so it is the same after a resume, in whichever process. While all is off, each of these returns at once
and no library of telemetry is imported (`python -m bench.telemetry` has the figures). docs/observability.md tells what
there is to see.
"""

from services.kit.telemetry import metrics
from services.kit.telemetry.hooks import (
    asked_for,
    asking,
    began,
    by_batch,
    calling,
    carried,
    handed,
    known_as,
    received,
    reused,
    served,
    spent,
    stage,
    trace_id,
    working,
)
from services.kit.telemetry.observed import Observed
from services.kit.telemetry.switch import metrics_port, start, stop, tracing, where

__all__ = [
    "Observed", "asked_for", "asking", "began", "by_batch", "calling", "carried", "handed", "known_as", "metrics",
    "metrics_port", "received", "reused", "served", "spent", "stage", "start", "stop", "trace_id", "tracing", "where",
    "working",
]  # fmt: skip
