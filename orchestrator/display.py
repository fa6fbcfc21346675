"""A run as a person sees it: a live table in a terminal, plain lines elsewhere, a summary at the end.

    watch(terminal, name) ─┬─ Live     rich: a row a stage, with spinner, bar, message, time, spend
                           └─ Plain    a line when a stage changes, and every few seconds while it works
    question(terminal, ...)            what a waiting run wants to know
    summary(terminal, ...)             verdict, scores, cost, where everything is, what to do next

Both take `WatchResponse`s as they come and hold nothing but the newest state of each stage.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, TextIO

from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from orchestrator.amounts import seconds_text, spend_text
from services.kit.values import Ledger
from services.kit.wire import from_message

STAGES = ("parse", "datasets", "generate", "models", "prepare", "train", "evaluate", "export", "report")
_PLAIN_INTERVAL_S = 5.0
_WIDE = 90
_STATES = {
    run_pb2.STAGE_STATE_DONE: ("✓", "green", "done"),
    run_pb2.STAGE_STATE_SKIPPED: ("–", "yellow", "skipped"),
    run_pb2.STAGE_STATE_FAILED: ("✗", "red", "failed"),
    run_pb2.STAGE_STATE_WAITING: ("?", "cyan", "waits for you"),
}


class View(Protocol):
    """What shows a run."""

    def update(self, response: run_pb2.WatchResponse) -> None:
        """Takes in one change."""

    def pause(self) -> None:
        """Leaves the terminal to somebody else until the next update."""

    def close(self) -> None:
        """Shows the last state for good."""


def view(stream: TextIO, clock: Callable[[], float] = time.time) -> View:
    """The live table where `stream` is a terminal that can show one, else plain lines."""
    if stream.isatty():
        from rich.console import Console

        console = Console(file=stream)
        if console.is_terminal and not console.is_dumb_terminal:
            return Live(console, clock)
    return Plain(stream, clock)


class Plain:
    """Lines: `12:03:05 generate  120/200 examples  31 requests`."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream
        self._clock = clock
        self._states: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._lines: dict[str, str] = {}

    def update(self, response: run_pb2.WatchResponse) -> None:
        stages = [response.stage] if response.HasField("stage") else response.run.stages
        for stage in stages:
            self._show(stage)

    def pause(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing is held back."""

    def _show(self, stage: run_pb2.Stage) -> None:
        if stage.state in (run_pb2.STAGE_STATE_UNSPECIFIED, run_pb2.STAGE_STATE_PENDING):
            return
        now = self._clock()
        changed = self._states.get(stage.name) != stage.state
        if not changed and now - self._last.get(stage.name, now) < _PLAIN_INTERVAL_S:
            self._last.setdefault(stage.name, now)
            return
        line = f"{stage.name:<9} {stage_line(stage, now)}"
        if line != self._lines.get(stage.name):
            print(f"{time.strftime('%H:%M:%S', time.localtime(now))} {line}", file=self._stream, flush=True)
        self._states[stage.name], self._last[stage.name], self._lines[stage.name] = stage.state, now, line


class Live:
    """A table that is drawn again and again in place."""

    def __init__(self, console: Any, clock: Callable[[], float] = time.time) -> None:
        from rich.live import Live as RichLive
        from rich.spinner import Spinner

        self._console = console
        self._clock = clock
        self._stages: dict[str, run_pb2.Stage] = {}
        self._spinners: dict[str, Any] = {name: Spinner("dots", style="cyan") for name in STAGES}
        self._make: Any = lambda: RichLive(
            console=console, get_renderable=self._table, refresh_per_second=8, transient=False
        )
        self._live: Any = None

    def update(self, response: run_pb2.WatchResponse) -> None:
        for stage in [response.stage] if response.HasField("stage") else response.run.stages:
            kept = self._stages.setdefault(stage.name, run_pb2.Stage())
            kept.CopyFrom(stage)
        if response.HasField("run") and response.run.state == run_pb2.RUN_STATE_WAITING:
            return  # the question has the terminal
        if self._live is None:
            self._live = self._make()
            self._live.start(refresh=True)

    def pause(self) -> None:
        if self._live is not None:
            self._live.transient = True
            self._live.stop()
            self._live = None

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        now = self._clock()
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(width=9, no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(justify="right", no_wrap=True, style="dim")
        table.add_column(justify="right", no_wrap=True, style="dim")
        wide = self._console.width >= _WIDE
        for name in [*STAGES, *(name for name in self._stages if name not in STAGES)]:
            stage = self._stages.get(name, run_pb2.Stage(name=name))
            running = stage.state == run_pb2.STAGE_STATE_RUNNING
            glyph, style, _ = _STATES.get(stage.state, ("·", "dim", ""))
            table.add_row(
                self._spinners.get(name, Text("•", "cyan")) if running else Text(glyph, style),
                Text(name, "bold" if running else "" if stage.state in _STATES else "dim"),
                self._bar(stage)
                if running
                else Text(clean(stage.message), style if style in ("red", "yellow") else ""),
                Text(_clock_text(_seconds(stage, now))),
                Text(spend_text(replace(_ledger(stage), prompt_tokens=0, completion_tokens=0)) if wide else ""),
            )
        return table

    def _bar(self, stage: run_pb2.Stage) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = stage.progress
        words = Text(_progress_words(progress) or clean(stage.message) or "…", overflow="ellipsis", no_wrap=True)
        if progress.total <= 0:
            return words
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(width=16)
        row.add_column(ratio=1)
        row.add_row(
            ProgressBar(
                total=progress.total, completed=min(progress.done, progress.total), width=16, complete_style="cyan"
            ),
            words,
        )
        return Group(row)


def question(stream: TextIO, asked: run_pb2.Question, run: str) -> None:
    """Prints a question with its options numbered, and the command that answers it from elsewhere."""
    print(f"\n{clean(asked.text)}", file=stream)
    for line in asked.details:
        print(f"      {clean(line)}", file=stream)
    for number, option in enumerate(asked.options, 1):
        own = "  (what p2m would take)" if number == 1 else ""
        print(f"  {number:>2}  {clean(option.label or option.value)}{own}", file=stream)
    print(f"\nFrom elsewhere: p2m choose {run} {asked.id} VALUE, with one of these values:", file=stream)
    print("  " + "  ".join(_quoted(option.value) for option in asked.options), file=stream, flush=True)
    if asked.open:
        print("  or the name of a file with another, in that form", file=stream, flush=True)


def clean(text: str) -> str:
    """One line without control characters: what came from a model or a dataset must not steer a terminal."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text).split())


def _quoted(value: str) -> str:
    return shlex.quote(clean(value))


def stage_line(stage: run_pb2.Stage, now: float) -> str:
    """Where a stage stands, in one line."""
    spent = spend_text(_ledger(stage))
    if stage.state == run_pb2.STAGE_STATE_RUNNING:
        words = [_progress_words(stage.progress) or clean(stage.message) or "begins", spent]
    else:
        _, _, word = _STATES.get(stage.state, ("", "", "not begun"))
        took = (
            f" in {_elapsed(stage, now)}"
            if stage.state == run_pb2.STAGE_STATE_DONE and stage.HasField("started_at")
            else ""
        )
        message = clean(stage.message)
        words = [f"{word}{took}{': ' if message else ''}{message}", spent]
    return "  ".join(word for word in words if word)


def _progress_words(progress: common_pb2.Progress) -> str:
    """How far it is and what it is doing; a message that has the numbers itself stands alone."""
    counted = ""
    if progress.total > 0:
        counted = f"{progress.done:,.0f}/{progress.total:,.0f} {progress.unit}"
    elif progress.done > 0:
        counted = f"{progress.done:,.0f} {progress.unit}"
    message = clean(progress.message)
    if f"{progress.done:.0f}" in message.replace(",", "") and progress.done > 0:
        return message
    losses = ", ".join(
        f"{metric.name.replace('_', ' ')} {metric.value:.3f}"
        for metric in progress.metrics
        if metric.name.endswith("_loss")
    )
    return "  ".join(clean(part) for part in (counted, message or losses) if part)


def _elapsed(stage: run_pb2.Stage, now: float) -> str:
    seconds = _seconds(stage, now)
    return "" if seconds is None else seconds_text(seconds)


def _seconds(stage: run_pb2.Stage, now: float) -> float | None:
    if not stage.HasField("started_at"):
        return None
    ended = stage.ended_at.ToNanoseconds() / 1e9 if stage.HasField("ended_at") else now
    return max(0.0, ended - stage.started_at.ToNanoseconds() / 1e9)


def _clock_text(seconds: float | None) -> str:
    """ "0:07", "1:39", "1:02:03"."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _ledger(stage: run_pb2.Stage) -> Ledger:
    """The stage's own ledger once it is there, else what its progress has spent so far."""
    message = stage.ledger if stage.HasField("ledger") else stage.progress.ledger
    return from_message(message, Ledger)
