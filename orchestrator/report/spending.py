"""The report's time and cost: by stage, and in all."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.amounts import dollars_text, seconds_text
from orchestrator.report.scores import verdict_of
from orchestrator.report.template import fill
from orchestrator.report.words import all_seconds

_SPENDING = """<section id="cost"><h2>Time and cost</h2>
<p class="lead">Stages in the middle run at the same time, so their times do not add up. Replayed answers were paid before.</p>
<div class="table"><table><thead><tr><th>Stage</th><th>Outcome</th><th class="n">Time</th><th class="n">Requests</th><th class="n">Tokens</th><th class="n">Dollars</th><th class="n">Replayed</th><th class="n">Unusable</th></tr></thead><tbody>
{% for row in stages %}<tr><td class="k">{{ row.name }}</td><td>{{ row.message }}</td><td class="n">{{ row.time }}</td><td class="n">{{ row.requests }}</td><td class="n">{{ row.tokens }}</td><td class="n">{{ row.dollars }}</td><td class="n">{{ row.replayed }}</td><td class="n">{{ row.invalid }}</td></tr>
{% endfor %}<tr><td><b>in all</b></td><td></td><td class="n">{{ total.time }}</td><td class="n">{{ total.requests }}</td><td class="n">{{ total.tokens }}</td><td class="n">{{ total.dollars }}</td><td class="n">{{ total.replayed }}</td><td class="n">{{ total.invalid }}</td></tr>
</tbody></table></div></section>"""


def spending(record: dict[str, Any]) -> Markup:
    """A row per stage: what came of it, how long it took, what the LLM cost."""
    word = verdict_of(record)["word"]
    return fill(
        _SPENDING,
        stages=[_stage_row(stage, word) for stage in record.get("stages") or []],
        total=_total(record),
    )


def _stage_row(stage: dict[str, Any], verdict: str) -> dict[str, str]:
    seconds = stage.get("seconds")
    return {
        "name": stage["name"],
        # The verdict's reason stands at the top of the page.
        "message": verdict if stage["name"] == "evaluate" else stage.get("message") or stage.get("state", ""),
        "time": seconds_text(seconds) if seconds is not None else "",
    } | _ledger_cells(stage.get("ledger") or {})


def _total(record: dict[str, Any]) -> dict[str, str]:
    seconds = all_seconds(record)
    return {"time": seconds_text(seconds) if seconds else ""} | _ledger_cells(
        (record.get("ledger") or {}).get("total") or {}
    )


def _ledger_cells(ledger: dict[str, Any]) -> dict[str, str]:
    def shown(count: float) -> str:
        return f"{count:,.0f}" if count else "–"

    tokens = (ledger.get("prompt_tokens") or 0) + (ledger.get("completion_tokens") or 0)
    cells = {name: shown(ledger.get(name) or 0) for name in ("requests", "replayed", "invalid")}
    return cells | {
        "tokens": shown(tokens),
        "dollars": dollars_text(ledger["dollars"]) if ledger.get("dollars") else "–",
    }
