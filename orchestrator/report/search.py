"""The report's section on the search: every trial, and which of them are worth their size and their time."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.amounts import bytes_text, seconds_text
from orchestrator.report import charts
from orchestrator.report.template import fill
from orchestrator.report.words import number, plural

_SEARCH = """<section id="search"><h2>Search</h2>
<p class="lead">{{ text }}</p>
{% if plots %}<ul class="key"><li><i class="tloss"></i>on the Pareto front: no other is as good, as small and as fast</li><li><i class="other"></i>others</li></ul>{% endif %}
{% for plot in plots %}<h3>{{ plot.title }}</h3>
{{ plot.chart }}
<p class="small soft" style="text-align:center;margin:.1rem 0 0">{{ plot.axis }}</p>
{% endfor %}
{% if trials %}<div class="table"><table><thead><tr><th class="n">Trial</th><th>Model</th><th class="n">Learning rate</th><th class="n">Epochs</th><th class="n">Tokens a batch</th><th class="n">Exact match</th><th class="n">Loss</th><th class="n">Took</th><th>Outcome</th></tr></thead><tbody>
{% for trial in trials %}<tr{% if trial.best %} class="chosen"{% endif %}><td class="n">{{ trial.number }}</td><td>{{ trial.model }}</td><td class="n">{{ trial.rate }}</td><td class="n">{{ trial.epochs }}</td><td class="n">{{ trial.tokens }}</td><td class="n">{{ trial.exact }}</td><td class="n">{{ trial.loss }}</td><td class="n">{{ trial.took }}</td><td>{{ trial.state }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if notes %}<ul class="notes small">{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endif %}
</section>"""

_STATES = {
    "complete": "trained to its end", "pruned": "given up: it was behind", "out_of_time": "the time was up",
    "failed": "failed",
}  # fmt: skip


def search(record: dict[str, Any]) -> Markup:
    """Quality against latency and size, and a row per trial; nothing where there was no search."""
    found = record.get("search")
    if not found:
        return Markup("")
    front = {*found["pareto"]}
    return fill(
        _SEARCH,
        text=_text(found),
        plots=_plots([trial for trial in found["trials"] if trial["state"] == "complete"], front, found["best"]),
        trials=[_row(trial, front, found["best"]) for trial in found["trials"]],
        notes=found["notes"],
    )


def _text(found: dict[str, Any]) -> str:
    text = f"{plural(len(found['trials']), 'trial')} in {seconds_text(found['seconds'])} of {seconds_text(found['budget_seconds'])}, "
    text += "compared on the validation split; the test split had no part in it. "
    if found["best"] is None:
        return text + "None came to its end: the run's own choice was trained."
    return text + f"Trial {found['best'] + 1} was the best, and the model was trained as it was."


def _plots(trials: list[dict[str, Any]], front: set[int], best: int | None) -> list[dict[str, Any]]:
    plots = []
    for key, title, axis, text in (
        ("cpu_latency_ms", "Quality against time", "milliseconds of an answer on a CPU, estimated", _milliseconds),
        ("size_bytes", "Quality against size", "size of the weights in 32 bits", bytes_text),
    ):
        points = [
            charts.Point(
                trial[key], trial["validation_exact_match"] or 0.0, trial["number"] in front, trial["number"] == best,
                f"trial {trial['number'] + 1}, {trial['model']}: {trial['validation_exact_match'] or 0.0:.1f} %, {text(trial[key])}",
            )
            for trial in trials
            if trial[key]
        ]  # fmt: skip
        if len({point.cost for point in points}) > 1:
            plots.append({"title": title, "axis": axis, "chart": charts.front(points, text)})
    return plots


def _row(trial: dict[str, Any], front: set[int], best: int | None) -> dict[str, Any]:
    asked, exact, loss = trial["hyper_parameters"] or {}, trial["validation_exact_match"], trial["validation_loss"]
    state = _STATES.get(trial["state"], trial["state"])
    if trial["number"] == best:
        state = "the best"
    elif trial["number"] in front:
        state = "on the front"
    return {
        "number": trial["number"] + 1,
        "model": trial["model"],
        "rate": number(asked.get("learning_rate") or 0.0),
        "epochs": number(asked.get("epochs") or 0.0),
        "tokens": f"{asked.get('batch_tokens') or 0:,}",
        "exact": "" if exact is None else f"{exact:.1f} %",
        "loss": "" if loss is None else f"{loss:.3f}",
        "took": seconds_text(trial["seconds"]),
        "state": state,
        "best": trial["number"] == best,
    }


def _milliseconds(value: float) -> str:
    return f"{value:.3g} ms"
