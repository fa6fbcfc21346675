"""What a run leaves for those who watch it: one trace through every hop, metrics, and no secret anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from p2m.parser.v1 import parser_pb2, parser_pb2_grpc
from p2m.run.v1 import run_pb2

from orchestrator.client import RunClient
from orchestrator.local import hosted
from orchestrator.runs import STAGES
from services.kit import telemetry
from services.kit.channel import dial, unary, wait_until_serving
from services.kit.settings import Settings
from tests.conftest import ROOT
from tests.integration.conftest import NO_LLM, PROMPT, IdleRuns, finished
from tests.support.collector import Collector, Seen
from tests.support.models import tiny_t5
from tests.support.seaweed import free_ports
from tests.support.teacher import TOY_PROMPT, ScriptedTeacher

pytestmark = pytest.mark.usefixtures("watched_alone")

KEY = "sk-a-planted-key-that-must-show-nowhere"
# What the planted prompt and the teacher's answers are full of, and names of ours are not.
WRITTEN = ("handful of words", "the name of a colour")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as opened:
        yield opened


def scraped(port: int | None = None) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port or telemetry.metrics_port()}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def total(metrics: str, name: str, part: str = "") -> float:
    """The sum of a metric's values over all labels, those whose line has `part`."""
    lines = (line for line in metrics.splitlines() if line.startswith((f"{name}{{", f"{name} ")) and part in line)
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def ancestors(span: Seen, spans: list[Seen]) -> list[str]:
    """The names of a span's parents, the nearest first."""
    by_id = {one.id: one for one in spans}
    names = []
    while span.parent:
        assert span.parent in by_id, f"the parent of {span.name} never came"
        span = by_id[span.parent]
        names.append(span.name)
    return names


async def test_a_run_is_one_trace_through_every_hop(
    tmp_path: Path, collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    """Orchestrator, stages, calls, services, workers and LLM requests of a run are spans of one trace, each under what
    caused it; the metrics agree with the run's ledger; neither the key nor the prompt is in any of it."""
    settings = Settings(
        home=tmp_path / "home", otlp_endpoint=collector.url, metrics_port=0, log_format="json",
        openai_api_key=KEY, threads=1, grace_s=5.0, hub_offline=True, catalogue=tmp_path / "catalogue",
    )  # fmt: skip
    async with ScriptedTeacher() as teacher:
        settings = settings.model_copy(update={"openai_base_url": teacher.url})
        async with hosted(settings) as stack, RunClient(stack.run_target, stack.settings) as client:
            options = run_pb2.RunOptions(
                number=30, skip_datasets=True, model=f"folder:{tiny_t5(tmp_path / 'tiny')}", epochs=1,
                teacher_rows=3, seed=7, export_formats=["none"],
            )  # fmt: skip
            await client.start("observed", TOY_PROMPT, options)
            run = await finished(client, "observed", timeout_s=400)
            assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
            # It is counted a moment after its row is written.
            async with asyncio.timeout(60):
                while not total(metrics := await asyncio.to_thread(scraped), "p2m_runs_ended_total"):
                    await asyncio.sleep(0.1)
    spans = collector.spans()
    names = {span.name for span in spans}

    # One trace, whole, with one root.
    assert len({span.trace for span in spans}) == 1
    assert [span.name for span in spans if not span.parent] == ["run"]
    assert {f"stage {stage}" for stage in STAGES} <= names
    assert {"parser.Parse", "generator.Generate", "trainer.Prepare", "trainer.Train", "evaluator.Evaluate"} <= names
    lines = {span.name: ancestors(span, spans) for span in spans}
    assert lines["parser.Parse"] == ["call parser.Parse", "stage parse", "run"]
    job, worker = "job trainer.train:train", "worker trainer.train:train"
    assert lines[job] == [worker, "trainer.Train", "call trainer.Train", "stage train", "run"]
    asked = [span for span in spans if span.name.startswith("chat ")]
    assert {span.service for span in asked} == {"p2m-parser", "p2m-generator", "p2m-evaluator"}
    assert all(
        span.attributes["gen_ai.usage.input_tokens"] > 0 for span in asked if span.attributes["p2m.outcome"] == "ok"
    )
    # A worker is a process of its own; each span bears its service's name.
    pids = {span.name: span.pid for span in spans}
    assert pids[job] != pids[worker]
    assert {span.service for span in spans} >= {
        "p2m-orchestrator", "p2m-parser", "p2m-generator", "p2m-trainer", "p2m-evaluator",
    }  # fmt: skip

    # The metrics agree with what the run says it spent.
    assert total(metrics, "p2m_llm_tokens_total", 'kind="prompt"') == run.ledger.prompt_tokens
    assert total(metrics, "p2m_llm_tokens_total", 'kind="completion"') == run.ledger.completion_tokens
    assert total(metrics, "p2m_llm_requests_total") == len(asked)
    assert total(metrics, "p2m_stage_seconds_count") == len(STAGES)
    assert total(metrics, "p2m_runs", 'state="succeeded"') == 1
    assert total(metrics, "p2m_runs_ended_total", 'state="succeeded"') == 1
    assert total(metrics, "p2m_slots", 'service="trainer"') == settings.slots
    assert total(metrics, "p2m_calls_total", 'call="Train",code="OK"') == 1
    assert total(metrics, "p2m_worker_seconds_count", 'job="trainer.train:train",outcome="ok"') == 1
    assert total(metrics, "p2m_slots_taken") == 0
    assert total(metrics, "p2m_workers") == 0
    assert total(metrics, "p2m_calls_waiting") == 0

    # The log's lines are JSON and name the run, the stage and the trace.
    said = capfd.readouterr().err
    told = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert any(
        line.get("run") == "observed" and line.get("stage") == "train" and line.get("trace_id") == spans[0].trace
        for line in told
    )

    # No secret, and nothing that anybody wrote.
    sent = b"".join(request.SerializeToString() for request in collector.requests).decode("utf-8", "ignore")
    for secret in (KEY, *WRITTEN):
        assert secret not in sent
        assert secret not in metrics
    assert KEY not in said


@pytest.fixture
def idle_settings(settings: Settings, collector: Collector) -> Settings:
    """Those of the idle runs, with traces."""
    return settings.model_copy(update={"openai_base_url": NO_LLM, "grace_s": 2.0, "otlp_endpoint": collector.url})


async def test_a_run_that_goes_on_stays_in_its_trace(idle_runs: IdleRuns, collector: Collector) -> None:
    """A run that is cancelled in training and gone on with by another orchestrator is one trace, with one root; calls
    that only look at it leave none."""
    hangs = asyncio.Event()

    async def hang(_: object) -> None:
        hangs.set()
        await asyncio.sleep(3600)

    async with idle_runs(before={"trainer.TrainRequest": hang}) as first:
        await first.client.start("on", PROMPT, run_pb2.RunOptions(number=4))
        await asyncio.wait_for(hangs.wait(), 60)
        await first.client.cancel("on")
    early = {span.id for span in collector.spans()}
    async with idle_runs() as second:
        await second.client.start("on", PROMPT, run_pb2.RunOptions(number=4))
        assert (await finished(second.client, "on")).state == run_pb2.RUN_STATE_SUCCEEDED
        await second.client.list()
    spans = collector.spans()
    late = [span for span in spans if span.id not in early]
    assert len({span.trace for span in spans}) == 1
    assert [span.name for span in spans if not span.parent] == ["run"]
    outcomes = [span.attributes["p2m.outcome"] for span in spans if span.name == "stage train"]
    assert sorted(outcomes) == ["cancelled", "ok"]
    assert {"stage train", "trainer.Train", "stage report"} <= {span.name for span in late}
    assert "stage parse" not in {span.name for span in late}
    assert not any("Watch" in span.name or "List" in span.name for span in spans)


async def test_a_service_of_its_own_tells_all_of_it(tmp_path: Path, collector: Collector) -> None:
    """`python -m services.parser` serves its metrics, joins its caller's trace, logs JSON, and on SIGTERM sends its
    last spans before it ends."""
    settings = Settings(home=tmp_path, otlp_endpoint=collector.url)
    port, metrics_port = free_ports(2)
    own = {"P2M_HOME": str(tmp_path), "P2M_PORT": str(port), "P2M_METRICS_PORT": str(metrics_port)}
    own |= {"P2M_OTLP_ENDPOINT": collector.url, "P2M_LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.parser", cwd=ROOT, env=os.environ | own, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert telemetry.start(settings, "orchestrator")
        try:
            async with dial(f"127.0.0.1:{port}", settings) as channel:
                await wait_until_serving(channel, 120)
                with telemetry.stage("alone", 1.5, "parse"):
                    request = parser_pb2.ParseRequest(request_id="alone/parse", prompt=PROMPT)
                    await unary(parser_pb2_grpc.ParserServiceStub(channel).Parse, request)
            metrics = await asyncio.to_thread(scraped, metrics_port)
        finally:
            telemetry.stop()
        process.send_signal(signal.SIGTERM)
        _, said = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    assert total(metrics, "p2m_calls_total", 'call="Parse",code="OK",service="parser"') == 1
    assert total(metrics, "process_resident_memory_bytes") > 0
    spans = {span.name: span for span in collector.spans()}
    assert spans["parser.Parse"].trace == telemetry.trace_id("alone", 1.5)
    assert spans["parser.Parse"].pid == process.pid
    assert spans["parser.Parse"].parent == spans["call parser.Parse"].id
    told = [json.loads(line) for line in said.decode().splitlines() if line.startswith("{")]
    assert {line["service"] for line in told} == {"parser"}
