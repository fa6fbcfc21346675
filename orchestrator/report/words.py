"""How the report writes counts, dates and long texts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

_LONG_TEXT = 600


def all_seconds(record: dict[str, Any]) -> float:
    """From the run's beginning to its end; the sum of its stages where that is not known."""
    try:
        begun, ended = (datetime.fromisoformat(record[key]) for key in ("created", "ended"))
    except (KeyError, TypeError, ValueError):
        return float(sum(stage.get("seconds") or 0 for stage in record.get("stages") or []))
    return (ended - begun).total_seconds()


def date(text: str) -> str:
    """The minute, of a time in ISO 8601; empty where there is none."""
    return text.replace("T", " ")[:16] + " UTC" if text else ""


def cut(text: str) -> str:
    """The text, or its beginning and end where it is long."""
    return text if len(text) <= _LONG_TEXT else f"{text[: _LONG_TEXT // 2]} … {text[-_LONG_TEXT // 2 :]}"


def sentence(text: str) -> str:
    """The text with a stop at its end."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."


def plural(count: int, noun: str) -> str:
    """1 row, 2 rows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def number(value: Any) -> str:
    """As it is typed."""
    return f"{value:g}" if isinstance(value, float) else str(value)
