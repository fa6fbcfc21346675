"""The report's end: what one should know, and how to have the same again."""

# ruff: noqa: E501

from __future__ import annotations

import shlex
from typing import Any

from markupsafe import Markup

from orchestrator.report.template import fill
from orchestrator.report.words import number

_NOTES = """{% if notes %}<section id="notes"><h2>What you should know</h2><ul class="notes">{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul></section>{% endif %}"""

_REPRODUCE = """<section id="reproduce"><h2>The same again</h2>
<p class="lead">The same prompt, options and recorded answers give the same data; on a CPU, the same weights too.</p>
{% if command %}<pre>{{ command }}</pre>{% endif %}
<div class="table"><table><tbody>
{% for row in digests %}<tr><td>{{ row.name }}</td><td><code>{{ row.value }}</code></td></tr>
{% endfor %}</tbody></table></div>
<details><summary>The whole prompt</summary><pre>{{ prompt }}</pre></details>
</section>"""


def notes(record: dict[str, Any]) -> Markup:
    """What the stages had to say."""
    return fill(_NOTES, notes=_notes(record))


def reproduce(record: dict[str, Any]) -> Markup:
    """The command, the seed and the digests."""
    return fill(_REPRODUCE, command=command(record), digests=_digests(record), prompt=record.get("prompt", ""))


def command(record: dict[str, Any]) -> str:
    """The command line that starts the same run again, for the options that can be typed."""
    options = record.get("options") or {}
    if options.get("improve"):
        return _improving(record["name"], options)
    words = ["p2m run PROMPT_FILE", "--name", shlex.quote(record["name"])]
    for option, flag in (
        ("dataset", "--dataset"), ("model", "--model"), ("number", "--number"), ("max_rows_per_source", "--max-rows"),
        ("max_model_bytes", "--max-size"), ("learning_rate", "--learning-rate"), ("epochs", "--epochs"),
        ("batch_tokens", "--batch-tokens"), ("max_train_seconds", "--max-train-time"),
        ("search_seconds", "--search"), ("attribution_seconds", "--attribution"), ("seed", "--seed"),
        ("teacher_rows", "--teacher-rows"), ("licence", "--licence"), ("max_dataset_bytes", "--dataset-max-size"),
        ("dataset_task", "--dataset-task"), ("head", "--head"),
    ):  # fmt: skip
        if options.get(option) not in (None, ""):
            words += [flag, shlex.quote(number(options[option]))]
    if options.get("max_cpu_latency_ms"):
        words += ["--cpu-latency", f"{options['max_cpu_latency_ms']:.10g}ms"]
    for option, flag in (("caps", "--cap"), ("mix", "--mix")):
        words += [
            f"{flag} {shlex.quote(f'{name}={number(value)}')}" for name, value in (options.get(option) or {}).items()
        ]
    if options.get("languages"):
        words += ["--languages", shlex.quote(",".join(options["languages"]))]
    for option, flag in (
        ("keep_near_duplicates", "--keep-near-duplicates"), ("skip_datasets", "--skip datasets"), ("skip_generation", "--skip generate"), ("lora", "--lora"),
        ("qlora", "--qlora"),
        ("ask", "--ask"), ("adapt", "--adapt"),
        ("include_gated", "--include-gated"), ("judge", "--judge"), ("attributes", "--attributes FILE"),
    ):  # fmt: skip
        words += [flag] if options.get(option) else []
    words += ["--no-adapt"] if options.get("adapt") is False else []
    words += ["--data FILE" for name in record.get("artifacts") or {} if name.startswith("user-")]
    return " ".join(" ".join(words).split())


def _improving(name: str, options: dict[str, Any]) -> str:
    """The command of a run that improves another, which has most of its options from that one."""
    words = ["p2m improve", shlex.quote(options["improve"]), "--name", shlex.quote(name)]
    if options.get("number"):
        words += ["--number", number(options["number"])]
    if options.get("teacher_rows"):
        words += ["--teacher-rows", number(options["teacher_rows"])]
    return " ".join(words)


def _notes(record: dict[str, Any]) -> list[str]:
    """Every stage's notes, once each, in the order of the stages."""
    parts = (record.get(part) or {} for part in ("spec", "generation", "prepare", "training", "evaluation"))
    notes = [note for part in parts for note in part.get("notes") or []]
    skipped = [
        f"{stage['name']}: {stage['message']}"
        for stage in record.get("stages") or []
        if stage.get("state") == "skipped" and stage.get("message") not in ("", None, "switched off")
    ]
    return list(dict.fromkeys([*skipped, *notes]))


def _digests(record: dict[str, Any]) -> list[dict[str, str]]:
    rows = [{"name": "seed", "value": str((record.get("options") or {}).get("seed", 0))}]
    weights = (record.get("training") or {}).get("weights_sha256")
    if weights:
        rows.append({"name": "weights", "value": weights})
    artifacts = record.get("artifacts") or {}
    rows += [
        {"name": name, "value": artifact["sha256"]} for name, artifact in artifacts.items() if artifact.get("sha256")
    ]
    return rows
