"""The report's section on what ships: each format's size, speed, cost, and its quality beside the student's."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.amounts import bytes_text
from orchestrator.report.template import fill

_SHIPPING = """{% if rows %}
<section id="shipping"><h2>What ships</h2>
<p class="lead">Each format answered the same locked test rows. Times are of one input at a time on {{ processor }}, {{ threads }}, after a warm-up{{ inputs }}.</p>
<div class="table"><table><thead><tr><th>Format</th><th class="n">Size</th><th class="n">p50</th><th class="n">p95</th><th class="n">Dollars per 1,000</th><th class="n">Exact match</th><th class="n">Less the student</th><th class="n">Same answers</th><th>Run by</th></tr></thead><tbody>
{% for row in rows %}<tr><td class="k">{{ row.name }}</td><td class="n">{{ row.size }}</td><td class="n">{{ row.p50 }}</td><td class="n">{{ row.p95 }}</td><td class="n">{{ row.cost }}</td><td class="n">{{ row.score }}</td><td class="n">{{ row.difference }}</td><td class="n">{{ row.same }}</td><td>{{ row.runtime }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="soft small">{% for note in notes %}{{ note }} {% endfor %}</p>
</section>
{% endif %}"""


def shipping(record: dict[str, Any]) -> Markup:
    """A row per format, the model as trained and the teacher among them."""
    found = table(record)
    if not found["rows"]:
        return Markup("")
    return fill(_SHIPPING, **found)


def table(record: dict[str, Any]) -> dict[str, Any]:
    """The section's facts, as the model card shows them too: rows of text, how it was timed, and notes."""
    exports = record.get("exports") or {}
    measured = [row for row in [exports.get("student"), *exports.get("formats", [])] if row and row.get("measured")]
    costs = exports.get("costs") or {}
    latency: dict[str, Any] = next((row["measured"]["latency"] for row in measured), {})
    rows = [_row(record, row, costs) for row in measured]
    teacher = costs.get("teacher")
    if rows and teacher:
        rows.append(
            dict.fromkeys(rows[0], "")
            | {"name": "teacher", "cost": cost_text(teacher["dollars"]), "runtime": "an LLM"}
            | {"score": _score_text(record, "teacher")}
        )
    return {
        "rows": rows,
        "processor": latency.get("processor") or "this machine's CPU",
        "threads": f"{latency.get('threads', 0)} threads",
        "inputs": _inputs([row["measured"]["latency"]["inputs"] for row in measured]),
        "notes": _notes(exports, costs, teacher),
    }


def cost_text(dollars: float) -> str:
    """A price for 1,000 inputs: two digits that count, however small it is."""
    return f"${dollars:.2f}" if dollars >= 0.1 or dollars == 0 else f"${dollars:.2g}"


def _inputs(counts: list[int]) -> str:
    """Over how many inputs: fewer where each takes long."""
    if not counts:
        return ""
    few, many = min(counts), max(counts)
    return f", over {many} inputs" if few == many else f", over {few} to {many} inputs"


def _row(record: dict[str, Any], row: dict[str, Any], costs: dict[str, Any]) -> dict[str, str]:
    measured, student = row["measured"], row["format"] == "student"
    difference = next((c["difference"] for c in measured["comparisons"] if c["metric"] == "exact_match"), None)
    cost = (costs.get("per_1000") or {}).get(row["format"])
    return {
        "name": "as trained" if student else row["format"],
        "size": bytes_text((row.get("model") or {}).get("size_bytes", 0)),
        "p50": f"{measured['latency']['p50_ms']:.1f} ms",
        "p95": f"{measured['latency']['p95_ms']:.1f} ms",
        "cost": "" if cost is None else cost_text(cost),
        "score": _score_text(record, "student") if student else _score(measured["scores"]),
        "difference": ""
        if difference is None
        else f"{difference['value']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f})",
        "same": "" if student else f"{measured['same']:.1f} %",
        "runtime": measured["runtime"],
    }


def _score_text(record: dict[str, Any], contestant: str) -> str:
    scores = (record.get("evaluation") or {}).get("scores") or []
    return _score([one for one in scores if one["contestant"] == contestant])


def _score(scores: list[dict[str, Any]]) -> str:
    """Exact match on the rows that the verdict rests on: the real ones where there are any."""
    found = {one["slice"]: one["estimate"] for one in scores if one["metric"] == "exact_match"}
    estimate = found.get("real") or found.get("all")
    return f"{estimate['value']:.1f} ({estimate['low']:.1f} to {estimate['high']:.1f})" if estimate else ""


def _notes(exports: dict[str, Any], costs: dict[str, Any], teacher: dict[str, Any] | None) -> list[str]:
    notes = []
    if costs:
        notes.append(
            f"A CPU's cost is the mean time of an answer times its threads at ${costs['cpu_hour_dollars']:g} an hour of one "
            "core (P2M_CPU_HOUR_DOLLARS sets it); batches cost less."
        )
    if teacher:
        price = "" if teacher["dollars"] else "; it has no price here, so its cost is not nothing but not known"
        notes.append(
            f"The teacher's is what its {teacher['requests']:,} answers to test rows cost, {teacher['tokens']:,.0f} tokens per "
            f"1,000{price}."
        )
    if "recommended" in exports:
        notes.append(f"p2m serve takes {exports['recommended'] or 'the model as trained'}.")
    notes += [
        f"{row['format']} was not written: {row['error']}" for row in exports.get("formats", []) if row.get("error")
    ]
    return notes
