"""What a run leaves: one folder, from the stages' results.

    <out>/
    ├── model/             loads with plain transformers: safetensors, tokenizer, generation config
    ├── exports/           the model in other formats, a folder each: onnx-int8/, ctranslate2-int8/, ...
    ├── data/              train, validation, test, predictions; each source as it came: retrieved, generated-0, ...
    ├── metrics.json       scores, comparisons and the verdict
    ├── report.html        by `report.write(folder, record)`
    ├── model_card.md      by `model_card.write(folder, record)`
    └── run.json           the record

The record (run.json) is one JSON object with these keys, always all of them; a stage that did not run has None:

    name            str
    prompt          str, whole
    created, ended  str, ISO 8601 in UTC
    options         {option: value}, only those that were set; field names of RunOptions
    spec            {instruction, demonstrations [{input, output}], language, original_instruction,
                    method "llm" or "rules", notes [str]}
    stages          [{name, state "done" | "skipped" | "failed", message, seconds float | None, ledger | None}],
                    in order: parse, datasets, generate, models, prepare, train, evaluate, export, report
    chosen          {dataset: {id, config, input_columns [str], output_column, why, score, licence, rows int,
                     revision, dropped {reason: int}: when loaded, by, sample [{input, output}] as found,
                     fit "unspecified" | "whole" | "part",
                     fit_why, adapted {rows int, why, dropped {reason: int}, plan {steps [str], keep, drop,
                     format} | None}: what the LLM rewrote, or why it did not} | None,
                     model: {id, location, architecture, why, score, size_bytes, downloads, learning_rate,
                     flags [str], by}, hypothetical_card: str}; by: "llm", "score", "person", "option" or
                     "search"
    asked_for       {model: str, dataset: str}: the constraints in words, "" where there were none
    alternatives    {datasets: [{id, score, why, parts {name: value}, reachable bool, licence, languages [str],
                     size_bytes, tasks [str], flags [str], description}],
                     models: [{id, score, why, parts {name: value}, size_bytes, downloads, location, flags, licence,
                     languages [str], cpu_latency_ms, description}]}, best first, the chosen one among them, at most
                     25 and 10
    excluded_models [{id, reason}];  excluded_datasets alike: what the constraints left out, those that ranked high
    search_notes    {datasets: [str], models: [str]}: what the searches said of themselves
    generation      {rows int, dropped {reason: int}, stop_reason "number" | "budget" | "nothing_new", llm str,
                    parts int, metrics {name: value}: distinct_1, distinct_2, label_balance,
                    repeats [{examples int, duplicates, near_duplicates}] over the run, in percent,
                    attributes {topics, lengths, difficulties, labels: [str]} | None: what examples were to differ in,
                    attributes_by "llm" | "option" | "person",
                    outcomes {"kept" | "surplus" | "duplicate" | "invalid" | "lost" | "planning": {examples int,
                    requests, prompt_tokens, completion_tokens, dollars}}: what the money went on, those that there
                    were; batched int: requests that went by batch; notes [str]} | None
    prepare         {counts [{source, kind "retrieved" | "adapted" | "generated" | "user",
                    split, rows}],
                    removed {reason: int}, notes [str],
                    leaks [{source, kind, split, repeats "test" | "validation" | "demonstration", near bool, rows,
                    examples [{input, other}]}], labels [{label, train, validation, test}]: where outputs are labels}
    data_by_source  {source: {train int, validation int, test int, kind}}
    training        {history [{step, epoch, train_loss, validation_loss float | None}], best_step, parameters, seconds,
                    weights_sha256, notes [str], hyper_parameters {name: value, only those that were set},
                    resumed bool, resumed_from_step int | None,
                    labels [str]: what a model with a head for labels can answer; [] where it writes text}
    evaluation      {scores [{contestant, slice, metric, estimate {value, low, high}, rows}],
                     comparisons [{against, metric, difference {value, low, high}, rows}],
                     verdict "ship" | "do_not_ship" | "not_enough_evidence", verdict_reason str, ceiling float,
                     bertscore_encoder str, notes [str], more_rows int: that would probably settle the verdict,
                     agreements [{metric, tau {value, low, high}, contestants, generated_rows, real_rows}],
                     slices [{name, kind, rows, error_rate {value, low, high}, rest_error_rate, difference,
                     examples [{input, output, prediction}], test_rows, test_error_rate}]: where the student fails,
                     slices_split "validation" | "test": where they were found, slices_wrong str,
                     slice_comparisons [{slice, against, metric, student, other, difference {value, low, high}, rows}]:
                     on test rows of the slices that an improvement was aimed at}
    improvement     {of str: the run before, slices [{name, kind, rows, error_rate, rest_error_rate: on its validation
                     rows, asked int, generated int, change slice comparison against "before" | None}], added int:
                     training rows more, removed {reason: int}: of the generated ones} | None
    search          {budget_seconds, seconds, models [str]: that it was to try, trials [{number, model, hyper_parameters
                     {learning_rate, epochs, batch_tokens}, state "complete" | "pruned" | "out_of_time" | "failed",
                     validation_exact_match: % | None, validation_loss | None, seconds, parameters, size_bytes,
                     cpu_latency_ms: 0 unknown, error str}], best int | None, pareto [int], notes [str]} | None
    attribution     {budget_seconds, sources [{source: a kind, rows int: in training, difference {value, low, high}:
                     the student less one trained without it, points of exact match, test_rows, seconds}],
                     left_out [{source, rows, why}]} | None
    exports         {formats [{format, error str, model artifact | None, measured {scores, comparisons: less the
                     student, same: % of rows answered as the student does, latency {p50_ms, p95_ms, mean_ms,
                     inputs, threads, processor}, rows_per_second, load_seconds, runtime} | None}],
                     student {the same, only timed} | None, recommended: a format or "" for the model as trained,
                     costs {cpu_hour_dollars, per_1000 {format or "student": dollars},
                     teacher {dollars, tokens, requests}: the first two for 1,000 inputs | None}} |
                    None
    samples         [{input, output, source, real bool, predictions {contestant: str | None}, correct bool}]: the
                    first 30 test rows, and after them up to 30 more that the student got wrong; correct is
                    normalised exact match
    ledger          {stages {stage: ledger}, total ledger}; a ledger is {requests, prompt_tokens, completion_tokens,
                    dollars, replayed, invalid}
    artifacts       {name: {uri, sha256, size_bytes, media_type}}: model, base, train, validation, test, predictions,
                    retrieved, generated-<part>, user-<i>, export-<format>; those that there are

Scores are percentages (0 to 100).
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from orchestrator import constraints, exports, improving, model_card, searching
from orchestrator import report as report_file
from orchestrator.plain import plain
from orchestrator.steps.datasets import SHOWN_DATASETS
from orchestrator.steps.models import SHOWN_MODELS
from orchestrator.steps.step import Outcome, Step
from services.kit.artifacts import Artifacts
from services.kit.metrics import exact_match_normalised
from services.kit.values import Artifact, Ledger
from services.kit.wire import from_message

SERVICE = "run"

_EXPORT = "export-"
_SAMPLES = 30
_ERRORS = 30
_DESCRIPTION_CHARACTERS = 500
# They are shown under their own headings.
_NOT_OPTIONS = ("data", "test")


async def report(step: Step) -> Outcome:
    """Writes the folder and stores it as an artifact."""
    result, count = await asyncio.to_thread(_build, step)
    message = f"{count} files, {result.size_bytes / 1e6:.1f} MB"
    return Outcome(message, {"result": asdict(result)})


def _build(step: Step) -> tuple[Artifact, int]:
    store = Artifacts.open(step.settings, SERVICE)
    known = artifacts(step)
    with tempfile.TemporaryDirectory(prefix="p2m-result-") as temporary:
        folder = Path(temporary)
        store.fetch(known["model"], folder / "model")
        for name, artifact in known.items():
            if name.startswith(_EXPORT):
                store.fetch(artifact, folder / "exports" / name.removeprefix(_EXPORT))
        for name, artifact in known.items():
            if name not in ("model", "base") and not name.startswith(_EXPORT):
                store.fetch(artifact, folder / "data" / f"{name}.parquet")
        run = record(step, known, store)
        _write_json(folder / "run.json", run)
        _write_json(folder / "metrics.json", run["evaluation"])
        report_file.write(folder, run)
        model_card.write(folder, run)
        return store.put_folder(folder), sum(path.is_file() for path in folder.rglob("*"))


def artifacts(step: Step) -> dict[str, Artifact]:
    """The run's artifacts by the names of the record."""
    done = step.done
    named = {"model": done["train"]["model"], "base": done["train"]["base"]}
    named |= {split: done["prepare"][split] for split in ("train", "validation", "test")}
    named["predictions"] = done["evaluate"]["predictions"]
    if done["datasets"].get("dataset"):
        named["retrieved"] = done["datasets"]["dataset"]
    named |= {f"generated-{i}": dataset for i, dataset in enumerate(done["generate"].get("datasets", []))}
    named |= {f"user-{i}": plain(data) for i, data in enumerate(step.options.data)}
    named |= {f"{_EXPORT}{found['format']}": found["model"] for found in done["export"].get("exports", [])}
    return {name: Artifact(**artifact) for name, artifact in named.items() if artifact and artifact["uri"]}


def record(step: Step, known: dict[str, Artifact], store: Artifacts) -> dict[str, Any]:
    """What run.json holds; the module's docstring names its keys."""
    done = step.done
    parsed, found, models, trained, measured = (
        done["parse"], done["datasets"], done["models"], done["train"], done["evaluate"],
    )  # fmt: skip
    generated = done["generate"]
    counts = done["prepare"]["counts"]
    model = searching.chosen_model(done)
    kept = {
        "name": step.name,
        "prompt": step.prompt,
        "created": step.standing.created_at.ToDatetime(UTC).isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": _given(step.options),
        "spec": {**parsed["spec"], "method": parsed["method"], "notes": parsed["notes"]},
        "stages": [_stage(stage) for stage in step.standing.stages],
        "chosen": {
            "dataset": found.get("chosen"),
            "model": {
                key: model[key]
                for key in ("id", "location", "architecture", "why", "score", "size_bytes", "downloads",
                            "learning_rate", "epochs", "batch_tokens", "flags", "licence", "by")
            },
            "hypothetical_card": models["hypothetical_card"],
        },
        "alternatives": {
            "datasets": [
                _candidate(candidate, "reachable", "licence", "languages", "size_bytes", "tasks", "flags")
                for candidate in found.get("candidates", [])[:SHOWN_DATASETS]
            ],
            "models": [
                _candidate(candidate, "size_bytes", "downloads", "location", "flags", "licence", "languages",
                           "cpu_latency_ms")
                for candidate in models["candidates"][:SHOWN_MODELS]
            ],
        },
        "asked_for": constraints.asked_for(step.options),
        "excluded_models": models["excluded"],
        "excluded_datasets": found.get("excluded", []),
        "search_notes": {"datasets": found.get("notes", []), "models": models.get("notes", [])},
        "generation": {key: generated.get(key) for key in ("rows", "dropped", "stop_reason", "llm", "parts", "metrics",
                                                             "repeats", "attributes", "attributes_by", "outcomes",
                                                             "batched", "notes")}
        if "rows" in generated
        else None,
        "prepare": {"counts": counts, **{key: done["prepare"][key] for key in ("removed", "notes", "leaks", "labels")}},
        "data_by_source": _by_source(counts),
        "training": {
            **{key: trained[key] for key in ("history", "best_step", "parameters", "seconds", "weights_sha256", "notes",
                                             "hyper_parameters", "resumed_from_step")},
            "labels": trained.get("labels", []),
            "resumed": trained["resumed_from_step"] is not None,
        },
        "evaluation": {
            key: measured.get(key)  # a run that an older program evaluated has not all of them
            for key in ("scores", "comparisons", "verdict", "verdict_reason", "ceiling", "bertscore_encoder", "notes",
                        "more_rows", "agreements", "slices", "slices_split", "slices_wrong", "slice_comparisons")
        },
        "improvement": improving.of_record(step),
        "search": trained.get("search"),
        "attribution": measured.get("attribution"),
        "samples": _samples(store, known),
        "ledger": {
            "stages": {stage: asdict(ledger) for stage, ledger in step.spent.items()},
            "total": asdict(sum(step.spent.values(), Ledger())),
        },
        "artifacts": {name: asdict(artifact) for name, artifact in known.items()},
    }  # fmt: skip
    return kept | {"exports": exports.of_record(done["export"], kept, step.settings.cpu_hour_dollars)}


def _given(options: run_pb2.RunOptions) -> dict[str, Any]:
    given = {field.name: value for field, value in options.ListFields()}
    return {name: value for name, value in plain(options).items() if name in given and name not in _NOT_OPTIONS}


def _stage(stage: run_pb2.Stage) -> dict[str, Any]:
    ended = stage.HasField("started_at") and stage.HasField("ended_at")
    # The report is written while its own stage is under way.
    state = "done" if stage.name == "report" else plain(stage)["state"]
    return {
        "name": stage.name,
        "state": state,
        "message": stage.message,
        "seconds": (stage.ended_at.ToNanoseconds() - stage.started_at.ToNanoseconds()) / 1e9 if ended else None,
        "ledger": asdict(from_message(stage.ledger, Ledger)) if stage.HasField("ledger") else None,
    }


def _candidate(candidate: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {
        "id": candidate["id"],
        "score": candidate["score"],
        "why": candidate["why"],
        "parts": {part["name"]: part["value"] for part in candidate["parts"]},
        "description": candidate["description"][:_DESCRIPTION_CHARACTERS],
        **{key: candidate.get(key) for key in keys},
    }


def _by_source(counts: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    sources: dict[str, dict[str, Any]] = {}
    for count in counts:
        source = sources.setdefault(count["source"], {"train": 0, "validation": 0, "test": 0, "kind": count["kind"]})
        source[count["split"]] += count["rows"]
    return sources


def _samples(store: Artifacts, known: dict[str, Artifact]) -> list[dict[str, Any]]:
    rows = [*_judged(store, known)]
    wrong = [row for row in rows[_SAMPLES:] if not row["correct"]]
    return rows[:_SAMPLES] + wrong[:_ERRORS]


def _judged(store: Artifacts, known: dict[str, Artifact]) -> Iterator[dict[str, Any]]:
    """The test rows with everybody's answers."""
    answered = store.read_table(known["predictions"]).to_pylist()
    tested = store.read_rows(known["test"])
    for plain_row, row in zip(answered, tested, strict=True):
        predictions = {
            name.removeprefix("prediction_"): value
            for name, value in plain_row.items()
            if name.startswith("prediction_")
        }
        right = row.answers or (row.output,)
        yield {
            "input": row.input,
            "output": row.output,
            "source": row.source,
            "real": bool(plain_row["real"]),
            "predictions": predictions,
            "correct": exact_match_normalised(predictions.get("student") or "", right) > 0,
        }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
