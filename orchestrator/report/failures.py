"""Where the student fails: slices of rows with more errors than the rest, for the report and the model card."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.report.template import fill
from orchestrator.report.words import cut

_FAILURES = """{% if found %}
<section id="failures"><h2>Where it fails</h2>
<p class="lead">{{ lead }}</p>
{% for one in found %}<h3>{{ one.name }}</h3>
<p>{{ one.text }}</p>
<details><summary>{{ one.examples|length }} of its errors</summary>
{% for example in one.examples %}<div class="example"><dl><dt>Input</dt><dd>{{ example.input }}</dd><dt>Wanted</dt><dd>{{ example.output }}</dd>
<dt>Student</dt><dd class="wrong">{{ example.prediction or '(nothing)' }}</dd></dl></div>
{% endfor %}</details>
{% endfor %}</section>
{% endif %}"""


def failures(record: dict[str, Any]) -> Markup:
    """The slices, the worst first, each with its error rate beside the others' and three errors."""
    return fill(_FAILURES, found=described(record), lead=lead(record))


def described(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Each slice's name, one sentence with its figures, and its errors."""
    return [
        {
            "name": one["name"][:1].upper() + one["name"][1:],
            "text": _text(one, (record.get("evaluation") or {}).get("slices_split", "")),
            "examples": [{key: cut(text) for key, text in example.items()} for example in one.get("examples") or []],
        }
        for one in (record.get("evaluation") or {}).get("slices") or []
    ]


def lead(record: dict[str, Any]) -> str:
    """What the slices are and on which rows they were found."""
    evaluation = record.get("evaluation") or {}
    split = evaluation.get("slices_split") or "test"
    told = (
        f"Kinds of {split} rows that the student gets wrong more often than the others, by more than chance would show "
        "among all the kinds that were tried."
    )
    if split == "validation":
        told += " Test rows had no part in finding them, so examples of the kind may be asked for."
    return f"{told} {evaluation.get('slices_wrong', '')}".strip()


def _text(one: dict[str, Any], split: str) -> str:
    rate, rest, gap = one["error_rate"], one["rest_error_rate"], one["difference"]
    told = (
        f"{rate['value']:.0f} % of {one['rows']:,} rows are wrong (95 % interval {rate['low']:.0f} to {rate['high']:.0f}), "
        f"against {rest['value']:.0f} % of the others: {gap['low']:.0f} to {gap['high']:.0f} points more."
    )
    on_test = one.get("test_error_rate")
    if split == "validation" and on_test:
        told += (
            f" Of {one['test_rows']:,} such test rows {on_test['value']:.0f} % are "
            f"({on_test['low']:.0f} to {on_test['high']:.0f})."
        )
    return told
