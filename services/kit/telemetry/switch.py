"""On and off, and where in a run this task is.

start, stop     what the settings ask for, shared by all parts of a process
Where, where    service, run, stage and span of what is going on here
"""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings

if TYPE_CHECKING:
    from services.kit.telemetry.endpoint import Endpoint
    from services.kit.telemetry.spans import Span, Spans

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Where:
    """What is going on in this task: of which service, for which run and stage, under which span."""

    service: str = ""
    run: str = ""
    stage: str = ""
    span: Span | None = None


@dataclass
class _State:
    """What is on in this process. `on` is whether anything is."""

    on: bool = False
    users: int = 0
    process: str = ""
    spans: Spans | None = None
    endpoint: Endpoint | None = None


state = _State()
here: ContextVar[Where] = ContextVar("p2m_where", default=Where())  # noqa: B039 (frozen)
_lock = threading.Lock()


def start(settings: Settings, service: str, *, worker: bool = False) -> bool:
    """Switches on what the settings ask for; whether that is anything, so that a `stop` is due.

    Several parts of one process share what the first one switched on. A worker has no endpoint of its own. Raises
    FailedPrecondition (NO_OBSERVABILITY) where the libraries are absent; a port that is taken costs the metrics alone.
    """
    serves = settings.metrics_port is not None and not worker
    if not (settings.otlp_endpoint or serves or settings.log_format == "json"):
        return False
    with _lock:
        if not state.users:
            state.process = service
            try:
                if settings.otlp_endpoint:
                    from services.kit.telemetry.spans import Spans

                    state.spans = Spans(settings.otlp_endpoint)
                if serves:
                    state.endpoint = _endpoint(settings)
            except ImportError as error:
                raise FailedPrecondition(
                    "NO_OBSERVABILITY",
                    f"P2M_OTLP_ENDPOINT or P2M_METRICS_PORT is set and {error.name} is not installed: run pip install "
                    "'p2m[observability]', or unset them.",
                ) from error
        state.users += 1
        state.on = True
    return True


def stop() -> None:
    """Undoes one `start`. The last one sends what is left, which takes a few seconds at most."""
    with _lock:
        state.users -= 1
        if state.users:
            return
        spans, endpoint = state.spans, state.endpoint
        state.on, state.spans, state.endpoint = False, None, None
    if endpoint is not None:
        endpoint.close()
    if spans is not None:
        spans.close()


def tracing() -> bool:
    """Whether spans are sent."""
    return state.spans is not None


def metrics_port() -> int | None:
    """The port of this process's Prometheus endpoint; None where it has none."""
    return state.endpoint.port if state.endpoint else None


def where() -> Where:
    """What is going on here; the process's own name where that is nothing."""
    there = here.get()
    return there if there.service else replace(there, service=state.process)


def _endpoint(settings: Settings) -> Endpoint | None:
    from services.kit.telemetry.endpoint import Endpoint

    assert settings.metrics_port is not None
    try:
        return Endpoint(settings.metrics_host, settings.metrics_port)
    except OSError as error:
        log.warning(
            "There are no metrics: %s:%d cannot be bound (%s). Set P2M_METRICS_PORT to a free port.",
            settings.metrics_host, settings.metrics_port, error.strerror or error,
        )  # fmt: skip
        return None
