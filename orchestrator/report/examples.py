"""The report's examples: test rows that the student gets wrong, and some that it gets right."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.report.scores import CONTESTANT_TITLES
from orchestrator.report.template import fill
from orchestrator.report.words import cut

_EXAMPLES = """{% macro example(row) %}
<div class="example"><dl><dt>Input</dt><dd>{{ row.input }}</dd><dt>Wanted</dt><dd>{{ row.wanted }}</dd>
<dt>Student</dt><dd class="{{ 'right' if row.right else 'wrong' }}">{{ row.student or '(nothing)' }}{{ ' ✓' if row.right else ' ✗' }}</dd>
{% for other in row.others %}<dt>{{ other.name }}</dt><dd class="soft">{{ other.answer or '(nothing)' }}</dd>{% endfor %}
</dl></div>
{% endmacro %}

{% if errors or samples %}
<section id="examples"><h2>What it gets right and wrong</h2>
<p class="lead">{{ examples_text }}</p>
{% if errors %}<h3>Errors</h3>{% for row in errors[:5] %}{{ example(row) }}{% endfor %}
{% if errors|length > 5 %}<details><summary>{{ errors|length - 5 }} more errors</summary>{% for row in errors[5:] %}{{ example(row) }}{% endfor %}</details>{% endif %}{% endif %}
{% if samples %}<h3>Samples</h3>{% for row in samples[:3] %}{{ example(row) }}{% endfor %}
{% if samples|length > 3 %}<details><summary>{{ samples|length - 3 }} more samples</summary>{% for row in samples[3:] %}{{ example(row) }}{% endfor %}</details>{% endif %}{% endif %}
</section>
{% endif %}"""


def examples(record: dict[str, Any]) -> Markup:
    """Errors first, then samples; each with what the other contestants answered."""
    samples = [_example(sample) for sample in record.get("samples") or []]
    errors = [sample for sample in samples if not sample["right"]]
    right = [sample for sample in samples if sample["right"]]
    return fill(_EXAMPLES, errors=errors[:30], samples=right[:12], examples_text=_examples_text(samples, errors))


def _example(sample: dict[str, Any]) -> dict[str, Any]:
    predictions = sample.get("predictions") or {}
    others = [
        {"name": CONTESTANT_TITLES.get(name, name), "answer": cut(answer)}
        for name, answer in predictions.items()
        if name != "student" and answer is not None
    ]
    return {
        "input": cut(sample["input"]),
        "wanted": cut(sample["output"]),
        "student": cut(predictions.get("student") or ""),
        "right": bool(sample.get("correct")),
        "others": others,
    }


def _examples_text(samples: list[dict[str, Any]], errors: list[dict[str, Any]]) -> str:
    if not errors:
        return f"None of the {len(samples)} rows looked at is wrong."
    return "Wrong answers are in the order of the test set; what the others answered stands beside them."
