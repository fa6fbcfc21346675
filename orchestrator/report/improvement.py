"""What an improvement brought: the student less the one before on the same test rows, over all and by what was aimed at."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.report.scores import MAIN_METRIC
from orchestrator.report.template import fill
from orchestrator.report.words import plural

BEFORE = "before"

_IMPROVEMENT = """{% if rows %}
<section id="improvement"><h2>Since {{ of }}</h2>
<p class="lead">{{ text }}</p>
<div class="table"><table><thead><tr><th>Aimed at</th><th class="n">Errors before</th><th class="n">Examples written</th><th class="n">Test rows</th><th class="n">Right before</th><th class="n">Right now</th><th class="n">Change</th><th class="n">95 % interval</th></tr></thead><tbody>
{% for row in rows %}<tr><td>{{ row.name }}</td><td class="n">{{ row.errors }}</td><td class="n">{{ row.written }}</td><td class="n">{{ row.tested }}</td><td class="n">{{ row.before }}</td><td class="n">{{ row.now }}</td><td class="n">{{ row.change }}</td><td class="n">{{ row.range }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="small soft">Errors before are those on validation rows, out of which the kinds were found; no test row had a part in choosing or
describing them. By kind, an answer is right whatever its case, punctuation and articles.</p>
</section>
{% endif %}"""


def improvement(record: dict[str, Any]) -> Markup:
    """A row a kind of rows: the error rate that made it a target, what was generated, the change on its test rows."""
    found = record.get("improvement") or {}
    rows = [_row(one) for one in found.get("slices") or []]
    return fill(_IMPROVEMENT, rows=rows, of=found.get("of", ""), text=f"{change(record)} {_added(found)}".strip())


def change(record: dict[str, Any]) -> str:
    """One sentence on whether the student is better than the one before; "" for a run that improves none."""
    found = record.get("improvement")
    compared = (record.get("evaluation") or {}).get("comparisons") or []
    one = next((c for c in compared if (c["against"], c["metric"]) == (BEFORE, MAIN_METRIC)), None)
    if not found or one is None:
        return ""
    gap = one["difference"]
    told = f"{gap['value']:+.1f} points of exact match (95 % interval {gap['low']:+.1f} to {gap['high']:+.1f}, {one['rows']:,} test rows)"
    if gap["low"] > 0:
        return f"Better than {found['of']}: {told}."
    if gap["high"] < 0:
        return f"Worse than {found['of']}: {told}. Keep that one."
    return f"No clear change since {found['of']}: {told}."


def _added(found: dict[str, Any]) -> str:
    removed = sum((found.get("removed") or {}).values())
    told = (
        f"{plural(found.get('added') or 0, 'new row')} joined the training rows; validation and test rows are the same."
    )
    return told + (f" {removed:,} more were left out, since the splits had them already." if removed else "")


def _row(one: dict[str, Any]) -> dict[str, str]:
    changed, errors = one.get("change"), one["error_rate"]
    gap = changed["difference"] if changed else None
    return {
        "name": one["name"][:1].upper() + one["name"][1:],
        "errors": f"{errors['value']:.0f} % of {one['rows']:,}",
        "written": f"{one['generated']:,}",
        "tested": f"{changed['rows']:,}" if changed else "0",
        "before": f"{changed['other']:.1f}" if changed else "–",
        "now": f"{changed['student']:.1f}" if changed else "–",
        "change": f"{gap['value']:+.1f}" if gap else "–",
        "range": f"{gap['low']:+.1f} to {gap['high']:+.1f}" if gap else "–",
    }
