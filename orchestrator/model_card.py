"""The model's card in the Hub's format: front matter that the Hub reads, then what a person should know.

    write(folder, record) -> folder/model_card.md      `record` is run.json (its keys: see `outcome`)

The code in it is `card_usage`'s: public libraries alone, and the instruction before the input, as in training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator import card_usage
from orchestrator.amounts import bytes_text, count_text, seconds_text
from orchestrator.report import CONTESTANT_TITLES, METRIC_TITLES, VERDICTS, command, failures, main_slice
from orchestrator.report.shipping import table

_METRIC_TYPES = {
    "exact_match": "exact_match",
    "exact_match_normalised": "exact_match",
    "chrf": "chrf",
    "bertscore": "bertscore",
}
_DECODER_ONLY = "decoder-only"


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Writes `folder`/model_card.md from the run's record and returns its path."""
    path = folder / "model_card.md"
    path.write_text(render(record), encoding="utf-8")
    return path


def render(record: dict[str, Any]) -> str:
    """The card's Markdown."""
    parts = [
        _front_matter(record),
        _head(record),
        card_usage.usage(record),
        _scores(record),
        _failures(record),
        _shipping(record),
        _data(record),
        _training(record),
        _limits(record),
    ]
    return "\n".join(part.strip() + "\n" for part in parts if part.strip())


def _front_matter(record: dict[str, Any]) -> str:
    """YAML, written as JSON values, which YAML reads: whatever stands in a name cannot break out of its place."""
    chosen = record.get("chosen") or {}
    dataset, model = chosen.get("dataset") or {}, chosen.get("model") or {}
    lines = {
        "language": [(record.get("spec") or {}).get("language") or "en"],
        "license": "other",
        "license_name": "see-below",
        "library_name": "transformers",
        "pipeline_tag": _task(record, model),
        "base_model": _hub_name(model) or None,
        "datasets": [dataset["id"]] if dataset.get("id") else None,
        "metrics": ["exact_match", "chrf", "bertscore"],
        "tags": ["prompt2model", _task(record, model)],
        "model-index": _index(record, dataset) or None,
    }
    body = "\n".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in lines.items() if value is not None
    )
    return f"---\n{body}\n---"


def _task(record: dict[str, Any], model: dict[str, Any]) -> str:
    """What the Hub calls what the model does."""
    if (record.get("training") or {}).get("labels"):
        return "text-classification"
    return "text-generation" if model.get("architecture") == _DECODER_ONLY else "text2text-generation"


def _index(record: dict[str, Any], dataset: dict[str, Any]) -> list[dict[str, Any]]:
    scores = (record.get("evaluation") or {}).get("scores") or []
    part = main_slice(scores)
    metrics = [
        {
            "type": _METRIC_TYPES.get(score["metric"], score["metric"]),
            "name": METRIC_TITLES.get(score["metric"], score["metric"]),
            "value": round(score["estimate"]["value"], 2),
        }
        for score in scores
        if score["contestant"] == "student" and score["slice"] == part
    ]
    if not metrics:
        return []
    name = dataset.get("id") or "the run's locked test split"
    result = {
        "task": {"type": _task(record, (record.get("chosen") or {}).get("model") or {})},
        "dataset": {"name": name, "type": name, "split": "test"},
        "metrics": metrics,
    }
    return [{"name": record["name"], "results": [result]}]


def _hub_name(model: dict[str, Any]) -> str:
    location = model.get("location") or ""
    return location.removeprefix("hub:").split("@")[0] if location.startswith("hub:") else ""


def _head(record: dict[str, Any]) -> str:
    evaluation = record.get("evaluation") or {}
    _, _, word = VERDICTS.get(evaluation.get("verdict", ""), ("", "", "Not measured"))
    training, model = record.get("training") or {}, (record.get("chosen") or {}).get("model") or {}
    size = (record.get("artifacts") or {}).get("model", {}).get("size_bytes", 0)
    return f"""
# {_plain(record["name"])}

A small {"classifier" if training.get("labels") else "text-to-text model"} for one task, fine-tuned from
{_code(model.get("id", "a pretrained model"))}
({count_text(training.get("parameters") or 0)} parameters{f", {bytes_text(size)}" if size else ""}).

{_quote(_instruction(record))}

**Verdict: {word.lower()}.** {_plain(evaluation.get("verdict_reason", ""))}
"""


def _scores(record: dict[str, Any]) -> str:
    evaluation = record.get("evaluation") or {}
    scores = evaluation.get("scores") or []
    part = main_slice(scores)
    rows = [s for s in scores if s["slice"] == part]
    if not rows:
        return ""
    metrics = [metric for metric in METRIC_TITLES if any(s["metric"] == metric for s in rows)]
    names = list(dict.fromkeys(s["contestant"] for s in rows))
    table = [
        "| | rows | " + " | ".join(METRIC_TITLES[m] for m in metrics) + " |",
        "|---|---:|" + "---:|" * len(metrics),
    ]
    for name in names:
        found = {s["metric"]: s for s in rows if s["contestant"] == name}
        cells = [_cell(found[m]["estimate"]) if m in found else "" for m in metrics]
        table.append(
            f"| {_plain(CONTESTANT_TITLES.get(name, name))} | {max(s['rows'] for s in found.values())} | "
            + " | ".join(cells)
            + " |"
        )
    ceiling = evaluation.get("ceiling")
    notes = []
    if ceiling is not None and ceiling < 99.95:
        notes.append(f"It can reach at most {ceiling:.1f} % exact match on this test set; the rest it cannot give.")
    if evaluation.get("bertscore_encoder"):
        notes.append(f"BERTScore is taken with {_code(evaluation['bertscore_encoder'])}.")
    return f"""
## Scores

Percentages with 95 % bootstrap intervals, on {_rows_text(part)} of a test split that was locked before training.

{chr(10).join(table)}

{" ".join(notes)}
"""


def _cell(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.1f} ({estimate['low']:.1f} to {estimate['high']:.1f})"


def _rows_text(part: str) -> str:
    return {"real": "the real rows", "generated": "the generated rows"}.get(part, "all rows")


def _failures(record: dict[str, Any]) -> str:
    found = failures.described(record)
    if not found:
        return ""
    lines = [f"- **{_plain(one['name'])}**: {_plain(one['text'])}" for one in found]
    return f"""
## Where it fails

{_plain(failures.lead(record))}

{chr(10).join(lines)}
"""


def _shipping(record: dict[str, Any]) -> str:
    found = table(record)
    if not found["rows"]:
        return ""
    columns = {
        "name": "format", "size": "size", "p50": "p50", "p95": "p95", "cost": "dollars per 1,000",
        "score": "exact match", "difference": "less the student", "same": "same answers", "runtime": "run by",
    }  # fmt: skip
    lines = ["| " + " | ".join(columns.values()) + " |", "|---|" + "---:|" * (len(columns) - 2) + "---|"]
    lines += ["| " + " | ".join(_plain(row[name]) for name in columns) + " |" for row in found["rows"]]
    return f"""
## What ships

Each format answered the same locked test rows. Times are of one input at a time on {_plain(found["processor"])},
{found["threads"]}, after a warm-up{found["inputs"]}.

{chr(10).join(lines)}

{" ".join(_plain(note) for note in found["notes"])}
"""


def _data(record: dict[str, Any]) -> str:
    sources = record.get("data_by_source") or {}
    dataset = (record.get("chosen") or {}).get("dataset") or {}
    generation = record.get("generation") or {}
    if not sources:
        return ""
    table = ["| source | kind | train | validation | test |", "|---|---|---:|---:|---:|"]
    table += [
        f"| {_plain(name)} | {counts.get('kind', '')} | "
        + " | ".join(str(counts.get(split, 0)) for split in ("train", "validation", "test"))
        + " |"
        for name, counts in sources.items()
    ]
    base = (record.get("chosen") or {}).get("model") or {}
    lines = [
        f"Licence of the base model {_code(base.get('id', ''))}: {_plain(base['licence'])}."
        if base.get("licence")
        else f"The licence of the base model {_code(base.get('id', ''))} is not known: look it up before you publish."
    ]
    if dataset.get("licence"):
        lines.append(f"Licence of {_code(dataset['id'])}: {_plain(dataset['licence'])}.")
    elif dataset.get("id"):
        lines.append(f"The licence of {_code(dataset['id'])} is not known: look it up before you publish.")
    if generation.get("rows"):
        lines.append(
            f"{generation['rows']} examples were written by {_code(generation.get('llm') or 'an LLM')}; its terms may "
            "bear on their use."
        )
    return "## Data\n\n" + "\n".join(table) + "\n\n" + " ".join(lines)


def _training(record: dict[str, Any]) -> str:
    training = record.get("training") or {}
    if not training:
        return ""
    chosen = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in (training.get("hyper_parameters") or {}).items()
    )
    return f"""
## Training

{seconds_text(training.get("seconds") or 0)} of training; the weights of step {training.get("best_step")} were kept.
{f"Set by hand: {chosen}; the rest" if chosen else "Hyper-parameters"} by default: AdamW, early stopping on the
validation split. Weights: SHA-256 {_code(training.get("weights_sha256", ""))}. The same again:

    {command(record)}
"""


def _limits(record: dict[str, Any]) -> str:
    lines = [
        "It does the one task of its instruction. On other inputs it answers something, and that is worth nothing.",
        "It gives no measure of how sure it is. Where a wrong answer costs, have a person or a rule check.",
        "The scores hold for inputs like those of the test split, and for no others.",
    ]
    if "real" not in {s["slice"] for s in (record.get("evaluation") or {}).get("scores") or []}:
        lines.append("It was tested on generated rows alone, so how it does on real ones is not known.")
    parts = (record.get(part) or {} for part in ("spec", "prepare", "training", "evaluation"))
    lines += [_plain(note) for part in parts for note in part.get("notes") or []]
    lines.append(
        "The licence of the weights follows from the base model's and the data's: settle it before you publish."
    )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in dict.fromkeys(lines))


def _instruction(record: dict[str, Any]) -> str:
    spec = record.get("spec") or {}
    return str(spec.get("original_instruction") or spec.get("instruction") or record.get("prompt", ""))


def _quote(text: str) -> str:
    return "\n".join(f"> {_plain(line)}" for line in text.splitlines() or [""])


def _code(text: str) -> str:
    return "`" + " ".join(text.replace("`", "'").split()) + "`"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, on one line: no HTML, no table cell, no link."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")
