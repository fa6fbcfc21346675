"""The report of a run: one HTML file that shows what came out, how sure that is, and what it was made of.

    write(folder, record) -> folder/report.html      `record` is run.json (its keys: see `outcome`)
    ├── report_page      the template and its style sheet
    └── charts           the SVG

It needs no network, no script and no other file, and reads the same on a phone, in light and in dark. A stage that
did not run leaves its section out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from orchestrator import charts, constraints
from orchestrator.amounts import bytes_text, count_text, dollars_text, seconds_text
from orchestrator.report_page import PAGE, STYLE

MAIN_METRIC = "exact_match"
"""What the verdict rests on."""
METRIC_TITLES = {
    MAIN_METRIC: "Exact match",
    "exact_match_normalised": "Exact match, normalised",
    "chrf": "chrF++",
    "bertscore": "BERTScore",
}
CONTESTANT_TITLES = {
    "student": "Student",
    "base": "Untuned base",
    "nearest_neighbour": "Nearest neighbour",
    "teacher": "Teacher (LLM)",
}
VERDICTS = {
    "ship": ("ship", "✓", "Ship"),
    "do_not_ship": ("no", "✗", "Do not ship"),
    "not_enough_evidence": ("unsure", "?", "Not enough evidence"),
}
_KINDS = {
    "retrieved": "found", "adapted": "found, rewritten by the LLM", "generated": "written by the LLM",
    "user": "your own",
}  # fmt: skip
_BY = {
    "llm": "The LLM chose it.", "score": "It has the best score.", "person": "You chose it.", "option": "You named it.",
}  # fmt: skip
_STOPS = {
    "number": "all that were wanted", "budget": "the budget was spent", "nothing_new": "the LLM had nothing new to say",
}  # fmt: skip
_SLICES = {"real": "all real rows", "generated": "all generated rows", "all": "all rows"}
_LONG_TEXT = 600


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Writes `folder`/report.html from the run's record and returns its path."""
    path = folder / "report.html"
    path.write_text(render(record), encoding="utf-8")
    return path


def render(record: dict[str, Any]) -> str:
    """The page's HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(PAGE).render(style=Markup(STYLE), **_facts(record))


def main_slice(scores: Iterable[dict[str, Any]]) -> str:
    """The rows that the verdict rests on: the real ones where there are any, else all."""
    slices = {score["slice"] for score in scores if score["contestant"] == "student"}
    return next((name for name in ("real", "all", "generated") if name in slices), "")


def verdict_of(record: dict[str, Any]) -> dict[str, str]:
    """The verdict as the page, the demo and the terminal show it: style, glyph, word, reason."""
    evaluation = record.get("evaluation") or {}
    style, glyph, word = VERDICTS.get(evaluation.get("verdict", ""), ("unsure", "?", "Not measured"))
    return {"style": style, "glyph": glyph, "word": word, "reason": evaluation.get("verdict_reason", "")}


def score_panels(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One chart per metric with a row per contestant, on the rows that the verdict rests on."""
    scores = (record.get("evaluation") or {}).get("scores") or []
    chosen = main_slice(scores)
    panels = []
    for metric, title in METRIC_TITLES.items():
        found = {s["contestant"]: s for s in scores if s["metric"] == metric and s["slice"] == chosen}
        if not found:
            continue
        names = [
            *(name for name in CONTESTANT_TITLES if name in found),
            *(n for n in found if n not in CONTESTANT_TITLES),
        ]
        rows = [_score_row(name, found[name]) for name in names]
        panels.append({"metric": metric, "title": title, "rows": rows, "axis": charts.axis_labels((0, 100))})
    return panels


def _facts(record: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    spec = record.get("spec") or {}
    evaluation = record.get("evaluation") or {}
    training = record.get("training") or {}
    scores = evaluation.get("scores") or []
    chosen_slice = main_slice(scores)
    samples = [_example(sample) for sample in record.get("samples") or []]
    errors = [sample for sample in samples if not sample["right"]]
    right = [sample for sample in samples if sample["right"]]
    student = _score(scores, "student", MAIN_METRIC, chosen_slice)
    panels = score_panels(record)
    return {
        "name": record["name"],
        "date": _date(record.get("created", "")),
        "instruction": spec.get("original_instruction") or spec.get("instruction") or record.get("prompt", ""),
        "prompt": record.get("prompt", ""),
        "verdict": verdict_of(record),
        "tiles": _tiles(record, student),
        "score_panels": panels,
        "slice_text": _slice_text(chosen_slice, student),
        "ceiling": _ceiling(evaluation),
        "comparisons": _comparisons(evaluation.get("comparisons") or []),
        "slices": _slices(scores),
        "loss_chart": charts.losses(
            [
                charts.Loss(p["step"], p.get("train_loss"), p.get("validation_loss"))
                for p in training.get("history") or []
            ],
            training.get("best_step") or 0,
        ),
        "training_text": _training_text(record, training),
        "sources": _sources(record.get("data_by_source") or {}),
        "removed": _removed(record),
        "errors": errors[:30],
        "samples": right[:12],
        "examples_text": _examples_text(samples, errors),
        "choices": [*_dataset_choice(record), *_model_choice(record)],
        "stages": [_stage_row(stage, verdict_of(record)["word"]) for stage in record.get("stages") or []],
        "total": _total(record),
        "cost_text": _cost_text(record),
        "notes": _notes(record),
        "command": command(record),
        "digests": _digests(record),
    }


# -- scores


def _score(scores: list[dict[str, Any]], contestant: str, metric: str, slice_name: str) -> dict[str, Any] | None:
    wanted = (contestant, metric, slice_name)
    return next((s for s in scores if (s["contestant"], s["metric"], s["slice"]) == wanted), None)


def _score_row(name: str, score: dict[str, Any]) -> dict[str, Any]:
    estimate = score["estimate"]
    who = CONTESTANT_TITLES.get(name, name)
    value, range_text = f"{estimate['value']:.1f}", _range(estimate)
    title = f"{who}: {value} %, 95 % interval {range_text}, {score['rows']} rows"
    style = name if name in ("student", "teacher") else "other"
    chart = charts.interval(estimate["value"], estimate["low"], estimate["high"], (0, 100), style, title)
    return {"who": who, "style": style, "chart": chart, "value": value, "range": range_text}


def _comparisons(comparisons: list[dict[str, Any]]) -> dict[str, Any] | None:
    shown = [c for c in comparisons if c["metric"] == MAIN_METRIC] or comparisons
    if not shown:
        return None
    ends = [value for c in shown for value in (c["difference"]["low"], c["difference"]["high"], 0.0)]
    axis = (max(-100.0, 10 * (min(ends) // 10)), min(100.0, 10 * -(-max(ends) // 10)) or 10.0)
    rows = []
    for comparison in shown:
        difference = comparison["difference"]
        style = "above" if difference["low"] > 0 else "below" if difference["high"] < 0 else "other"
        who = CONTESTANT_TITLES.get(comparison["against"], comparison["against"])
        value = f"{difference['value']:+.1f}"
        title = f"student less {who}: {value} points, 95 % interval {_range(difference)}, {comparison['rows']} rows"
        chart = charts.interval(difference["value"], difference["low"], difference["high"], axis, style, title)
        rows.append(
            {
                "who": f"less {who[0].lower()}{who[1:]}",
                "style": "other",
                "chart": chart,
                "value": value,
                "range": _range(difference),
            }
        )
    return {"rows": rows, "axis": charts.axis_labels(axis)}


def _slices(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [s for s in scores if s["contestant"] == "student" and s["metric"] == MAIN_METRIC]
    if len({s["rows"] for s in rows}) < 2:
        return []  # all slices are the same rows
    return [
        {
            "name": _SLICES.get(s["slice"], s["slice"]),
            "rows": s["rows"],
            "value": f"{s['estimate']['value']:.1f}",
            "range": _range(s["estimate"]),
        }
        for s in rows
    ]


def _range(estimate: dict[str, Any]) -> str:
    return f"{estimate['low']:.1f} to {estimate['high']:.1f}"


def _slice_text(name: str, student: dict[str, Any] | None) -> str:
    if student is None:
        return ""
    kind = {"real": "real", "generated": "generated"}.get(name, "")
    return f"{student['rows']:,} {kind} rows".replace("  ", " ")


def _ceiling(evaluation: dict[str, Any]) -> str:
    parts = []
    ceiling = evaluation.get("ceiling")
    if ceiling is not None and ceiling < 99.95:
        parts.append(
            f"The student can reach at most {ceiling:.1f} % exact match here: its tokenizer cannot write "
            "the other outputs."
        )
    if evaluation.get("bertscore_encoder"):
        parts.append(f"BERTScore was taken with {evaluation['bertscore_encoder']}.")
    return " ".join(parts)


# -- parts of the page


def _tiles(record: dict[str, Any], student: dict[str, Any] | None) -> list[dict[str, str]]:
    tiles = []
    if student is not None:
        tiles.append(
            {"name": "Student's exact match", "value": f"{student['estimate']['value']:.1f} %",
             "detail": f"{_range(student['estimate'])}, {student['rows']} test rows"}
        )  # fmt: skip
    training, model = record.get("training") or {}, (record.get("chosen") or {}).get("model") or {}
    if training:
        size = (record.get("artifacts") or {}).get("model", {}).get("size_bytes", 0)
        detail = f"{bytes_text(size)} on disk" if size else model.get("id", "")
        tiles.append({"name": "Parameters", "value": count_text(training.get("parameters") or 0), "detail": detail})
    by_source = (record.get("data_by_source") or {}).values()
    if by_source:
        train = sum(source.get("train", 0) for source in by_source)
        tiles.append(
            {"name": "Rows trained on", "value": f"{train:,}", "detail": f"from {_plural(len(by_source), 'source')}"}
        )
    total = (record.get("ledger") or {}).get("total") or {}
    tiles.append(
        {"name": "Spent on the LLM", "value": dollars_text(total.get("dollars", 0.0)),
         "detail": _plural(total.get("requests", 0), "request")}
    )  # fmt: skip
    seconds = _all_seconds(record)
    if seconds:
        trained = training.get("seconds")
        tiles.append(
            {
                "name": "Time",
                "value": seconds_text(seconds),
                "detail": f"training {seconds_text(trained)}" if trained else "",
            }
        )
    return tiles


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
            + ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in set_by_hand.items())
            + "."
        )
    if training.get("resumed_from_step"):
        text += f" It was interrupted and went on from step {training['resumed_from_step']}."
    return text


def _sources(by_source: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    def rows(counts: dict[str, Any]) -> list[tuple[str, float]]:
        return [(split, counts.get(split) or 0) for split in ("train", "validation", "test")]

    most = max((sum(count for _, count in rows(counts)) for counts in by_source.values()), default=0)
    return [
        {
            "name": name,
            "kind": _KINDS.get(counts.get("kind", ""), ""),
            "chart": charts.stack(rows(counts), most),
            "text": " / ".join(f"{count:,}" for _, count in rows(counts)),
        }
        for name, counts in sorted(by_source.items(), key=lambda item: -sum(count for _, count in rows(item[1])))
    ]


def _removed(record: dict[str, Any]) -> list[dict[str, Any]]:
    generation, prepare = record.get("generation") or {}, record.get("prepare") or {}
    dataset = (record.get("chosen") or {}).get("dataset") or {}
    parts = (
        ("loading the dataset", dataset.get("dropped") or {}),
        ("rewriting its rows", (dataset.get("adapted") or {}).get("dropped") or {}),
        ("making data", generation.get("dropped") or {}),
        ("splitting", prepare.get("removed") or {}),
    )
    return [
        {"where": where, "why": reason.replace("_", " "), "rows": f"{count:,}"}
        for where, counts in parts
        for reason, count in sorted(counts.items(), key=lambda item: -item[1])
        if count
    ]


def _example(sample: dict[str, Any]) -> dict[str, Any]:
    predictions = sample.get("predictions") or {}
    others = [
        {"name": CONTESTANT_TITLES.get(name, name), "answer": _cut(answer)}
        for name, answer in predictions.items()
        if name != "student" and answer is not None
    ]
    return {
        "input": _cut(sample["input"]),
        "wanted": _cut(sample["output"]),
        "student": _cut(predictions.get("student") or ""),
        "right": bool(sample.get("correct")),
        "others": others,
    }


def _examples_text(samples: list[dict[str, Any]], errors: list[dict[str, Any]]) -> str:
    if not errors:
        return f"None of the {len(samples)} rows looked at is wrong."
    return "Wrong answers are in the order of the test set; what the others answered stands beside them."


def _dataset_choice(record: dict[str, Any]) -> list[dict[str, Any]]:
    candidates = (record.get("alternatives") or {}).get("datasets") or []
    chosen = (record.get("chosen") or {}).get("dataset")
    excluded, notes = record.get("excluded_datasets") or [], _search_notes(record, "dataset")
    if not candidates and not chosen and not excluded:
        return []
    if chosen:
        columns = " + ".join(chosen.get("input_columns") or [])
        text = f"{chosen['id']}: {_sentence(chosen.get('why', ''))} {_BY.get(chosen.get('by', ''), '')}"
        if columns:
            rows_text = _plural(chosen.get("rows") or 0, "row")
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
                {"input": _cut(row["input"]), "output": _cut(row["output"])}
                for row in (chosen or {}).get("sample") or []
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
        text = f"{chosen['id']}: {_sentence(chosen.get('why', ''))} {_BY.get(chosen.get('by', ''), '')} " + " ".join(
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


def _stage_row(stage: dict[str, Any], verdict: str) -> dict[str, str]:
    seconds = stage.get("seconds")
    return {
        "name": stage["name"],
        # The verdict's reason stands at the top of the page.
        "message": verdict if stage["name"] == "evaluate" else stage.get("message") or stage.get("state", ""),
        "time": seconds_text(seconds) if seconds is not None else "",
    } | _ledger_cells(stage.get("ledger") or {})


def _total(record: dict[str, Any]) -> dict[str, str]:
    seconds = _all_seconds(record)
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


def _cost_text(record: dict[str, Any]) -> str:
    generation = record.get("generation")
    text = "Stages in the middle run at the same time, so their times do not add up. Replayed answers were paid before."
    if generation:
        stop = _STOPS.get(generation.get("stop_reason", ""), "")
        text = (
            f"{generation.get('llm') or 'The LLM'} wrote {_plural(generation.get('rows') or 0, 'example')}"
            + (f" ({stop}). " if stop else ". ")
            + text
        )
    return text


def _notes(record: dict[str, Any]) -> list[str]:
    """Every stage's notes, once each, in the order of the stages."""
    parts = (record.get(part) or {} for part in ("spec", "prepare", "training", "evaluation"))
    notes = [note for part in parts for note in part.get("notes") or []]
    skipped = [
        f"{stage['name']}: {stage['message']}"
        for stage in record.get("stages") or []
        if stage.get("state") == "skipped" and stage.get("message") not in ("", None, "switched off")
    ]
    return list(dict.fromkeys([*skipped, *notes]))


def command(record: dict[str, Any]) -> str:
    """The command line that starts the same run again, for the options that can be typed."""
    options = record.get("options") or {}
    words = ["p2m run PROMPT_FILE", "--name", shlex.quote(record["name"])]
    for option, flag in (
        ("dataset", "--dataset"), ("model", "--model"), ("number", "--number"), ("max_rows_per_source", "--max-rows"),
        ("max_model_bytes", "--max-size"), ("learning_rate", "--learning-rate"), ("epochs", "--epochs"),
        ("batch_tokens", "--batch-tokens"), ("max_train_seconds", "--max-train-time"), ("seed", "--seed"),
        ("teacher_rows", "--teacher-rows"), ("licence", "--licence"), ("max_dataset_bytes", "--dataset-max-size"),
        ("dataset_task", "--dataset-task"),
    ):  # fmt: skip
        if options.get(option) not in (None, ""):
            words += [flag, shlex.quote(_number(options[option]))]
    if options.get("max_cpu_latency_ms"):
        words += ["--cpu-latency", f"{options['max_cpu_latency_ms']:.10g}ms"]
    if options.get("languages"):
        words += ["--languages", shlex.quote(",".join(options["languages"]))]
    for option, flag in (
        ("skip_datasets", "--skip datasets"), ("skip_generation", "--skip generate"), ("lora", "--lora"),
        ("ask", "--ask"), ("adapt", "--adapt"),
        ("include_gated", "--include-gated"),
    ):  # fmt: skip
        words += [flag] if options.get(option) else []
    words += ["--no-adapt"] if options.get("adapt") is False else []
    words += ["--data FILE" for name in record.get("artifacts") or {} if name.startswith("user-")]
    return " ".join(" ".join(words).split())


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


def _all_seconds(record: dict[str, Any]) -> float:
    """From the run's beginning to its end; the sum of its stages where that is not known."""
    try:
        begun, ended = (datetime.fromisoformat(record[key]) for key in ("created", "ended"))
    except (KeyError, TypeError, ValueError):
        return float(sum(stage.get("seconds") or 0 for stage in record.get("stages") or []))
    return (ended - begun).total_seconds()


def _date(text: str) -> str:
    return text.replace("T", " ")[:16] + " UTC" if text else ""


def _cut(text: str) -> str:
    return text if len(text) <= _LONG_TEXT else f"{text[: _LONG_TEXT // 2]} … {text[-_LONG_TEXT // 2 :]}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text[-1] in ".!?" else text + "."


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
