"""The report's figures at the top: the student's score, its size, its rows, what it cost and how long it took."""

from __future__ import annotations

from typing import Any

from orchestrator.amounts import bytes_text, count_text, dollars_text, seconds_text
from orchestrator.report.scores import range_text, student_score
from orchestrator.report.words import all_seconds, plural


def tiles(record: dict[str, Any]) -> list[dict[str, str]]:
    """Each with a name, a value and a detail."""
    shown = []
    student = student_score(record)
    if student is not None:
        shown.append(
            {"name": "Student's exact match", "value": f"{student['estimate']['value']:.1f} %",
             "detail": f"{range_text(student['estimate'])}, {student['rows']} test rows"}
        )  # fmt: skip
    training, model = record.get("training") or {}, (record.get("chosen") or {}).get("model") or {}
    if training:
        size = (record.get("artifacts") or {}).get("model", {}).get("size_bytes", 0)
        detail = f"{bytes_text(size)} on disk" if size else model.get("id", "")
        shown.append({"name": "Parameters", "value": count_text(training.get("parameters") or 0), "detail": detail})
    by_source = (record.get("data_by_source") or {}).values()
    if by_source:
        train = sum(source.get("train", 0) for source in by_source)
        shown.append(
            {"name": "Rows trained on", "value": f"{train:,}", "detail": f"from {plural(len(by_source), 'source')}"}
        )
    total = (record.get("ledger") or {}).get("total") or {}
    shown.append(
        {"name": "Spent on the LLM", "value": dollars_text(total.get("dollars", 0.0)),
         "detail": plural(total.get("requests", 0), "request")}
    )  # fmt: skip
    seconds = all_seconds(record)
    if seconds:
        trained = training.get("seconds")
        shown.append(
            {
                "name": "Time",
                "value": seconds_text(seconds),
                "detail": f"training {seconds_text(trained)}" if trained else "",
            }
        )
    return shown
