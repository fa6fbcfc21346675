"""The report of a run: one HTML file that shows what came out, how sure that is, and what it was made of.

    write(folder, record) -> folder/report.html      `record` is run.json (its keys: see `outcome`)
    └── page             the head, then a file for each section, in the page's order:
        ├── tiles        the figures at the top
        ├── improvement  the change since the run before, overall and by what was aimed at
        ├── scores       verdict, scores, comparisons, scores by source
        ├── shipping     the formats it ships in: size, speed, cost, quality
        ├── failures     where the student fails
        ├── training     the loss curve
        ├── search       what else was tried: quality against size and latency
        ├── data         rows by source, rows left out
        ├── attribution  what each source contributed
        ├── leakage      rows that repeated another split, labels
        ├── generation   how varied the generated examples are, what was left out
        ├── examples     right and wrong answers
        ├── choices      the dataset and the model, out of which
        ├── spending     time and cost
        ├── reproduce    notes, the command, digests
        └── template, words, charts (SVG), style

It needs no network, no script and no other file, and reads the same on a phone, in light and in dark. A stage that
did not run leaves its section out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.report.improvement import change
from orchestrator.report.page import render
from orchestrator.report.reproduce import command
from orchestrator.report.scores import (
    CONTESTANT_TITLES,
    MAIN_METRIC,
    METRIC_TITLES,
    VERDICTS,
    main_slice,
    score_panels,
    verdict_of,
)

__all__ = [
    "CONTESTANT_TITLES",
    "MAIN_METRIC",
    "METRIC_TITLES",
    "VERDICTS",
    "change",
    "command",
    "main_slice",
    "render",
    "score_panels",
    "verdict_of",
    "write",
]


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Writes `folder`/report.html from the run's record and returns its path."""
    path = folder / "report.html"
    path.write_text(render(record), encoding="utf-8")
    return path
