"""The report's choices: which dataset and which model were taken, out of which, and why."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator import constraints
from orchestrator.amounts import bytes_text
from orchestrator.report.template import fill
from orchestrator.report.words import cut, plural, sentence

_BY = {
    "llm": "The LLM chose it.", "score": "It has the best score.", "person": "You chose it.", "option": "You named it.",
    "search": "It was the best of those that were tried.",
}  # fmt: skip

_CHOICES = """{% for choice in choices %}
<section id="choice-{{ choice.id }}"><h2>{{ choice.title }}</h2>
<p class="lead">{{ choice.text }}</p>
{% if choice.notes %}<ul class="notes small">{% for note in choice.notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
{% if choice.rows %}<details><summary>{{ choice.rows|length }} of its rows as they were found</summary>
<div class="table"><table><tbody>{% for row in choice.rows %}<tr><td>{{ row.input }}</td><td>{{ row.output }}</td></tr>{% endfor %}</tbody></table></div></details>{% endif %}
{% if choice.candidates %}<div class="table"><table><thead><tr><th>{{ choice.noun }}</th><th class="n">Score</th><th>Why it is here</th></tr></thead><tbody>
{% for row in choice.candidates %}<tr{% if row.chosen %} class="chosen"{% endif %}><td>{{ row.id }}{% if row.chosen %} ✓{% endif %}</td><td class="n">{{ row.score }}</td>
<td>{{ row.why }}{% if row.detail %} <span class="soft small">{{ row.detail }}</span>{% endif %}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if choice.excluded %}<details><summary>{{ choice.excluded|length }} left out, with the reason</summary>
<div class="table"><table><tbody>{% for row in choice.excluded %}<tr><td>{{ row.id }}</td><td>{{ row.reason }}</td></tr>{% endfor %}</tbody></table></div></details>{% endif %}
</section>
{% endfor %}"""


def choices(record: dict[str, Any]) -> Markup:
    """The dataset's and the model's, each with its candidates and what was left out."""
    return fill(_CHOICES, choices=[*_dataset_choice(record), *_model_choice(record)])


def _dataset_choice(record: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = (record.get("alternatives") or {}).get("datasets") or []
    chosen = (record.get("chosen") or {}).get("dataset")
    excluded, notes = record.get("excluded_datasets") or [], _search_notes(record, "dataset")
    if not candidates and not chosen and not excluded:
        return []
    if chosen:
        columns = " + ".join(chosen.get("input_columns") or [])
        text = f"{chosen['id']}: {sentence(chosen.get('why', ''))} {_BY.get(chosen.get('by', ''), '')}"
        if columns:
            rows_text = plural(chosen.get("rows") or 0, "row")
            text += f" Input: {columns}; output: {chosen.get('output_column', '')}; {rows_text}."
        text += f" Licence: {chosen.get('licence') or 'not known'}."
        if chosen.get("revision"):
            text += f" Revision: {chosen['revision']}."
    else:
        text = f"None was taken.{' These were considered.' if candidates else ''}"
    rows = [
        _candidate(c, chosen, [] if c.get("reachable", True) else ["cannot be loaded from here"])
        for c in candidates[:10]
    ]
    return [
        {
            "id": "dataset",
            "title": "The dataset",
            "noun": "Dataset",
            "text": text,
            "notes": notes,
            "rows": [
                {"input": cut(row["input"]), "output": cut(row["output"])} for row in (chosen or {}).get("sample") or []
            ],
            "candidates": rows,
            "excluded": excluded[:50],
        }
    ]


def _model_choice(record: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = (record.get("alternatives") or {}).get("models") or []
    chosen = (record.get("chosen") or {}).get("model")
    excluded = record.get("excluded_models") or []
    if not candidates and not chosen and not excluded:
        return []
    text = "None was found."
    if chosen:
        text = f"{chosen['id']}: {sentence(chosen.get('why', ''))} {_BY.get(chosen.get('by', ''), '')} " + " ".join(
            chosen.get("flags") or []
        )
    rows = [
        _candidate(c, chosen, [f"about {c['cpu_latency_ms']:.0f} ms on a CPU"] if c.get("cpu_latency_ms") else [])
        for c in candidates[:10]
    ]
    return [
        {
            "id": "model",
            "title": "The model",
            "noun": "Model",
            "text": text,
            "notes": _search_notes(record, "model"),
            "rows": [],
            "candidates": rows,
            "excluded": excluded[:50],
        }
    ]


def _search_notes(record: dict[str, Any], what: str) -> list[str]:
    """What was asked for, then what the search said of itself."""
    asked = (record.get("asked_for") or {}).get(what) or ""
    notes = (record.get("search_notes") or {}).get(f"{what}s") or []
    out = record.get(f"excluded_{what}s") or []
    if out and not any(note.startswith("Left out") for note in notes):
        notes = [f"Left out, of those that rank high: {constraints.counted(out)}.", *notes]
    return [*([f"Asked for: {asked}."] if asked else []), *notes]


def _candidate(candidate: dict[str, Any], chosen: dict[str, Any] | None, more: list[str]) -> dict[str, Any]:
    facts = [
        candidate.get("licence") or "",
        " ".join((candidate.get("languages") or [])[:5]),
        bytes_text(candidate["size_bytes"]) if candidate.get("size_bytes") else "",
        *more,
        *(flag.rstrip(".") for flag in candidate.get("flags") or []),
    ]
    return {
        "id": candidate["id"],
        "score": f"{candidate.get('score') or 0:.3g}",
        "why": candidate.get("why") or "",
        "detail": "; ".join(fact for fact in facts if fact),
        "chosen": bool(chosen) and chosen["id"] == candidate["id"],  # type: ignore[index]
    }
