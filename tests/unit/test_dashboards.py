"""dashboards/, in a real Prometheus: every panel has something to show, and every alert fires when it should.

apt-get install prometheus
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
import yaml

from services.kit import telemetry
from services.kit.settings import Settings
from services.kit.telemetry.metrics import METRICS, Counter, Gauge, Histogram, Metric, Watched
from tests.conftest import ROOT
from tests.support.seaweed import free_ports

DASHBOARD = ROOT / "dashboards" / "p2m.json"
ALERTS = ROOT / "dashboards" / "alerts.yml"

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="prometheus and promtool are not on the path: apt-get install prometheus",
)

# What a minute brings, from the first on, that each alert is for; and the minute in which it must fire.
FIRE = {
    "RunsFail": ({'p2m_runs_ended_total{state="failed"}': "0 1 2 3 3 3"}, 5),
    "OrchestratorDied": ({"p2m_runs_taken_over_total": "0 0 1 1"}, 3),
    "PartIsDown": ({'up{job="p2m-parts",instance="parser:9464"}': "0x5"}, 4),
    "QueueStands": ({'p2m_calls_waiting{service="trainer"}': "3x10", 'p2m_slots_taken{service="trainer"}': "0x10"}, 8),
    "QueueIsLong": ({'p2m_calls_waiting{service="train"}': "12x40", 'p2m_slots_taken{service="train"}': "1x40"}, 35),
    # One is enough, and nobody knew before that it would be counted.
    "Bug": ({'p2m_calls_total{service="trainer",call="Train",code="INTERNAL"}': "_ _ _ 1x5"}, 5),
    "CallersRefused": ({'p2m_calls_refused_total{service="run",reason="BAD_TOKEN"}': "0+5x10"}, 8),
    "WorkersDie": ({'p2m_worker_seconds_count{job="train",outcome="failed"}': "0+1x20"}, 10),
    "LlmFails": (
        {
            'p2m_llm_requests_total{service="generator",llm="one",outcome="ok"}': "0+30x40",
            'p2m_llm_requests_total{service="generator",llm="one",outcome="limited"}': "0+10x40",
        },
        35,
    ),
    "MoneyRunsOut": ({'p2m_llm_dollars_total{service="generator",llm="one"}': "0+1x20"}, 15),
    "StageIsSlow": (
        {
            'p2m_stage_seconds_bucket{stage="generate",outcome="ok",le="3600"}': "0x60",
            'p2m_stage_seconds_bucket{stage="generate",outcome="ok",le="14400"}': "0+1x60",
            'p2m_stage_seconds_bucket{stage="generate",outcome="ok",le="+Inf"}': "0+1x60",
        },
        50,
    ),
}  # fmt: skip
QUIET = {
    'p2m_runs_ended_total{state="succeeded"}': "0+1x60", 'p2m_runs_ended_total{state="failed"}': "0 1 1x58",
    "p2m_runs_taken_over_total": "0x60", 'up{job="p2m-parts",instance="parser:9464"}': "1x60",
    'p2m_calls_waiting{service="trainer"}': "3x60", 'p2m_slots_taken{service="trainer"}': "1x60",
    'p2m_calls_total{service="trainer",call="Train",code="OK"}': "_ _ 1+1x57",
    'p2m_calls_total{service="trainer",call="Train",code="INTERNAL"}': "4x60",  # long ago
    'p2m_calls_refused_total{service="run",reason="BAD_TOKEN"}': "0 1x59",
    'p2m_llm_requests_total{service="generator",llm="one",outcome="ok"}': "0+30x60",
    'p2m_llm_requests_total{service="generator",llm="one",outcome="limited"}': "0+1x60",
    'p2m_llm_dollars_total{service="generator",llm="one"}': "0+0.1x60",
}  # fmt: skip


def tried(folder: Path, series: dict[str, str], minute: int, expression: str, value: float) -> None:
    """Has promtool feed the series to the rules; AssertionError with what it said where the value is another."""
    case = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": expression, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": value}]}
        ],
    }
    file = folder / "case.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case]}))
    ended = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_is_tried() -> None:
    """What follows leaves no alert out."""
    rules = [rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    assert sorted(rules) == sorted(FIRE)


@pytest.mark.parametrize("alert", FIRE)
def test_an_alert_fires(alert: str, tmp_path: Path) -> None:
    """Each fires on what it is for, and no other does."""
    series, minute = FIRE[alert]
    tried(tmp_path, series, minute, f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)', 1)
    tried(tmp_path, series, minute, f'count(ALERTS{{alertname!="{alert}",alertstate="firing"}}) or vector(0)', 0)


def test_no_alert_fires_while_all_is_well(tmp_path: Path) -> None:
    """A run that fails, a bug of long ago and a few refusals of the LLM's are no reason."""
    tried(tmp_path, QUIET, 55, 'count(ALERTS{alertstate="firing"}) or vector(0)', 0)


def test_every_panel_shows_something(settings: Settings, tmp_path: Path) -> None:
    """Scraped from a part's own endpoint, every expression of the dashboard gives numbers."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    left = {(panel["title"], one["expr"]) for panel in panels for one in panel.get("targets", ())}
    assert len(left) > 20
    assert telemetry.start(settings.model_copy(update={"metrics_port": 0}), "parser")
    try:
        owner = Owner()
        with prometheus(tmp_path, telemetry.metrics_port() or 0) as address:
            ends = time.monotonic() + 60
            while left and time.monotonic() < ends:
                for metric in METRICS:
                    counted(metric, owner)
                time.sleep(0.3)
                left = {(title, expression) for title, expression in left if not numbers(address, expression)}
    finally:
        telemetry.stop()
    assert not left


VALUES = {"state": ("succeeded", "failed"), "outcome": ("ok", "failed"), "kind": ("prompt", "completion")}


class Owner:
    """Whose the watched numbers are."""


def counted(metric: Metric, owner: Owner) -> None:
    """One more of it, for each of its labels' values."""
    each = [*product(*(VALUES.get(label, ("x",)) for label in metric.labels))]
    if isinstance(metric, Watched):
        metric.watch(owner, lambda _: dict.fromkeys(each, 1.0))
    for labels in each:
        if isinstance(metric, Histogram):
            metric.observe(2.0, *labels)
        elif isinstance(metric, Counter | Gauge):
            metric.add(1, *labels)


@contextmanager
def prometheus(folder: Path, port: int) -> Iterator[str]:
    """A Prometheus that scrapes this port twice a second, as docs/observability.md has it; its address."""
    (own,) = free_ports(1)
    job = {"job_name": "p2m", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [job]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config | {"rule_files": [str(ALERTS)]}))
    with (folder / "prometheus.log").open("w") as said:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{own}"], stdout=said, stderr=said,
        )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{own}"
    finally:
        process.terminate()
        process.wait(30)


def numbers(address: str, expression: str) -> bool:
    """Whether it gives a finite number by now. AssertionError where it is no expression."""
    try:
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"{address}/api/v1/query?{query}", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        assert error.code == 503, f"{expression}: {error.read().decode()}"
        return False
    except urllib.error.URLError:
        return False  # not up yet
    return any(math.isfinite(float(one["value"][1])) for one in found)
