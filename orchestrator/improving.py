"""The stages of a run that improves another, where they differ from those of a run of its own.

    parse, datasets, models      as they were in the run before, without asking anybody
    generate                     examples for each slice of validation rows that its student fails at
    prepare                      the locked splits, with the new rows in the training split
    evaluate                     the student before stands beside the others, on the same test rows, by slice too

It trains from the pretrained weights, as every run does. `of_record` is what run.json keeps of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.json_format import ParseDict
from p2m.common.v1 import common_pb2
from p2m.evaluator.v1 import evaluator_pb2
from p2m.generator.v1 import generator_pb2
from p2m.trainer.v1 import trainer_pb2

from orchestrator import aiming, attributes, improve, leases, searching
from orchestrator.steps import evaluate as evaluating
from orchestrator.steps import generate as generating
from orchestrator.steps import prepare as preparing
from orchestrator.steps.step import Outcome, Step, teacher_rows, wanted_examples
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition
from services.kit.values import Allowance, Artifact, Row
from services.kit.wire import to_message

BEFORE = "before"
_SPLITS = ("train", "validation", "test")


async def parse(step: Step) -> Outcome:
    """The prompt as it was parsed."""
    return Outcome(f"as in {step.options.improve}", {**step.parent["parse"]})


async def datasets(step: Step) -> Outcome:
    """What was found and loaded: its rows are in the locked splits."""
    return Outcome(f"as in {step.options.improve}", {**step.parent["datasets"]})


async def models(step: Step) -> Outcome:
    """The same pretrained model, trained as it was."""
    found = step.parent["models"]
    # Also where a search has found them.
    chosen = searching.chosen_model(step.parent)
    trained = step.parent["train"].get("hyper_parameters") or {}
    known = {name: trained[name] for name in searching.SEARCHED if trained.get(name)}
    return Outcome(f"{chosen['id']}, as in {step.options.improve}", {**found, "chosen": chosen | known})


async def generate(step: Step) -> Outcome:
    """Examples for each slice, a request a slice. FailedPrecondition where none came: there would be nothing new."""
    slices = aiming.shares(improve.slices(step.parent), wanted_examples(step.options))
    rows = await asyncio.to_thread(_validation, step)
    names = [str(number) for number in range(len(slices))]
    weights = {name: float(share) for name, (_, share) in zip(names, slices, strict=True)}
    allowances = leases.split(_lease(step), weights)
    requests = [
        generator_pb2.GenerateRequest(
            request_id=f"{step.name}/generate/{name}", spec=aiming.aimed(step.spec, one, rows), number=share,
            allowance=to_message(allowances[name], common_pb2.Allowance), seed=step.options.seed,
            exclude=[_artifact(step, split) for split in _SPLITS], judge=step.options.judge,
            prefer=step.options.prefer,
        )
        for name, (one, share) in zip(names, slices, strict=True)
    ]  # fmt: skip
    outcome = await generating.generated(step, requests, attributes.Steering())
    if outcome.skipped:
        raise FailedPrecondition(
            "NOTHING_GENERATED",
            f"No example was written for what {step.options.improve} fails at: {outcome.message.rstrip('.')}. What is "
            "paid for is kept; give the same command again.",
        )
    made = outcome.values["rows_by_part"]
    aimed = [
        {
            **{key: one[key] for key in ("name", "kind", "rows", "error_rate", "rest_error_rate")},
            "asked": share,
            "generated": count,
        }
        for (one, share), count in zip(slices, made, strict=True)
    ]
    message = f"{outcome.message}, for {len(aimed)} kind{'' if len(aimed) == 1 else 's'} of rows"
    return Outcome(message, {**outcome.values, "aimed": aimed}, outcome.ledger)


async def prepare(step: Step) -> Outcome:
    """The locked splits with what is new. FailedPrecondition (NOTHING_NEW) where all of it was there already."""
    kind = trainer_pb2.DatasetKind
    before = step.parent["prepare"]
    sources = [
        trainer_pb2.TrainingSource(
            dataset=ParseDict(dataset, common_pb2.Artifact()), kind=kind.DATASET_KIND_GENERATED
        )
        for dataset in step.done["generate"]["datasets"]
    ]  # fmt: skip
    counts = [
        trainer_pb2.SourceCount(**{**one, "kind": kind.Value(f"DATASET_KIND_{one['kind'].upper()}")})
        for one in before["counts"]
    ]
    locked = trainer_pb2.LockedSplits(**{split: _artifact(step, split) for split in _SPLITS}, counts=counts)
    request = trainer_pb2.PrepareRequest(
        request_id=f"{step.name}/prepare", sources=sources, locked=locked, spec=step.spec, seed=step.options.seed,
        keep_near_duplicates=step.options.keep_near_duplicates,
    )  # fmt: skip
    return await preparing.prepared(step, request)


async def evaluate(step: Step) -> Outcome:
    """The student beside the one before, on the same test rows, over all and by each slice that was aimed at."""
    request = evaluating.evaluation(step)
    student = ParseDict(step.parent["train"]["model"], common_pb2.Artifact())
    request.contestants.insert(1, evaluator_pb2.Contestant(name=BEFORE, model=student))
    request.slices.extend(one["name"] for one in step.done["generate"]["aimed"])
    return await evaluating.evaluated(step, request)


def of_record(step: Step) -> dict[str, Any] | None:
    """What was aimed at, and what became of it; None for a run of its own."""
    if not step.options.improve:
        return None
    comparisons = step.done["evaluate"].get("slice_comparisons") or []
    changes = {one["slice"]: one for one in comparisons if one["against"] == BEFORE}
    return {
        "of": step.options.improve,
        "slices": [{**one, "change": changes.get(one["name"])} for one in step.done["generate"]["aimed"]],
        "added": _trained_on(step.done["prepare"]) - _trained_on(step.parent["prepare"]),
        "removed": step.done["prepare"]["removed"],
    }


def _lease(step: Step) -> Allowance:
    """All there is, but for what the teacher's answers may cost: nothing is searched."""
    stages = ("generate", "evaluate") if teacher_rows(step.options) else ("generate",)
    return leases.split(step.left(), {stage: leases.SHARES[stage] for stage in stages})["generate"]


def _trained_on(prepared: Any) -> int:
    return sum(one["rows"] for one in prepared["counts"] if one["split"] == "train")


def _artifact(step: Step, split: str) -> common_pb2.Artifact:
    return ParseDict(step.parent["prepare"][split], common_pb2.Artifact())


def _validation(step: Step) -> list[Row]:
    return Artifacts.open(step.settings, "run").read_rows(Artifact(**step.parent["prepare"]["validation"]))
