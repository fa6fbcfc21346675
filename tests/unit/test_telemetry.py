"""Telemetry: nothing while it is off, and what it tells while it is on."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import sys
import time
import timeit
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from p2m.generator.v1 import generator_pb2_grpc
from pydantic import SecretStr

from bench import telemetry as cost
from services.kit import logs, telemetry
from services.kit.channel import dial, stream
from services.kit.errors import FailedPrecondition, NotFound, Unauthenticated
from services.kit.settings import Settings
from services.kit.telemetry.metrics import METRICS, Histogram
from services.kit.worker import run
from tests.conftest import ROOT
from tests.support.collector import Collector
from tests.support.jobs import Order, Outcome
from tests.support.processes import until
from tests.support.toy import Toy, ask, hosted

DASHBOARD = ROOT / "dashboards" / "p2m.json"
ALERTS = ROOT / "dashboards" / "alerts.yml"
DOCS = ROOT / "docs" / "observability.md"
NAME = re.compile(r"\b(?:p2m|process)_[a-z0-9_]+\b")
TRACE = ("a-run", 1_700_000_000.25)


@contextmanager
def on(settings: Settings, **changes: Any) -> Iterator[Settings]:
    """Telemetry is on for the length of the block."""
    changed = settings.model_copy(update=changes)
    assert telemetry.start(changed, "parser")
    try:
        yield changed
    finally:
        telemetry.stop()


def scraped() -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{telemetry.metrics_port()}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def value(text: str, line: str) -> float:
    """The value of one line of the endpoint; 0 where it is not there."""
    return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(f"{line} ")), 0.0)


# -- off


async def test_a_run_without_telemetry_imports_none_of_it(tmp_path: Path) -> None:
    """A whole run over six services, with everything off, ends without OpenTelemetry or prometheus_client imported."""
    code = """
import asyncio, sys
from collections import Counter
from p2m.run.v1 import run_pb2
from bench.idle import idle
from orchestrator.client import RunClient
from orchestrator.local import hosted
from services.kit.settings import Settings
async def main():
    settings = Settings(openai_base_url="http://127.0.0.1:9/v1")
    async with idle(settings, Counter()) as targets, hosted(settings.model_copy(update=targets)) as stack:
        async with RunClient(stack.run_target, stack.settings) as client:
            await client.start("off", "Name the colour.", run_pb2.RunOptions(number=4))
            async for _ in client.watch("off"):
                pass
            assert (await client.get("off")).state == run_pb2.RUN_STATE_SUCCEEDED
    print([name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "prometheus_client")])
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, env={"PATH": "/usr/bin:/bin", "P2M_HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, said.strip()) == (0, b"[]")


@pytest.mark.parametrize("hook", cost.HOOKS)
def test_a_hook_that_is_off_costs_about_a_microsecond(hook: str) -> None:
    """Off, no hook takes 2 microseconds: the best of many tries, on a machine that does other things too."""
    assert min(timeit.repeat(cost.HOOKS[hook], number=1_000, repeat=30)) / 1_000 < 2e-6


def test_nothing_is_on_by_default(settings: Settings) -> None:
    """The default settings switch nothing on."""
    assert not telemetry.start(settings, "parser")
    assert telemetry.metrics_port() is None
    assert Settings(metrics_port="").metrics_port is None  # as compose hands on a variable that is not set


# -- what there is to see


def test_the_dashboard_shows_every_metric_and_no_other(settings: Settings) -> None:
    """Every metric is on the dashboard, every name of the dashboard, the alerts and the docs is one that is served."""
    with on(settings, metrics_port=0):
        families = re.findall(r"^# TYPE (\S+) (\S+)", scraped(), re.M)
    served = {name for name, _ in families}
    served |= {
        f"{name}_{part}" for name, kind in families if kind == "histogram" for part in ("bucket", "sum", "count")
    }
    panels = json.loads(DASHBOARD.read_text())["panels"]
    shown = {name for panel in panels for target in panel.get("targets", ()) for name in NAME.findall(target["expr"])}
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    watched = {name for rule in rules for name in NAME.findall(rule["expr"])}
    assert shown - served == set()
    assert watched - served == set()
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in served else name for name in shown}
    plain |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    assert {metric.name for metric in METRICS} - plain == set()
    told = set(re.findall(r"^\| `(p2m_[a-z_]+)`", DOCS.read_text(), re.M))
    assert told == {metric.name for metric in METRICS}


def test_every_metric_is_counted_somewhere() -> None:
    """Each metric of the table is used by code outside of it: none is told that nothing ever changes."""
    table = (ROOT / "services/kit/telemetry/metrics.py").read_text()
    names = re.findall(r"^([A-Z_]+) = (?:Watched|Counter|Histogram|Gauge)\(", table, re.M)
    assert len(names) == len(METRICS) > 15
    code = "".join(
        path.read_text()
        for folder in ("services", "orchestrator")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "metrics.py" or path.parent.name != "telemetry"
    )
    assert [name for name in names if f"metrics.{name}." not in code] == []


def test_what_is_known_beforehand_is_told_as_none(settings: Settings) -> None:
    """A first failed run is growth to Prometheus: it was told before that there was none."""
    with on(settings, metrics_port=0):
        told = re.findall(r'^p2m_runs_ended_total\{state="(\w+)"\} 0\.0$', scraped(), re.M)
    assert sorted(told) == ["cancelled", "failed", "succeeded"]


def test_times_are_in_seconds_and_counters_say_so() -> None:
    """Names keep to Prometheus's custom: histograms of times end in _seconds, counters in _total, gauges in neither."""
    for metric in METRICS:
        ending = {"counter": "_total", "histogram": "_seconds"}.get(metric.kind)
        assert metric.name.endswith(ending) if ending else not metric.name.endswith(("_total", "_seconds"))
        assert not isinstance(metric, Histogram) or metric.buckets


# -- metrics


@pytest.mark.usefixtures("watched_alone")
async def test_calls_are_counted_by_outcome(settings: Settings) -> None:
    """A call that ends well, one that fails, and one that finds no slot are counted apart, with the reason."""
    with on(settings, metrics_port=0, slots=1) as changed:
        toy = Toy(changed)
        async with hosted(toy) as server, dial(f"127.0.0.1:{server.port}", changed) as channel:
            generate = generator_pb2_grpc.GeneratorServiceStub(channel).Generate
            await stream(generate, ask("answer", "one/generate"))
            await stream(generate, ask("answer", "one/generate"))
            with pytest.raises(NotFound):
                await stream(generate, ask("refuse", "two/generate"))
            waiting = asyncio.ensure_future(stream(generate, ask("wait", "three/generate")))
            await until(lambda: toy.stage.slots.taken, 30)
            busy = await asyncio.to_thread(scraped)
            queued = asyncio.ensure_future(stream(generate, ask("answer", "four/generate")))
            await until(lambda: telemetry.metrics.CALLS_WAITING._of(("generator",))._value.get() == 1, 30)
            toy.release.set()
            await asyncio.gather(waiting, queued)
            text = await asyncio.to_thread(scraped)
    assert value(busy, 'p2m_slots_taken{service="generator"}') == 1
    assert value(busy, 'p2m_slots{service="generator"}') == 1
    assert value(text, 'p2m_calls_total{call="Generate",code="OK",service="generator"}') == 4
    assert value(text, 'p2m_calls_total{call="Generate",code="NOT_FOUND",service="generator"}') == 1
    assert value(text, 'p2m_calls_refused_total{reason="NO_FREE_SLOT",service="generator"}') >= 1
    assert value(text, 'p2m_results_reused_total{service="generator"}') == 1
    assert value(text, 'p2m_calls_waiting{service="generator"}') == 0


async def test_a_caller_without_the_token_is_counted(settings: Settings) -> None:
    """A call that does not bear the token counts as refused, with the reason."""
    with on(settings, metrics_port=0, token=SecretStr("right")) as changed:
        toy = Toy(changed)
        toy.name = "run"  # whose callers must bear one
        async with hosted(toy) as server, dial(f"127.0.0.1:{server.port}", changed) as channel:
            with pytest.raises(Unauthenticated):
                await stream(generator_pb2_grpc.GeneratorServiceStub(channel).Generate, ask("answer"))
        text = await asyncio.to_thread(scraped)
    assert value(text, 'p2m_calls_refused_total{reason="BAD_TOKEN",service="generator"}') == 1
    assert toy.worked == 0


async def test_a_port_that_is_taken_costs_the_metrics_alone(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the metrics' port is taken the part runs on, and a warning says what to set."""
    with socket.create_server(("127.0.0.1", 0)) as taken, on(settings, metrics_port=taken.getsockname()[1]):
        assert telemetry.metrics_port() is None
    assert "P2M_METRICS_PORT" in caplog.text


def test_without_the_libraries_it_says_what_to_install(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for metrics without the extra, a part ends with FAILED_PRECONDITION and the command that installs it."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "services.kit.telemetry.endpoint", raising=False)
    with pytest.raises(FailedPrecondition, match=r"pip install 'p2m\[observability\]'"):
        telemetry.start(settings.model_copy(update={"metrics_port": 0}), "parser")
    assert not telemetry.tracing()


# -- traces


async def test_a_trace_goes_over_a_call_into_a_worker(settings: Settings) -> None:
    """Stage, call, service, worker and job are one line of one trace; a call that bears no trace begins none."""
    with Collector() as collector:
        with on(settings, otlp_endpoint=collector.url) as changed:
            toy = Toy(changed, folder=None)
            async with hosted(toy) as server, dial(f"127.0.0.1:{server.port}", changed) as channel:
                generate = generator_pb2_grpc.GeneratorServiceStub(channel).Generate
                await stream(generate, ask("answer", "alone/generate"))
                telemetry.began(*TRACE)
                with telemetry.stage(*TRACE, "generate"):
                    await stream(generate, ask("answer", "a-run/generate"))
                    await run("tests.support.jobs:work", Order("echo", size=3), Outcome, changed)
                    with pytest.raises(NotFound):
                        await stream(generate, ask("refuse", "a-run/generate/1"))
        spans = {(span.name, span.failed): span for span in collector.spans()}
    root = spans["run", ""]
    stage = spans["stage generate", ""]
    served, worker = spans["generator.Generate", ""], spans["worker tests.support.jobs:work", ""]
    assert {span.trace for span in spans.values()} == {telemetry.trace_id(*TRACE)}
    assert root.parent == ""
    assert stage.parent == root.id
    assert served.parent == spans["call generator.Generate", ""].id
    assert served.attributes["p2m.request"] == "a-run/generate"
    assert spans["job tests.support.jobs:work", ""].parent == worker.id
    assert spans["job tests.support.jobs:work", ""].pid != worker.pid
    assert spans["generator.Generate", "NO_SUCH_MODEL"].attributes["p2m.outcome"] == "failed"


async def test_a_cancelled_call_is_still_cancelled(settings: Settings) -> None:
    """With tracing on a cancel reaches the work, and the span says cancelled."""
    with Collector() as collector:
        with on(settings, otlp_endpoint=collector.url) as changed:
            toy = Toy(changed)
            async with hosted(toy) as server, dial(f"127.0.0.1:{server.port}", changed) as channel:
                generate = generator_pb2_grpc.GeneratorServiceStub(channel).Generate
                with telemetry.stage(*TRACE, "generate"):
                    call = asyncio.ensure_future(stream(generate, ask("wait")))
                    await until(lambda: toy.worked == 1, 30)
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                await until(lambda: toy.ended == 1, 30)
                await until(lambda: not toy.stage.slots.taken, 30)
        spans = {span.name: span for span in collector.spans()}
    assert spans["generator.Generate"].attributes["p2m.outcome"] == "cancelled"
    assert spans["call generator.Generate"].attributes["p2m.outcome"] == "cancelled"
    assert not any(span.failed for span in spans.values())


async def test_a_collector_that_is_down_holds_nobody_up(settings: Settings) -> None:
    """Where nobody takes the spans, a worker's result comes all the same and its process ends within seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with on(settings, otlp_endpoint=url) as changed, telemetry.stage(*TRACE, "train"):
            outcome = await run("tests.support.jobs:work", Order("echo", size=3), Outcome, changed)
        assert (outcome.said, time.monotonic() - began < 60) == ("xxx", True)


# -- logs


def test_a_log_line_in_json_names_run_stage_and_trace(settings: Settings) -> None:
    """Each record is one line of JSON: what was said and where in which run; without a run, the service alone."""
    record = logging.LogRecord("services.x", logging.WARNING, __file__, 1, "it\nis %s", ("so",), None)
    form = logs._Json()
    with Collector() as collector, on(settings, log_format="json", otlp_endpoint=collector.url):
        alone = json.loads(form.format(record))
        with telemetry.stage(*TRACE, "train"):
            said = form.format(record)
    assert "\n" not in said
    told = json.loads(said)
    assert (told["level"], told["message"], told["logger"]) == ("WARNING", "it\nis so", "services.x")
    assert (told["service"], told["run"], told["stage"]) == ("orchestrator", "a-run", "train")
    assert told["trace_id"] == telemetry.trace_id(*TRACE)
    assert alone["service"] == "parser"
    assert not {"run", "stage", "trace_id"} & alone.keys()
