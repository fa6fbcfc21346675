"""What the parts of the system call where something begins, ends or is handed on.

Those that begin something give a context manager (`observed`). What they tell is names, numbers and an error's reason:
never its message, and nothing that a person or the LLM wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from services.kit.telemetry import metrics
from services.kit.telemetry.observed import NOTHING, Observed, Seen
from services.kit.telemetry.switch import Where, here, state

if TYPE_CHECKING:
    from services.kit.values import Ledger

ORCHESTRATOR = "orchestrator"
_TRACEPARENT = "traceparent"
# These say that a service would not do what was asked, not that it failed at it.
_REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT")


# -- the orchestrator


def began(run: str, created_at: float) -> None:
    """The first span of a run's trace, once: when the run was created, seconds of the epoch."""
    if state.spans is not None:
        state.spans.root("run", ORCHESTRATOR, _root(run, created_at), {"p2m.run": run}, created_at)


def stage(run: str, created_at: float, name: str) -> Observed:
    """A stage of a run."""
    if not state.on:
        return NOTHING

    def then(done: Seen, seconds: float) -> None:
        metrics.STAGE_SECONDS.observe(seconds, name, done.outcome)

    return Seen(f"stage {name}", Where(ORCHESTRATOR, run, name), _root(run, created_at), {}, then)


def trace_id(run: str, created_at: float) -> str:
    """The id of a run's trace: 32 hexadecimal digits."""
    return _root(run, created_at).split("-")[1]


def _root(run: str, created_at: float) -> str:
    """The run's first span, as W3C Trace Context writes it."""
    digest = hashlib.sha256(f"{run}\0{created_at!r}".encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


# -- calls


def calling(method: Any) -> Observed:
    """A call of a stub's method, with its waiting and its tries."""
    if not state.on:
        return NOTHING
    service, call = _names(getattr(method, "_method", b""))
    there = here.get()

    def then(done: Seen, _: float) -> None:
        if done.waiting:
            metrics.CALLS_WAITING.add(-1, service)

    name, attributes = f"call {service}.{call}", _rpc(service, call)
    return Seen(name, there, _parent(there), attributes, then, "client", queue=service)


def carried() -> tuple[tuple[str, str], ...]:
    """The metadata that hands the trace on to another service."""
    if not state.on:
        return ()
    parent = _parent(here.get())
    return ((_TRACEPARENT, parent),) if parent else ()


def served(method: str, context: Any) -> Observed:
    """A call that is being served; `context` is gRPC's."""
    if not state.on:
        return NOTHING
    service, call = _names(method)
    given = dict(context.invocation_metadata() or ()).get(_TRACEPARENT, "")

    def then(done: Seen, seconds: float) -> None:
        metrics.CALLS.add(1, service, call, done.code)
        metrics.CALL_SECONDS.observe(seconds, service, call)
        if done.code in _REFUSALS:
            metrics.CALLS_REFUSED.add(1, service, done.reason)

    return Seen(f"{service}.{call}", Where(service), str(given), _rpc(service, call), then, "server")


def asked_for(request_id: str) -> None:
    """From now on this task works for that request: "<run>/<stage>[/...]"."""
    if not state.on:
        return
    run, _, rest = request_id.partition("/")
    there = replace(here.get(), run=run, stage=rest.partition("/")[0])
    here.set(there)
    if there.span is not None:
        there.span.set({"p2m.run": there.run, "p2m.stage": there.stage, "p2m.request": request_id})


def reused(service: str) -> None:
    """The request that is being served has a stored result."""
    metrics.RESULTS_REUSED.add(1, service)
    if state.spans is not None and (span := here.get().span) is not None:
        span.set({"p2m.reused": True})


def _names(method: str | bytes) -> tuple[str, str]:
    """("parser", "Parse") of "/p2m.parser.v1.ParserService/Parse"."""
    path = method.decode() if isinstance(method, bytes) else method
    full, _, call = path.strip("/").rpartition("/")
    parts = full.split(".")
    return known_as(parts[1] if len(parts) > 2 else full), call


def known_as(service: str) -> str:
    """What a service is called here: its name, and "orchestrator" for "run"."""
    return ORCHESTRATOR if service == "run" else service


def _rpc(service: str, call: str) -> dict[str, str]:
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": call}


def _parent(there: Where) -> str:
    return there.span.traceparent if there.span else ""


# -- worker processes


def working(job: str) -> Observed:
    """A worker process that does one job for this task."""
    if not state.on:
        return NOTHING
    there, name = here.get(), _job(job)

    def then(done: Seen, seconds: float) -> None:
        metrics.WORKERS.add(-1, name)
        metrics.WORKER_SECONDS.observe(seconds, name, done.outcome)

    metrics.WORKERS.add(1, name)
    return Seen(f"worker {name}", there, _parent(there), {}, then)


def handed() -> dict[str, dict[str, str]]:
    """What a worker must be told besides its request, as a part of the message."""
    if not state.on:
        return {}
    there = here.get()
    told = {"service": there.service, "run": there.run, "stage": there.stage, _TRACEPARENT: _parent(there)}
    return {"where": {key: value for key, value in told.items() if value}}


def received(told: Mapping[str, str] | None, job: str) -> Observed:
    """The job itself, in the worker; `told` is what `handed` gave, None where it gave nothing."""
    if not state.on or told is None:
        return NOTHING
    there = Where(told.get("service", state.process), told.get("run", ""), told.get("stage", ""))
    return Seen(f"job {_job(job)}", there, told.get(_TRACEPARENT, ""), {}, lambda *_: None)


def _job(target: str) -> str:
    return target.removeprefix("services.")


# -- the LLM


def asking(service: str, llm: str) -> Observed:
    """One request to the LLM."""
    if not state.on:
        return NOTHING
    there = here.get()

    def then(done: Seen, seconds: float) -> None:
        outcome = done.reason.lower() if done.outcome == "failed" else done.outcome
        metrics.LLM_REQUESTS.add(1, service, llm, outcome)
        metrics.LLM_SECONDS.observe(seconds, service, llm)

    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": llm}
    return Seen(f"chat {llm}", there, _parent(there), attributes, then, "client")


def spent(service: str, llm: str, cost: Ledger) -> None:
    """What the LLM charged."""
    if not state.on:
        return
    metrics.LLM_TOKENS.add(cost.prompt_tokens, service, llm, "prompt")
    metrics.LLM_TOKENS.add(cost.completion_tokens, service, llm, "completion")
    metrics.LLM_DOLLARS.add(cost.dollars, service, llm)


def by_batch(service: str, llm: str, cost: Ledger) -> None:
    """An answer that came with a batch's others, at this cost."""
    metrics.LLM_REQUESTS.add(1, service, llm, "invalid" if cost.invalid else "ok")
    spent(service, llm, cost)
