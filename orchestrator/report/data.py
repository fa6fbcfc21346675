"""The report's data section: rows by source and split, and rows that were left out."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.report import charts
from orchestrator.report.template import fill

_KINDS = {
    "retrieved": "found", "adapted": "found, rewritten by the LLM", "generated": "written by the LLM",
    "user": "your own",
}  # fmt: skip

_DATA = """{% if sources %}
<section id="data"><h2>Data</h2>
<p class="lead">Rows by where they came from and by split. The test split was locked before training.</p>
<ul class="key"><li><i class="train"></i>train</li><li><i class="validation"></i>validation</li><li><i class="test"></i>test</li></ul>
{% for source in sources %}<div class="bar"><div class="name">{{ source.name }} <span class="soft small">{{ source.kind }}</span></div>
<div class="plot">{{ source.chart }}</div><div class="value">{{ source.text }}</div></div>
{% endfor %}
{% if removed %}<h3>Rows left out</h3>
<div class="table"><table><thead><tr><th>Where</th><th>Why</th><th class="n">Rows</th></tr></thead><tbody>
{% for row in removed %}<tr><td>{{ row.where }}</td><td>{{ row.why }}</td><td class="n">{{ row.rows }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
</section>
{% endif %}"""


def data(record: dict[str, Any]) -> Markup:
    """A bar per source, and every row left out, by the stage and the reason; of examples made see `generation`."""
    return fill(_DATA, sources=_sources(record.get("data_by_source") or {}), removed=_removed(record))


def _sources(by_source: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    def rows(counts: dict[str, Any]) -> list[tuple[str, float]]:
        return [(split, counts.get(split) or 0) for split in ("train", "validation", "test")]

    most = max((sum(count for _, count in rows(counts)) for counts in by_source.values()), default=0)
    return [
        {
            "name": name,
            "kind": _KINDS.get(counts.get("kind", ""), ""),
            "chart": charts.stack(rows(counts), most),
            "text": " / ".join(f"{count:,}" for _, count in rows(counts)),
        }
        for name, counts in sorted(by_source.items(), key=lambda item: -sum(count for _, count in rows(item[1])))
    ]


def _removed(record: dict[str, Any]) -> list[dict[str, Any]]:
    prepare = record.get("prepare") or {}
    dataset = (record.get("chosen") or {}).get("dataset") or {}
    parts = (
        ("loading the dataset", dataset.get("dropped") or {}),
        ("rewriting its rows", (dataset.get("adapted") or {}).get("dropped") or {}),
        ("splitting", prepare.get("removed") or {}),
    )
    return [
        {"where": where, "why": reason.replace("_", " "), "rows": f"{count:,}"}
        for where, counts in parts
        for reason, count in sorted(counts.items(), key=lambda item: -item[1])
        if count
    ]
