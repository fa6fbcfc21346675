"""Amounts as people type them: budgets, sizes, durations; and as people read them.

    budget(["2", "200requests,600rpm"])   Allowance(dollars=2, requests=200, requests_per_minute=600)
    size("300MB")                         300_000_000
    latency("50ms")                       50.0
    duration("1h30m")                     5400.0

Each raises InvalidArgument that shows what was given and what is wanted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from services.kit.errors import InvalidArgument
from services.kit.values import Allowance, Ledger

_BUDGET = re.compile(r"(\$?)\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*(k|m)?\s*(\$|[a-z]*)", re.IGNORECASE)
_BUDGET_FIELDS = {
    "": "dollars", "$": "dollars", "usd": "dollars", "dollar": "dollars", "dollars": "dollars",
    "request": "requests", "requests": "requests", "token": "tokens", "tokens": "tokens",
    "rpm": "requests_per_minute", "tpm": "tokens_per_minute",
}  # fmt: skip
_SIZE = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*(b|kb|mb|gb|tb|kib|mib|gib|tib)?", re.IGNORECASE)
_SIZE_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_MOST_BYTES = 10**15
_LATENCY = re.compile(r"([0-9][0-9_]{0,12}(?:\.[0-9]+)?)\s*(ms|s)", re.IGNORECASE)
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", re.IGNORECASE)


def budget(given: Iterable[str]) -> Allowance:
    """What may be spent, out of parts such as "2" (dollars), "200requests", "50k tokens", "600rpm", "90000tpm"."""
    limits: dict[str, float] = {}
    for part in (part.strip() for text in given for part in text.split(",")):
        match = _BUDGET.fullmatch(part)
        field = _BUDGET_FIELDS.get(match[4].lower()) if match else None
        if match is None or field is None or (match[1] and field != "dollars"):
            raise InvalidArgument(
                "BAD_BUDGET",
                f"The budget {part!r} is not understood: wanted dollars (2 or $0.50), 200requests, 50000tokens, "
                "600rpm or 90000tpm (requests or tokens per minute).",
                field="budget",
            )
        if field in limits:
            raise InvalidArgument("BAD_BUDGET", f"The budget names {field} twice: once is enough.", field="budget")
        scale = {"": 1, "k": 1_000, "m": 1_000_000}[(match[3] or "").lower()]
        limits[field] = float(match[2].replace("_", "")) * scale
    whole = {field: value if field == "dollars" else int(value) for field, value in limits.items()}
    return Allowance(**whole)  # type: ignore[arg-type]


def size(given: str) -> int:
    """Bytes, out of "300MB", "1.5 GiB" or a bare number of bytes."""
    match = _SIZE.fullmatch(given.strip())
    size_bytes = float(match[1].replace("_", "")) * _SIZE_UNITS[(match[2] or "").lower()] if match else 0.0
    if not 1 <= size_bytes <= _MOST_BYTES:
        raise InvalidArgument(
            "BAD_SIZE", f"The size {given[:40]!r} is not understood: wanted for example 300MB or 1.5GB."
        )
    return int(size_bytes)


def latency(given: str) -> float:
    """Milliseconds, out of "50ms" or "0.2s"."""
    match = _LATENCY.fullmatch(given.strip())
    milliseconds = float(match[1].replace("_", "")) * (1000 if match[2].lower() == "s" else 1) if match else 0.0
    if milliseconds <= 0:
        raise InvalidArgument(
            "BAD_LATENCY", f"The latency {given[:40]!r} is not understood: wanted for example 50ms or 0.2s."
        )
    return milliseconds


def duration(given: str) -> float:
    """Seconds, out of "5m", "90s", "1h30m" or a bare number of seconds."""
    match = _DURATION.fullmatch(given.strip())
    if match is None or not any(match.groups()):
        raise InvalidArgument(
            "BAD_DURATION", f"The time {given!r} is not understood: wanted for example 5m, 90s or 1h30m."
        )
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def seconds_text(seconds: float) -> str:
    """A duration for a person: "0.4 s", "42 s", "3 min 20 s", "1 h 5 min"."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def bytes_text(size_bytes: float) -> str:
    """A size for a person, in decimal units: "91 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if size_bytes >= 10 or unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def count_text(count: float) -> str:
    """A count for a person: "950", "12.4k", "3.1M"."""
    if count < 10_000:
        return f"{count:,.0f}"
    return f"{count / 1e3:.1f}k" if count < 1e6 else f"{count / 1e6:.1f}M"


def dollars_text(dollars: float) -> str:
    """Dollars with as many digits as say something: "$0.0004", "$0.13", "$12.50"."""
    if dollars <= 0:
        return "$0"
    digits = 2 if dollars >= 0.1 else min(8, 1 - math.floor(math.log10(dollars)))
    return f"${dollars:.{digits}f}"


def spend_text(ledger: Ledger) -> str:
    """What was spent, in one line; "" where nothing was."""
    tokens = ledger.prompt_tokens + ledger.completion_tokens
    parts = []
    if ledger.requests:
        parts.append(f"{count_text(ledger.requests)} request{'' if ledger.requests == 1 else 's'}")
    if tokens:
        parts.append(f"{count_text(tokens)} tokens")
    if ledger.dollars:
        parts.append(dollars_text(ledger.dollars))
    return ", ".join(parts)
