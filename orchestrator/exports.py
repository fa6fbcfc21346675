"""The stage "export": the student in formats that ship, each timed and scored on the same locked test rows.

    export(step)              the stage: writes, measures, and never fails the run
    ├── wanted(...)           the formats that were asked for, or those to try in turn
    └── one(...)              trainer.Export, then evaluator.Measure
    costs(record, price)      dollars for 1,000 inputs: student, exports, teacher
    recommended(exports)      the fastest of which it is sure that it is hardly worse than the student

By default one format: CTranslate2 with 8 bits where it has the architecture, since it is small and quick to write and
to run, else ONNX with 8 bits, which takes every architecture.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import Message
from p2m.common.v1 import common_pb2
from p2m.evaluator.v1 import evaluator_pb2
from p2m.trainer.v1 import trainer_pb2

from orchestrator.amounts import bytes_text
from orchestrator.plain import plain
from orchestrator.searching import chosen_model
from orchestrator.steps.step import Outcome, Step, part_is_down
from services.kit.errors import InvalidArgument, P2MError

FORMATS = {
    "ctranslate2-int8": trainer_pb2.EXPORT_FORMAT_CTRANSLATE2_INT8,
    "onnx-int8": trainer_pb2.EXPORT_FORMAT_ONNX_INT8,
    "onnx": trainer_pb2.EXPORT_FORMAT_ONNX,
    "safetensors-bf16": trainer_pb2.EXPORT_FORMAT_SAFETENSORS_BF16,
}
NONE = "none"
STUDENT = "student"
EXACT_MATCH = "exact_match"
# An encoder is trained as an encoder-decoder or with a head for labels, and CTranslate2 takes neither.
_ONNX_ONLY = "encoder"
# Points of exact match that an export may be below the student, its interval's lower end counted; as for the verdict.
MARGIN = 5.0


def check(formats: list[str]) -> None:
    """InvalidArgument for a format that there is not."""
    for name in formats:
        if name not in FORMATS and name != NONE:
            raise InvalidArgument(
                "BAD_FORMAT",
                f"There is no export format {name[:40]!r}; wanted {', '.join(FORMATS)} or {NONE}.",
                field="options.export_formats",
            )
    if NONE in formats and len(formats) > 1:
        raise InvalidArgument(
            "BAD_FORMAT", f"{NONE!r} stands beside other export formats; drop it or them.",
            field="options.export_formats",
        )  # fmt: skip


def wanted(formats: list[str], architecture: str) -> tuple[list[str], bool]:
    """The formats, and whether only the first that is possible is meant."""
    if formats:
        return [name for name in dict.fromkeys(formats) if name != NONE], False
    return (["onnx-int8"] if architecture == _ONNX_ONLY else ["ctranslate2-int8", "onnx-int8"]), True


async def export(step: Step) -> Outcome:
    """The student in other formats. What fails is told and left out: the model as trained is there all the same."""
    formats, first_only = wanted([*step.options.export_formats], chosen_model(step.done)["architecture"])
    if not formats:
        return Outcome("switched off", skipped=True)
    exports: list[dict[str, Any]] = []
    for name in formats:
        found = await _tried(step, name)
        exports.append(found)
        if first_only and not found["error"]:
            exports = [found]
            break
    written = [found for found in exports if not found["error"]]
    if not written:
        return Outcome("; ".join(found["error"] for found in exports), {"exports": exports}, skipped=True)
    student = await _student(step)
    return Outcome("; ".join(_line(found) for found in exports), {"exports": exports, STUDENT: student})


async def one(
    name: str,
    model: common_pb2.Artifact,
    run: str,
    measured: evaluator_pb2.MeasureRequest,
    write: Callable[[trainer_pb2.ExportRequest], Awaitable[Any]],
    measure: Callable[[evaluator_pb2.MeasureRequest], Awaitable[Any]],
) -> dict[str, Any]:
    """One format, written and measured: {format, error "", model, measured}. Raises what the services raise."""
    asked = trainer_pb2.ExportRequest(request_id=f"{run}/export/{name}", model=model, format=FORMATS[name])
    written = await write(asked)
    request = evaluator_pb2.MeasureRequest()
    request.CopyFrom(measured)
    request.request_id, request.name = f"{run}/measure/{name}", name.replace("-", "_")
    request.model.CopyFrom(written.model)
    return _entry(name, written.model, await measure(request))


def measure_request(
    spec: common_pb2.PromptSpec, test: common_pb2.Artifact, predictions: common_pb2.Artifact, seed: int
) -> evaluator_pb2.MeasureRequest:
    """What all measurements of a run have in common."""
    return evaluator_pb2.MeasureRequest(spec=spec, test=test, predictions=predictions, seed=seed)


def of_record(done: dict[str, Any], record: dict[str, Any], cpu_hour_dollars: float) -> dict[str, Any] | None:
    """What run.json says of the exports (see `outcome`); None where there is none."""
    if not done.get("exports"):
        return None
    found = {"formats": done["exports"], STUDENT: done.get(STUDENT)}
    return found | {
        "recommended": recommended(found),
        "costs": costs(record | {"exports": found}, cpu_hour_dollars),
    }


def costs(record: dict[str, Any], cpu_hour_dollars: float) -> dict[str, Any]:
    """Dollars for 1,000 inputs, one at a time: {cpu_hour_dollars, per_1000 {name: dollars}, teacher ... | None}.

    A CPU's are the mean seconds of an answer times its threads, at the price of an hour of one core. The teacher's are
    what its answers to the test rows cost; tokens too, since a local LLM has no price.
    """
    found = record.get("exports") or {}
    rows = [*found.get("formats", []), *([found[STUDENT]] if found.get(STUDENT) else [])]
    per_1000 = {
        row["format"]: row["measured"]["latency"]["mean_ms"]
        * row["measured"]["latency"]["threads"]
        / 3600
        * cpu_hour_dollars
        for row in rows
        if row["measured"]
    }
    ledger = (record.get("ledger") or {}).get("stages", {}).get("evaluate") or {}
    asked = int(ledger.get("requests") or 0)
    teacher = None
    if asked:
        tokens = ledger["prompt_tokens"] + ledger["completion_tokens"]
        teacher = {"dollars": 1000 * ledger["dollars"] / asked, "tokens": 1000 * tokens / asked, "requests": asked}
    return {"cpu_hour_dollars": cpu_hour_dollars, "per_1000": per_1000, "teacher": teacher}


def recommended(exports: dict[str, Any]) -> str:
    """The format to serve: the fastest whose exact match is surely less than the margin below the student's.

    "" is the model as it was trained.
    """
    student = (exports.get(STUDENT) or {}).get("measured")
    best, fastest = "", student["latency"]["p50_ms"] if student else float("inf")
    for row in exports.get("formats", []):
        if not row["measured"]:
            continue
        difference = exact_match_difference(row)
        if difference is None or difference["low"] < -MARGIN:
            continue
        if row["measured"]["latency"]["p50_ms"] < fastest:
            best, fastest = row["format"], row["measured"]["latency"]["p50_ms"]
    return best


def exact_match_difference(row: dict[str, Any]) -> dict[str, Any] | None:
    """An export's exact match less the student's, with its interval."""
    found = (one["difference"] for one in row["measured"]["comparisons"] if one["metric"] == EXACT_MATCH)
    return next(found, None)


async def _tried(step: Step, name: str) -> dict[str, Any]:
    request = measure_request(
        step.spec, step.artifact("prepare", "test"), step.artifact("evaluate", "predictions"), step.options.seed
    )
    try:
        return await one(
            name, step.artifact("train", "model"), step.name, request,
            lambda asked: step.stages.export(asked, step.report),
            lambda asked: step.stages.measure(asked, step.report),
        )  # fmt: skip
    except P2MError as error:
        if part_is_down(error):
            raise
        return {"format": name, "error": error.message, "model": None, "measured": None}


async def _student(step: Step) -> dict[str, Any] | None:
    """The student timed, as it was trained; None where it cannot be."""
    model = step.artifact("train", "model")
    request = evaluator_pb2.MeasureRequest(
        request_id=f"{step.name}/measure/{STUDENT}", spec=step.spec, name=STUDENT, model=model,
        test=step.artifact("prepare", "test"), seed=step.options.seed,
    )  # fmt: skip
    try:
        return _entry(STUDENT, model, await step.stages.measure(request, step.report))
    except P2MError as error:
        if part_is_down(error):
            raise
        return None


def _entry(name: str, model: common_pb2.Artifact, measured: Message) -> dict[str, Any]:
    return {"format": name, "error": "", "model": plain(model), "measured": plain(measured)}


def _line(found: dict[str, Any]) -> str:
    if found["error"]:
        return f"{found['format']}: {found['error']}"
    latency = found["measured"]["latency"]
    words = [f"{found['format']}: {bytes_text(found['model']['size_bytes'])}", f"p50 {latency['p50_ms']:.0f} ms"]
    difference = exact_match_difference(found)
    if difference is not None:
        words.append(
            f"exact match {difference['value']:+.1f} ({difference['low']:+.1f} to {difference['high']:+.1f}) "
            "against the student"
        )
    return ", ".join(words)
