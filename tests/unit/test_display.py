"""What a person sees of a run: plain lines, the live table, questions, the summary."""

from __future__ import annotations

import io

from google.protobuf.timestamp_pb2 import Timestamp
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2
from rich.console import Console

from orchestrator import display, summary
from tests.support.record import sample_record


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _change(name: str, state: int, message: str = "", **parts: object) -> run_pb2.WatchResponse:
    stage = run_pb2.Stage(name=name, state=state, message=message, started_at=Timestamp(seconds=990), **parts)  # type: ignore[arg-type]
    return run_pb2.WatchResponse(sequence=1, stage=stage)


def _progress(done: float) -> common_pb2.Progress:
    ledger = common_pb2.Ledger(requests=int(done / 5))
    return common_pb2.Progress(done=done, total=200, unit="examples", ledger=ledger)


def _lines(stream: io.StringIO) -> list[str]:
    """What was printed, without the time of day."""
    return [line[9:] for line in stream.getvalue().splitlines()]


def test_plain_lines_are_few() -> None:
    """A working stage prints one line every five seconds at most, however often it reports; a change prints at once."""
    stream, clock = io.StringIO(), Clock()
    plain = display.view(stream, clock)
    for tick in range(200):
        plain.update(_change("generate", run_pb2.STAGE_STATE_RUNNING, progress=_progress(tick)))
        clock.now += 0.1
    plain.update(_change("generate", run_pb2.STAGE_STATE_DONE, "200 examples", ended_at=Timestamp(seconds=1_020)))
    lines = _lines(stream)
    assert 4 <= len(lines) <= 6
    assert lines[1].split() == ["generate", "50/200", "examples", "10", "requests"]
    assert lines[-1] == "generate  done in 30 s: 200 examples"


def test_nothing_new_is_not_printed_again() -> None:
    """The same line is not repeated, and stages that have not begun print nothing."""
    stream, clock = io.StringIO(), Clock()
    plain = display.view(stream, clock)
    run = run_pb2.Run(stages=[run_pb2.Stage(name="parse", state=run_pb2.STAGE_STATE_PENDING)])
    for _ in range(3):
        plain.update(run_pb2.WatchResponse(run=run))
        plain.update(_change("train", run_pb2.STAGE_STATE_RUNNING, "loads the model"))
        clock.now += 60
    assert _lines(stream) == ["train     loads the model"]


def test_a_line_cannot_steer_the_terminal() -> None:
    """Control characters, colours and line breaks out of a dataset or a model do not reach the terminal."""
    stream = io.StringIO()
    display.view(stream, Clock()).update(
        _change("datasets", run_pb2.STAGE_STATE_FAILED, "\x1b[2J\x1b]0;owned\x07bad\nname\r\u202e[red]x[/red]")
    )
    (line,) = _lines(stream)
    assert "\x1b" not in line and "\x07" not in line and "\r" not in line and "\u202e" not in line
    assert line.startswith("datasets  failed: ") and "[red]x[/red]" in line


def _table(width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    live = display.Live(console, Clock())
    live.update(_change("parse", run_pb2.STAGE_STATE_DONE, "3 demonstrations", ended_at=Timestamp(seconds=991)))
    live.update(_change("datasets", run_pb2.STAGE_STATE_SKIPPED, "nothing [bold]fits[/bold]"))
    live.update(_change("generate", run_pb2.STAGE_STATE_RUNNING, progress=_progress(120)))
    live.close()
    shown = Console(file=io.StringIO(), width=width)
    shown.print(live._table())
    return shown.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_live_table_has_every_stage() -> None:
    """Every stage has its row from the start, in order, with its message, progress, time and spend."""
    lines = _table(110).splitlines()
    assert [line.split()[1] for line in lines] == list(display.STAGES)
    assert lines[0].startswith("✓ parse     3 demonstrations") and "0:01" in lines[0]
    assert "nothing [bold]fits[/bold]" in lines[1]
    assert "━" in lines[2] and "120/200 examples" in lines[2] and lines[2].rstrip().endswith("24 requests")


def test_the_live_table_fits_a_narrow_terminal() -> None:
    """In 60 columns it still has one line a stage."""
    lines = _table(60).splitlines()
    assert len(lines) == len(display.STAGES)
    assert max(len(line) for line in lines) <= 60


def test_a_question_shows_its_options_and_the_command() -> None:
    """A waiting run's question can be answered from another terminal by what it prints."""
    stream = io.StringIO()
    asked = run_pb2.Question(
        id="columns",
        text="Which columns?",
        options=[run_pb2.Option(value="a -> b", label="a, then b"), run_pb2.Option(value="none")],
    )
    display.question(stream, asked, "dates")
    shown = stream.getvalue()
    assert "1  a, then b  (what p2m would take)" in shown
    assert "p2m choose dates columns VALUE" in shown and "'a -> b'  none" in shown


def test_the_summary_has_every_contestant_with_its_interval() -> None:
    """Verdict, scores with intervals, cost, and where the report is."""
    stream = io.StringIO()
    run = run_pb2.Run(
        name="dates", state=run_pb2.RUN_STATE_SUCCEEDED, verdict="Ship: it is better.",
        ledger=common_pb2.Ledger(requests=132, dollars=0.016),
        created_at=Timestamp(seconds=100), ended_at=Timestamp(seconds=525),
    )  # fmt: skip
    from pathlib import Path

    summary.ending(stream, run, sample_record(), Path("runs/dates"))
    shown = stream.getvalue()
    assert "Verdict: Ship: it is better." in shown
    for name, value in (
        ("Student", "96.4 (94.3–98.5)"),
        ("Untuned base", "2.0 (0.5–3.5)"),
        ("Teacher", "58.0 (48.4–67.6)"),
    ):
        assert any(name in line and value in line for line in shown.splitlines())
    assert "7 min 5 s" in shown and "132 requests, $0.016" in shown
    assert "runs/dates/report.html" in shown and "p2m demo dates" in shown


def test_a_failed_run_says_what_to_do() -> None:
    """The stage, the cause, and that the same command goes on."""
    stream = io.StringIO()
    error = run_pb2.RunError(stage="train", code="RESOURCE_EXHAUSTED", reason="DISK_FULL", message="No space left.")
    summary.ending(stream, run_pb2.Run(name="dates", state=run_pb2.RUN_STATE_FAILED, error=error), {}, None)
    assert "failed in train: No space left." in stream.getvalue()
    assert "the same command" in stream.getvalue()
