"""The report's section on leakage: rows that would have made the scores too good, and were left out."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.report.template import fill

_LEAKAGE = """{% if rows %}
<section id="leakage"><h2>Kept apart</h2>
<p class="lead">{{ total }} rows repeated a row of another split, or a demonstration of the prompt, and were left out: a score on rows that were trained on says nothing.</p>
<div class="table"><table><thead><tr><th>Source</th><th>Drawn for</th><th>Repeats</th><th class="n">Rows</th></tr></thead><tbody>
{% for row in rows %}<tr><td class="k">{{ row.source }}</td><td>{{ row.split }}</td><td>{{ row.how }}</td><td class="n">{{ row.rows }}</td></tr>
{% endfor %}</tbody></table></div>
{% if examples %}<details><summary>Examples</summary><div class="table"><table><thead><tr><th>Left out</th><th>Because of</th></tr></thead><tbody>
{% for row in examples %}<tr><td>{{ row.input }}</td><td>{{ row.other }}</td></tr>
{% endfor %}</tbody></table></div></details>{% endif %}
</section>
{% endif %}
{% if labels %}
<section id="labels"><h2>Labels</h2>
<p class="lead">The outputs are {{ labels|length }} labels{% if more %}; the {{ shown }} most frequent{% endif %}.</p>
<div class="table"><table><thead><tr><th>Label</th><th class="n">Train</th><th class="n">Validation</th><th class="n">Test</th></tr></thead><tbody>
{% for row in labels[:shown] %}<tr><td class="k">{{ row.label }}</td><td class="n">{{ row.train }}</td><td class="n">{{ row.validation }}</td><td class="n">{{ row.test }}</td></tr>
{% endfor %}</tbody></table></div>
</section>
{% endif %}"""
_REPEATED = {"test": "a test row", "validation": "a validation row", "demonstration": "a demonstration"}
_SHOWN_LABELS, _SHOWN_EXAMPLES = 20, 12


def leakage(record: dict[str, Any]) -> Markup:
    """Which rows of which source repeated what, with examples; and the rows of each label."""
    prepare = record.get("prepare") or {}
    leaks, labels = prepare.get("leaks") or [], prepare.get("labels") or []
    rows = [
        {
            "source": leak["source"],
            "split": leak["split"],
            "how": f"{_REPEATED.get(leak['repeats'], leak['repeats'])}, {'nearly' if leak['near'] else 'but for its writing'}",
            "rows": f"{leak['rows']:,}",
        }
        for leak in leaks
    ]
    examples = [example for leak in leaks for example in leak["examples"]][:_SHOWN_EXAMPLES]
    return fill(
        _LEAKAGE, rows=rows, total=f"{sum(leak['rows'] for leak in leaks):,}", examples=examples,
        labels=labels, shown=_SHOWN_LABELS, more=len(labels) > _SHOWN_LABELS,
    )  # fmt: skip
