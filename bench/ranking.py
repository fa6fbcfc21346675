"""What both retrieval benches share: reading, scores of a ranking, latencies, memory.

p5, r5       share of the 5 best that are right; share of the right ones among the 5 best
map, mrr     mean average precision, mean reciprocal rank, to the depth of the ranking that is given
"""

from __future__ import annotations

import gzip
import json
import resource
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL or JSONL.gz file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def precision_at(found: Sequence[str], right: Collection[str], k: int) -> float:
    """The share of the first `k` places that hold a right id."""
    return sum(id in right for id in found[:k]) / k


def recall_at(found: Sequence[str], right: Collection[str], k: int) -> float:
    """The share of the right ids that are among the first `k`."""
    return sum(id in right for id in found[:k]) / len(right) if right else 0.0


def average_precision(found: Sequence[str], right: Collection[str]) -> float:
    """The mean, over the right ids, of the precision at their places; 0 for those not found."""
    places = [place for place, id in enumerate(found, start=1) if id in right]
    return sum(number / place for number, place in enumerate(places, start=1)) / len(right) if right else 0.0


def reciprocal_rank(found: Sequence[str], right: Collection[str]) -> float:
    """1 / the place of the first right id; 0 where none is found."""
    return next((1 / place for place, id in enumerate(found, start=1) if id in right), 0.0)


def percent(values: Sequence[float]) -> float:
    """The mean of shares, 0 to 100."""
    return round(100 * sum(values) / len(values), 2) if values else 0.0


def percentile_ms(seconds: Sequence[float], share: float) -> float:
    """The latency, in milliseconds, that `share` of the queries do not exceed."""
    ordered = sorted(seconds)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else 0.0


def resident_mb(process: str = "self") -> float:
    """A process's resident memory, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
