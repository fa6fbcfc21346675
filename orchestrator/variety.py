"""How varied the generated examples are, of several parts as one: what the run's record keeps and the report shows.

    of_parts(results)      metrics, repeats, attributes

The parts work at the same time, so the stretches of each are laid beside one another: the first of all, the second of
all, and so on. distinct-n is the mean of the parts', by their rows: of all rows together it would be lower, since a
word that two parts use counts in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from p2m.generator.v1 import generator_pb2

from orchestrator.plain import plain


def of_parts(results: Sequence[generator_pb2.GenerateResult]) -> dict[str, Any]:
    """The values of the stage: metrics {name: value}, repeats [{examples, duplicates, near_duplicates}], attributes."""
    proposed = next((result.attributes for result in results if result.HasField("attributes")), None)
    return {
        "metrics": _metrics(results),
        "repeats": _repeats([plain(result)["repeats"] for result in results]),
        "attributes": plain(proposed) if proposed is not None and proposed.ByteSize() else None,
    }


def _metrics(results: Sequence[generator_pb2.GenerateResult]) -> dict[str, float]:
    given: dict[str, list[tuple[float, int]]] = {}
    for result in results:
        for metric in result.metrics:
            given.setdefault(metric.name, []).append((metric.value, result.rows))
    return {
        name: round(sum(value * rows for value, rows in values) / max(1, sum(rows for _, rows in values)), 2)
        for name, values in given.items()
    }


def _repeats(parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    shares = []
    for place in range(max(map(len, parts), default=0)):
        there = [part[place] for part in parts if place < len(part)]
        # Of a part that has ended, what it had read in all.
        read = sum(part[min(place, len(part) - 1)]["examples"] for part in parts if part)
        shares.append(
            {
                "examples": read,
                **{
                    name: round(sum(share[name] for share in there) / len(there), 2)
                    for name in ("duplicates", "near_duplicates")
                },
            }
        )
    return shares
