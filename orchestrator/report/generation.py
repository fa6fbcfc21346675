"""The report's section on the generated examples: how varied they are, what was left out and why, how they were steered."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.amounts import dollars_text
from orchestrator.report import charts
from orchestrator.report.template import fill
from orchestrator.report.words import plural

_STOPS = {
    "number": "all that were wanted", "budget": "the budget was spent", "nothing_new": "the LLM had nothing new to say",
}  # fmt: skip
REASONS = {
    "duplicate": "its input had been written before",
    "near_duplicate": "its input is, but for a word or a mark, one that had been written before",
    "copied_demonstration": "its input is a demonstration's, or nearly",
    "excluded": "its input is in your own data, or nearly",
    "invalid": "it lacks an input or an output, or holds a placeholder",
    "too_long": "it is out of all proportion to the demonstrations",
    "truncated": "it ends in the middle",
    "other_label": "its output is none of the task's labels",
    "other_language": "it is in another language than the demonstrations",
    "judged": "the LLM, asked to look over it, held its output to be wrong",
    "surplus": "there were enough without it",
}
_OUTCOMES = {
    "kept": "rows of the dataset",
    "surplus": "usable, beyond the number",
    "duplicate": "said before, or in your own data",
    "invalid": "no example of the task, or an answer that could not be read",
    "lost": "asked for, perhaps charged, and never received",
    "planning": "what the examples were to differ in",
    "judging": "looking over the rows",
}
_METRICS = {
    "distinct_1": ("Different words", "of all words in the inputs"),
    "distinct_2": ("Different pairs of words", "of all adjacent pairs in the inputs"),
    "label_balance": ("Evenness of labels", "100 where each comes equally often"),
}
_BY = {
    "llm": "The LLM proposed it from the task.",
    "option": "You gave it.",
    "person": "You chose it.",
}
_KINDS = {"topics": "Topics", "lengths": "Lengths", "difficulties": "Difficulties", "labels": "Outputs"}

_GENERATION = """{% if rows %}
<section id="generation"><h2>Generated examples</h2>
<p class="lead">{{ text }}</p>
{% if metrics %}<div class="tiles">
{% for metric in metrics %}<div class="tile"><span>{{ metric.name }}</span><b>{{ metric.value }} %</b><span>{{ metric.detail }}</span></div>
{% endfor %}</div>{% endif %}
{% if chart %}<h3>Repeats over the run</h3>
<p class="small soft">Of each stretch of examples, in percent, as they came: before any was removed.</p>
<ul class="key"><li><i class="exact"></i>the same input again</li><li><i class="near"></i>nearly the same</li></ul>
{{ chart }}
<p class="small soft" style="text-align:center;margin:.1rem 0 0">examples read</p>{% endif %}
{% if dropped %}<h3>Examples left out</h3>
<div class="table"><table><thead><tr><th>Reason</th><th>What it means</th><th class="n">Examples</th></tr></thead><tbody>
{% for row in dropped %}<tr><td class="k">{{ row.name }}</td><td>{{ row.why }}</td><td class="n">{{ row.count }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if outcomes %}<h3>What became of the money</h3>
<p class="small soft">The cost of an answer is shared evenly among its examples.</p>
<div class="table"><table><thead><tr><th>Outcome</th><th>What it means</th><th class="n">Examples</th><th class="n">Requests</th><th class="n">Tokens</th><th class="n">Dollars</th></tr></thead><tbody>
{% for row in outcomes %}<tr><td class="k">{{ row.name }}</td><td>{{ row.why }}</td><td class="n">{{ row.examples }}</td><td class="n">{{ row.requests }}</td><td class="n">{{ row.tokens }}</td><td class="n">{{ row.dollars }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if attributes %}<h3>What they were made to differ in</h3>
<p class="small soft">{{ by }}</p>
<div class="table"><table><tbody>
{% for row in attributes %}<tr><td class="k">{{ row.name }}</td><td>{{ row.listed }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
</section>
{% endif %}"""


def generation(record: dict[str, Any]) -> Markup:
    """distinct-n, label balance, repeats over the run, every drop by its reason, the attributes."""
    made = record.get("generation") or {}
    shares = made.get("repeats") or []
    return fill(
        _GENERATION,
        rows=made.get("rows") or 0,
        text=_text(made),
        metrics=_metrics(made.get("metrics") or {}, made.get("parts") or 1),
        chart=charts.repeats([(one["examples"], one["duplicates"], one["near_duplicates"]) for one in shares]),
        dropped=_dropped(made.get("dropped") or {}),
        outcomes=_outcomes(made.get("outcomes") or {}),
        attributes=_attributes(made.get("attributes") or {}),
        by=_BY.get(made.get("attributes_by") or "llm", ""),
    )


def _text(made: dict[str, Any]) -> str:
    stop = _STOPS.get(made.get("stop_reason", ""), "")
    text = f"{made.get('llm') or 'The LLM'} wrote {plural(made.get('rows') or 0, 'example')}"
    left_out = sum((made.get("dropped") or {}).values())
    return text + (f" ({stop})" if stop else "") + (f"; {left_out:,} more were left out." if left_out else ".")


def _metrics(metrics: dict[str, float], parts: int) -> list[dict[str, str]]:
    mean = f", the mean of {parts} parts" if parts > 1 else ""
    return [
        {"name": title, "value": f"{metrics[name]:.1f}", "detail": f"{detail}{mean}"}
        for name, (title, detail) in _METRICS.items()
        if name in metrics
    ]


def _dropped(dropped: dict[str, int]) -> list[dict[str, str]]:
    return [
        {"name": reason.replace("_", " "), "why": REASONS.get(reason, ""), "count": f"{count:,}"}
        for reason, count in sorted(dropped.items(), key=lambda item: -item[1])
        if count
    ]


def _outcomes(outcomes: dict[str, dict[str, float]]) -> list[dict[str, str]]:
    def shown(number: float) -> str:
        return f"{number:,.0f}" if number >= 0.5 else "–"

    return [
        {
            "name": name,
            "why": _OUTCOMES.get(name, ""),
            "examples": shown(one.get("examples") or 0),
            "requests": shown(one.get("requests") or 0),
            "tokens": shown((one.get("prompt_tokens") or 0) + (one.get("completion_tokens") or 0)),
            "dollars": dollars_text(one["dollars"]) if one.get("dollars") else "–",
        }
        for name, one in outcomes.items()
    ]


def _attributes(attributes: dict[str, list[str]]) -> list[dict[str, str]]:
    return [
        {"name": title, "listed": "; ".join(attributes[kind])} for kind, title in _KINDS.items() if attributes.get(kind)
    ]
