"""What one look found."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, WRONG = "ok", "warning", "wrong"


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    what: str
    """What was looked at, in a word."""
    state: str
    """"ok"; "warning": a run may go on without it; "wrong": it may not."""
    told: str
    """What was found."""
    todo: str = ""
    """What to do; "" where all is well."""


def ok(what: str, told: str) -> Finding:
    """All is well."""
    return Finding(what, OK, told)


def warning(what: str, told: str, todo: str) -> Finding:
    """A run may go on without it."""
    return Finding(what, WARNING, told, todo)


def wrong(what: str, told: str, todo: str) -> Finding:
    """A run may not."""
    return Finding(what, WRONG, told, todo)
