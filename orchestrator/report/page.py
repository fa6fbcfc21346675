"""The report's page: its head, its sections in order, its foot.

A section is a function of the run's record that gives its HTML, empty where there is nothing to show. A new one is a file of
its own and a line in SECTIONS.
"""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from orchestrator.report.attribution import attribution
from orchestrator.report.choices import choices
from orchestrator.report.data import data
from orchestrator.report.examples import examples
from orchestrator.report.failures import failures
from orchestrator.report.generation import generation
from orchestrator.report.improvement import improvement
from orchestrator.report.leakage import leakage
from orchestrator.report.reproduce import notes, reproduce
from orchestrator.report.scores import comparisons, scores, slices, verdict_of
from orchestrator.report.search import search
from orchestrator.report.shipping import shipping
from orchestrator.report.spending import spending
from orchestrator.report.style import STYLE
from orchestrator.report.template import fill
from orchestrator.report.tiles import tiles
from orchestrator.report.training import training
from orchestrator.report.words import date

Section = Callable[[dict[str, Any]], Markup]

SECTIONS: tuple[Section, ...] = (
    improvement,
    scores,
    comparisons,
    slices,
    failures,
    shipping,
    training,
    search,
    data,
    attribution,
    leakage,
    generation,
    examples,
    choices,
    spending,
    notes,
    reproduce,
)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="referrer" content="no-referrer">
<title>{{ name }} · {{ verdict.word }}</title>
<style>{{ style }}</style>
</head>
<body><main>
<header>
  <p class="soft small">Report of a run{% if date %} · {{ date }}{% endif %}</p>
  <h1>{{ name }}</h1>
  <blockquote>{{ instruction }}</blockquote>
</header>

<div class="verdict {{ verdict.style }}" id="verdict"><strong>{{ verdict.glyph }} {{ verdict.word }}</strong>
{% if verdict.reason %}<p>{{ verdict.reason }}</p>{% endif %}</div>

<div class="tiles">
{% for tile in tiles %}<div class="tile"><span>{{ tile.name }}</span><b>{{ tile.value }}</b><span>{{ tile.detail }}</span></div>
{% endfor %}</div>

{% for section in sections %}
{{ section }}

{% endfor %}
<footer>Beside this file: model/ (loads with plain transformers), data/, metrics.json, model_card.md and run.json, which has every figure
of this page.</footer>
</main></body></html>
"""


def render(record: dict[str, Any]) -> str:
    """The page's HTML."""
    spec = record.get("spec") or {}
    page = fill(
        _PAGE,
        style=Markup(STYLE),
        name=record["name"],
        date=date(record.get("created", "")),
        instruction=spec.get("original_instruction") or spec.get("instruction") or record.get("prompt", ""),
        verdict=verdict_of(record),
        tiles=tiles(record),
        sections=[html for section in SECTIONS if (html := section(record).strip())],
    )
    return str(page)
