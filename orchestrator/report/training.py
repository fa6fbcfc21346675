"""The report's training section: the loss curve, and what was set."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from orchestrator.amounts import count_text, seconds_text
from orchestrator.report import charts
from orchestrator.report.template import fill
from orchestrator.report.words import number

_TRAINING = """{% if loss_chart %}
<section id="training"><h2>Training</h2>
<p class="lead">{{ training_text }}</p>
<ul class="key"><li><i class="tloss"></i>training loss</li><li><i class="vloss"></i>validation loss (dashed)</li></ul>
{{ loss_chart }}
<p class="small soft" style="text-align:center;margin:.1rem 0 0">optimizer steps</p>
</section>
{% elif training_text %}
<section id="training"><h2>Training</h2><p>{{ training_text }}</p></section>
{% endif %}"""


def training(record: dict[str, Any]) -> Markup:
    """Loss over steps, the model, what was set by hand."""
    trained = record.get("training") or {}
    points = [
        charts.Loss(p["step"], p.get("train_loss"), p.get("validation_loss")) for p in trained.get("history") or []
    ]
    return fill(
        _TRAINING,
        loss_chart=charts.losses(points, trained.get("best_step") or 0),
        training_text=_training_text(record, trained),
    )


def _training_text(record: dict[str, Any], training: dict[str, Any]) -> str:
    if not training:
        return ""
    model = (record.get("chosen") or {}).get("model") or {}
    text = f"{model.get('id', 'The model')}, {count_text(training.get('parameters') or 0)} parameters"
    text += f", trained for {seconds_text(training.get('seconds') or 0)}."
    set_by_hand = training.get("hyper_parameters") or {}
    if set_by_hand:
        text += (
            " Set: "
            + ", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in set_by_hand.items())
            + "."
        )
    if training.get("resumed_from_step"):
        text += f" It was interrupted and went on from step {training['resumed_from_step']}."
    return text
