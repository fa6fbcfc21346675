"""A run in a few lines: at its end, in `p2m show`, and in `p2m list`."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path
from typing import Any, TextIO

from p2m.run.v1 import run_pb2

from orchestrator.amounts import bytes_text, seconds_text, spend_text
from orchestrator.display import clean, stage_line
from orchestrator.report import CONTESTANT_TITLES, change, main_slice
from services.kit.values import Ledger
from services.kit.wire import from_message

_METRICS = (("exact_match", "exact match"), ("exact_match_normalised", "normalised"), ("chrf", "chrF++"))


def ending(stream: TextIO, run: run_pb2.Run, record: dict[str, Any], folder: Path | None) -> None:
    """What came of a run and what to do next."""

    def say(text: str = "") -> None:
        print(text, file=stream, flush=True)

    say()
    if run.state == run_pb2.RUN_STATE_FAILED:
        where = f" in {run.error.stage}" if run.error.stage else ""
        say(f"Run {run.name} failed{where}: {clean(run.error.message)}")
        say("What is done is kept: the same command tries again from there.")
        return
    if run.state == run_pb2.RUN_STATE_CANCELLED:
        say(f"Run {run.name} was cancelled. What it has is kept: the same command goes on with it.")
        say(f"The rows so far: p2m data {run.name} --out FILE")
        return
    say(_verdict(run))
    scores(stream, record)
    if changed := change(record):
        say("\n" + textwrap.fill(changed, 100))
    say()
    say(f"  time    {_time(run)}")
    say(f"  cost    {spend_text(from_message(run.ledger, Ledger)) or 'nothing'}")
    if folder is not None:
        say(f"  model   {folder / 'model'}")
        say(f"  report  {folder / 'report.html'}")
    for row in (record.get("exports") or {}).get("formats", []):
        if row.get("measured"):
            size, latency = bytes_text(row["model"]["size_bytes"]), row["measured"]["latency"]
            say(f"  ships   {row['format']}: {size}, {latency['p50_ms']:.0f} ms an answer")
    say()
    say(f"Try it: p2m demo {run.name}   Serve it: p2m serve {folder or run.name}")


def scores(stream: TextIO, record: dict[str, Any]) -> None:
    """A line a contestant: its scores with their 95 % intervals."""
    measured = (record.get("evaluation") or {}).get("scores") or []
    part = main_slice(measured)
    found = {(s["contestant"], s["metric"]): s for s in measured if s["slice"] == part}
    names = list(dict.fromkeys(name for name, _ in found))
    if not names:
        return
    print(file=stream)
    print("  " + " " * 19 + "".join(f"{title:>24}" for _, title in _METRICS) + f"{'rows':>8}", file=stream)
    for name in names:
        cells = []
        for metric, _ in _METRICS:
            estimate = found.get((name, metric), {}).get("estimate")
            text = f"{estimate['value']:.1f} ({estimate['low']:.1f}–{estimate['high']:.1f})" if estimate else ""
            cells.append(f"{text:>24}")
        rows = max(s["rows"] for (who, _), s in found.items() if who == name)
        print(f"  {CONTESTANT_TITLES.get(name, clean(name)):<19}" + "".join(cells) + f"{rows:>8}", file=stream)


def run(stream: TextIO, shown: run_pb2.Run, record: dict[str, Any]) -> None:
    """All that is known about one run."""

    def say(text: str = "") -> None:
        print(text, file=stream)

    say(f"Run {shown.name}: {state_word(shown)}")
    if shown.interrupted:
        say("  Its process is gone, and what is finished is kept: the same `p2m run` goes on with it.")
    say(f"  prompt  {clean(shown.prompt)}")
    say(f"  begun   {_when(shown)}   time {_time(shown)}" + (f"   by {clean(shown.owner)}" if shown.owner else ""))
    spent = spend_text(from_message(shown.ledger, Ledger))
    if spent:
        say(f"  spent   {spent}")
    say()
    for stage in shown.stages:
        say(f"  {stage.name:<9} {stage_line(stage, time.time())}")
    if shown.HasField("question") and shown.state == run_pb2.RUN_STATE_WAITING:
        say(f"\nIt waits for an answer: {clean(shown.question.text)}")
        for line in shown.question.details:
            say(f"    {clean(line)}")
        say(f"  p2m choose {shown.name} {shown.question.id} VALUE      VALUE being one of:")
        for option in shown.question.options:
            say(f"    {clean(option.value):<30} {clean(option.label)}".rstrip())
    if shown.HasField("error"):
        say(f"\nIt failed: {clean(shown.error.message)}")
    if shown.verdict:
        say()
        say(_verdict(shown))
        scores(stream, record)
        say(f"\nTry it: p2m demo {shown.name}")


def table(stream: TextIO, runs: list[run_pb2.Run]) -> None:
    """Runs, a line each, newest first."""
    wide = max(4, *(len(found.name) for found in runs))
    owned = max(len(found.owner) for found in runs)
    by = f"{'BY':<{max(2, owned)}}  " if owned else ""
    print(f"{'NAME':<{wide}}  {'STATE':<11}  {'BEGUN':<16}  {by}RESULT", file=stream)
    for found in runs:
        gone = "its process is gone; the same p2m run goes on with it" if found.interrupted else ""
        result = found.verdict or found.error.message or gone or found.prompt
        told = f"{found.owner:<{len(by)}}{clean(result)}"
        line = f"{found.name:<{wide}}  {state_word(found):<11}  {_when(found):<16}  {told}"
        print(line if len(line) <= 160 else line[:159] + "…", file=stream)


def state_word(run: run_pb2.Run) -> str:
    """ "succeeded", "running", ...; "interrupted" where it would be running if its process were not gone."""
    return "interrupted" if run.interrupted else run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()


def _verdict(shown: run_pb2.Run) -> str:
    return textwrap.fill(f"Verdict: {clean(shown.verdict) or 'nothing was measured.'}", 100)


def _when(shown: run_pb2.Run) -> str:
    return (
        time.strftime("%Y-%m-%d %H:%M", time.localtime(shown.created_at.seconds))
        if shown.HasField("created_at")
        else ""
    )


def _time(shown: run_pb2.Run) -> str:
    if not shown.HasField("created_at"):
        return ""
    ended = shown.ended_at.ToNanoseconds() / 1e9 if shown.HasField("ended_at") else time.time()
    return seconds_text(ended - shown.created_at.ToNanoseconds() / 1e9)
