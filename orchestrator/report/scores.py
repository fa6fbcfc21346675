"""The report's verdict and scores: each contestant's, the student's against the others', the student's by source.

scores, comparisons, slices     sections
verdict_of, score_panels        what the demo page shows too
"""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from markupsafe import Markup

from orchestrator.report import charts
from orchestrator.report.template import fill

MAIN_METRIC = "exact_match"
"""What the verdict rests on."""
METRIC_TITLES = {
    MAIN_METRIC: "Exact match",
    "exact_match_normalised": "Exact match, normalised",
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "token_f1": "Token F1",
    "chrf": "chrF++",
    "bertscore": "BERTScore",
}
CONTESTANT_TITLES = {
    "student": "Student",
    "before": "Student before",
    "base": "Untuned base",
    "nearest_neighbour": "Nearest neighbour",
    "teacher": "Teacher (LLM)",
}
VERDICTS = {
    "ship": ("ship", "✓", "Ship"),
    "do_not_ship": ("no", "✗", "Do not ship"),
    "not_enough_evidence": ("unsure", "?", "Not enough evidence"),
}
_SLICES = {"real": "all real rows", "generated": "all generated rows", "all": "all rows"}

_PANEL = """{% macro panel(rows, axis) %}
{% for row in rows %}<div class="score"><div class="who {{ row.style }}">{{ row.who }}</div><div class="plot">{{ row.chart }}</div>
<div class="value">{{ row.value }} <span>{{ row.range }}</span></div></div>
{% endfor %}<div class="score"><div class="plot">{{ axis }}</div></div>
{% endmacro %}"""

_SCORES = (
    _PANEL
    + """{% if panels %}
<section id="scores"><h2>Scores</h2>
<p class="lead">All contestants answered the same locked test rows{% if slice_text %} ({{ slice_text }}){% endif %}. Percentages; the line
through each dot is its 95 % bootstrap interval.</p>
<h3>{{ panels[0].title }}</h3>{{ panel(panels[0].rows, panels[0].axis) }}
{% if panels|length > 1 %}<div class="minor">
{% for metric in panels[1:] %}<div><h3>{{ metric.title }}</h3>{{ panel(metric.rows, metric.axis) }}</div>
{% endfor %}</div>{% endif %}
{% if ceiling %}<p class="small soft">{{ ceiling }}</p>{% endif %}
</section>
{% endif %}"""
)

_COMPARISONS = (
    _PANEL
    + """{% if comparisons %}
<section id="comparisons"><h2>The student less each other contestant</h2>
<p class="lead">Row by row on the same inputs, in points of exact match. An interval that does not touch zero is a difference that
the test set is large enough to show.</p>
{{ panel(comparisons.rows, comparisons.axis) }}
</section>
{% endif %}"""
)

_SLICE_TABLE = """{% if slices %}
<section id="slices"><h2>Scores by source</h2>
<p class="lead">The student's exact match on each part of the test set.</p>
<div class="table"><table><thead><tr><th>Rows from</th><th class="n">Rows</th><th class="n">Exact match</th><th class="n">95 % interval</th></tr></thead><tbody>
{% for row in slices %}<tr><td>{{ row.name }}</td><td class="n">{{ row.rows }}</td><td class="n">{{ row.value }}</td><td class="n">{{ row.range }}</td></tr>
{% endfor %}</tbody></table></div></section>
{% endif %}"""


def scores(record: dict[str, Any]) -> Markup:
    """Every contestant's scores, with intervals, on the rows that the verdict rests on."""
    evaluation = record.get("evaluation") or {}
    return fill(
        _SCORES,
        panels=score_panels(record),
        slice_text=_slice_text(student_score(record)),
        ceiling=_ceiling(evaluation),
    )


def comparisons(record: dict[str, Any]) -> Markup:
    """The student less each other contestant."""
    return fill(_COMPARISONS, comparisons=_comparisons((record.get("evaluation") or {}).get("comparisons") or []))


def slices(record: dict[str, Any]) -> Markup:
    """The student's score on each part of the test set."""
    return fill(_SLICE_TABLE, slices=_slices((record.get("evaluation") or {}).get("scores") or []))


def main_slice(scores: Iterable[dict[str, Any]]) -> str:
    """The rows that the verdict rests on: the real ones where there are any, else all."""
    slices = {score["slice"] for score in scores if score["contestant"] == "student"}
    return next((name for name in ("real", "all", "generated") if name in slices), "")


def verdict_of(record: dict[str, Any]) -> dict[str, str]:
    """The verdict as the page, the demo and the terminal show it: style, glyph, word, reason."""
    evaluation = record.get("evaluation") or {}
    style, glyph, word = VERDICTS.get(evaluation.get("verdict", ""), ("unsure", "?", "Not measured"))
    return {"style": style, "glyph": glyph, "word": word, "reason": evaluation.get("verdict_reason", "")}


def score_panels(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One chart per metric with a row per contestant, on the rows that the verdict rests on."""
    scores = (record.get("evaluation") or {}).get("scores") or []
    chosen = main_slice(scores)
    panels = []
    for metric, title in METRIC_TITLES.items():
        found = {s["contestant"]: s for s in scores if s["metric"] == metric and s["slice"] == chosen}
        if not found:
            continue
        names = [
            *(name for name in CONTESTANT_TITLES if name in found),
            *(n for n in found if n not in CONTESTANT_TITLES),
        ]
        rows = [_score_row(name, found[name]) for name in names]
        panels.append({"metric": metric, "title": title, "rows": rows, "axis": charts.axis_labels((0, 100))})
    return panels


def _score_row(name: str, score: dict[str, Any]) -> dict[str, Any]:
    estimate = score["estimate"]
    who = CONTESTANT_TITLES.get(name, name)
    value, ends = f"{estimate['value']:.1f}", range_text(estimate)
    title = f"{who}: {value} %, 95 % interval {ends}, {score['rows']} rows"
    style = name if name in ("student", "teacher") else "other"
    chart = charts.interval(estimate["value"], estimate["low"], estimate["high"], (0, 100), style, title)
    return {"who": who, "style": style, "chart": chart, "value": value, "range": ends}


def _comparisons(comparisons: list[dict[str, Any]]) -> dict[str, Any] | None:
    shown = [c for c in comparisons if c["metric"] == MAIN_METRIC] or comparisons
    if not shown:
        return None
    ends = [value for c in shown for value in (c["difference"]["low"], c["difference"]["high"], 0.0)]
    axis = (max(-100.0, 10 * (min(ends) // 10)), min(100.0, 10 * -(-max(ends) // 10)) or 10.0)
    rows = []
    for comparison in shown:
        difference = comparison["difference"]
        style = "above" if difference["low"] > 0 else "below" if difference["high"] < 0 else "other"
        who = CONTESTANT_TITLES.get(comparison["against"], comparison["against"])
        value = f"{difference['value']:+.1f}"
        title = f"student less {who}: {value} points, 95 % interval {range_text(difference)}, {comparison['rows']} rows"
        chart = charts.interval(difference["value"], difference["low"], difference["high"], axis, style, title)
        rows.append(
            {
                "who": f"less {who[0].lower()}{who[1:]}",
                "style": "other",
                "chart": chart,
                "value": value,
                "range": range_text(difference),
            }
        )
    return {"rows": rows, "axis": charts.axis_labels(axis)}


def _slices(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [s for s in scores if s["contestant"] == "student" and s["metric"] == MAIN_METRIC]
    if len({s["rows"] for s in rows}) < 2:
        return []  # all slices are the same rows
    return [
        {
            "name": _SLICES.get(s["slice"], s["slice"]),
            "rows": s["rows"],
            "value": f"{s['estimate']['value']:.1f}",
            "range": range_text(s["estimate"]),
        }
        for s in rows
    ]


def range_text(estimate: dict[str, Any]) -> str:
    """An interval's ends."""
    return f"{estimate['low']:.1f} to {estimate['high']:.1f}"


def student_score(record: dict[str, Any]) -> dict[str, Any] | None:
    """The student's score in the main metric on the rows that the verdict rests on."""
    scores = (record.get("evaluation") or {}).get("scores") or []
    wanted = ("student", MAIN_METRIC, main_slice(scores))
    return next((s for s in scores if (s["contestant"], s["metric"], s["slice"]) == wanted), None)


def _slice_text(student: dict[str, Any] | None) -> str:
    if student is None:
        return ""
    kind = {"real": "real", "generated": "generated"}.get(student["slice"], "")
    return f"{student['rows']:,} {kind} rows".replace("  ", " ")


def _ceiling(evaluation: dict[str, Any]) -> str:
    parts = []
    ceiling = evaluation.get("ceiling")
    if ceiling is not None and ceiling < 99.95:
        parts.append(
            f"The student can reach at most {ceiling:.1f} % exact match here; the other outputs it cannot give "
            "as they stand."
        )
    if evaluation.get("bertscore_encoder"):
        parts.append(f"BERTScore was taken with {evaluation['bertscore_encoder']}.")
    return " ".join(parts)
