"""Logs: one line a record on standard error; the level from P2M_LOG_LEVEL, the form from P2M_LOG_FORMAT.

text     for people
json     one object a line: time, level, logger, message, service; run, stage, trace_id, span_id where there are any
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from services.kit import telemetry

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CHATTY = ("httpx", "httpx2", "httpcore", "openai", "urllib3", "datasets", "sentence_transformers", "bm25s", "dbos")


def configure(level: str, form: str = "text") -> None:
    """Sends all logs to standard error; keeps chatty libraries at WARNING."""
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format=TEXT)
    if form == "json":
        as_json()
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


def as_json() -> None:
    """Has what goes to the log written as JSON, warnings of libraries too."""
    logging.captureWarnings(True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Json())


class _Json(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        there = telemetry.where()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "service": there.service,
            "run": there.run,
            "stage": there.stage,
        }
        if there.span is not None:
            line["trace_id"], line["span_id"] = there.span.ids
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value}, ensure_ascii=False, default=str)
