"""Draws what bench.index_scale measured as an SVG: python -m bench.scale_chart FIGURES.jsonl OUT.svg

Two panels over the number of entries, both axes logarithmic: latencies, and what an index takes. A line of the figures
is one that bench.index_scale printed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

_PANELS = {
    "milliseconds": {
        "p95_ms": "hybrid query, p95", "p50_ms": "hybrid query, p50", "bm25_ms": "BM25 alone",
        "nearest_ms": "nearest alone",
    },
    "seconds, MiB": {
        "build_s": "build, s", "load_s": "load, s", "rss_mb": "resident, MiB", "disk_mb": "on disk, MiB",
    },
}  # fmt: skip
_COLOURS = ("#b03a2e", "#d68910", "#1f618d", "#1e8449")
_WIDTH, _HEIGHT, _LEFT, _TOP, _PANEL = 360, 240, 60, 40, 560
_STYLE = "<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.line{fill:none;stroke-width:2}</style>"
# A time that was rounded to nothing.
_LEAST = 0.01


def draw(figures: Sequence[dict[str, float]]) -> str:
    """The SVG of some lines of figures."""
    ordered = sorted(figures, key=lambda one: one["entries"])
    panels = (_panel(ordered, unit, number * _PANEL + _LEFT) for number, unit in enumerate(_PANELS))
    size = f'width="{2 * _PANEL}" height="{_TOP + _HEIGHT + 50}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{_STYLE}\n{"".join(panels)}</svg>\n'


def _panel(figures: Sequence[dict[str, float]], unit: str, left: float) -> str:
    series = {key: [max(_LEAST, one[key]) for one in figures] for key in _PANELS[unit]}
    values = [value for line in series.values() for value in line]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    entries = [math.log10(one["entries"]) for one in figures]
    across = [left + _WIDTH * (at - entries[0]) / max(1e-9, entries[-1] - entries[0]) for at in entries]

    def down(value: float) -> float:
        return _TOP + _HEIGHT * (high - math.log10(value)) / max(1, high - low)

    parts = [_text(left, _TOP - 16, unit), _text(left + _WIDTH / 2, _TOP + _HEIGHT + 38, "entries", "middle")]
    for power in range(low, high + 1):
        at = down(10.0**power)
        parts += [
            f'<path class="grid" d="M{left} {at:.1f}h{_WIDTH}"/>',
            _text(left - 8, at + 4, f"{10.0**power:g}", "end"),
        ]
    for x, one in zip(across, figures, strict=True):
        parts.append(_text(x, _TOP + _HEIGHT + 18, _short(one["entries"]), "middle"))
    below = -math.inf
    for key, colour in sorted(zip(series, _COLOURS, strict=True), key=lambda pair: down(series[pair[0]][-1])):
        points = " ".join(f"{x:.1f},{down(value):.1f}" for x, value in zip(across, series[key], strict=True))
        below = max(down(series[key][-1]) + 4, below + 14)  # names of lines that end together stand apart
        parts.append(f'<polyline class="line" points="{points}" stroke="{colour}"/>\n')
        parts.append(_text(left + _WIDTH + 6, below, _PANELS[unit][key], colour=colour))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "start", colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{colour}">{text}</text>\n'


def _short(entries: float) -> str:
    return f"{entries / 1e6:g} M" if entries >= 1e6 else f"{entries / 1e3:g} k"


def main() -> int:
    """Reads the figures and writes the chart."""
    source, target = map(Path, sys.argv[1:3])
    target.write_text(draw([json.loads(line) for line in source.read_text().splitlines() if line.strip()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
