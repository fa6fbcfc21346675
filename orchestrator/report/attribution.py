"""The report's section on sources: what each contributed to the student's score."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.report import charts
from orchestrator.report.scores import range_text
from orchestrator.report.template import fill

_ATTRIBUTION = """<section id="attribution"><h2>What each source contributed</h2>
<p class="lead">The student less the same model trained without one source's rows, in points of exact match on the same locked test rows, with the paired 95 % interval. The interval tells the chance in the test rows; another seed of training moves the difference too.</p>
{% for row in rows %}<div class="score"><div class="who">{{ row.who }} <span class="soft small">{{ row.count }} training rows</span></div><div class="plot">{{ row.chart }}</div>
<div class="value">{{ row.value }} <span>{{ row.range }}</span></div></div>
{% endfor %}{% if rows %}<div class="score"><div class="plot">{{ axis }}</div></div>{% endif %}
{% if left_out %}<h3>Left out</h3>
<ul class="notes small">{% for one in left_out %}<li>{{ one.source }}, {{ one.count }} training rows: {{ one.why }}</li>{% endfor %}</ul>{% endif %}
</section>"""


def attribution(record: dict[str, Any]) -> Markup:
    """A difference per source, and the sources that it was not taken of; nothing where it was not asked for."""
    found = record.get("attribution")
    if not found:
        return Markup("")
    ends = [value for one in found["sources"] for value in (one["difference"]["low"], one["difference"]["high"])]
    axis = (10 * (min([0.0, *ends]) // 10), 10 * -(-max([0.0, *ends]) // 10) or 10.0)
    return fill(
        _ATTRIBUTION,
        rows=[_row(one, axis) for one in found["sources"]],
        axis=charts.axis_labels(axis),
        left_out=[one | {"count": f"{one['rows']:,}"} for one in found["left_out"]],
    )


def _row(one: dict[str, Any], axis: tuple[float, float]) -> dict[str, Any]:
    difference = one["difference"]
    style = "above" if difference["low"] > 0 else "below" if difference["high"] < 0 else "other"
    value, ends = f"{difference['value']:+.1f}", range_text(difference)
    title = f"{one['source']}: {value} points, 95 % interval {ends}, {one['test_rows']} rows"
    chart = charts.interval(difference["value"], difference["low"], difference["high"], axis, style, title)
    return {"who": one["source"], "count": f"{one['rows']:,}", "chart": chart, "value": value, "range": ends}
