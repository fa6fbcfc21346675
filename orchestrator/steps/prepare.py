"""Locked splits of all rows there are."""

from __future__ import annotations

from google.protobuf.json_format import ParseDict
from p2m.common.v1 import common_pb2
from p2m.trainer.v1 import trainer_pb2

from orchestrator.plain import plain
from orchestrator.steps.step import Outcome, Step
from services.kit.errors import FailedPrecondition


async def prepare(step: Step) -> Outcome:
    """Locked splits. FailedPrecondition where there are no rows at all."""
    kinds = trainer_pb2.DatasetKind
    sources = [trainer_pb2.TrainingSource(dataset=data, kind=kinds.DATASET_KIND_USER) for data in step.options.data]
    if step.done["datasets"].get("dataset"):
        retrieved = step.artifact("datasets", "dataset")
        rewritten = step.done["datasets"]["chosen"].get("adapted", {}).get("rows")
        kind = kinds.DATASET_KIND_ADAPTED if rewritten else kinds.DATASET_KIND_RETRIEVED
        sources.append(trainer_pb2.TrainingSource(dataset=retrieved, kind=kind))
    for generated in step.done["generate"].get("datasets", []):
        dataset = ParseDict(generated, common_pb2.Artifact())
        sources.append(trainer_pb2.TrainingSource(dataset=dataset, kind=kinds.DATASET_KIND_GENERATED))
    if not sources:
        raise FailedPrecondition(
            "NO_DATA",
            "There is nothing to train on. "
            f"Datasets: {step.done['datasets']['message'].rstrip('.')}. "
            f"Generation: {step.done['generate']['message'].rstrip('.')}. "
            "Set OPENAI_API_KEY or OPENAI_BASE_URL so that examples can be generated, name a --dataset, or give your "
            "own rows with --data; then give the same command again.",
        )
    request = trainer_pb2.PrepareRequest(
        request_id=f"{step.name}/prepare", sources=sources, spec=step.spec, seed=step.options.seed,
        test=step.options.test if step.options.HasField("test") else None,
        max_rows_per_source=step.options.max_rows_per_source, caps=step.options.caps, mix=step.options.mix,
        keep_near_duplicates=step.options.keep_near_duplicates,
    )  # fmt: skip
    return await prepared(step, request)


async def prepared(step: Step, request: trainer_pb2.PrepareRequest) -> Outcome:
    """What splitting gave."""
    result = await step.stages.prepare(request, step.report)
    values = plain(result)
    split = {name: sum(c.rows for c in result.counts if c.split == name) for name in ("train", "validation", "test")}
    removed = sum(result.removed.values())
    return Outcome(
        f"{split['train']} train, {split['validation']} validation, {split['test']} test rows"
        + (f"; {removed} taken out" if removed else ""),
        values,
    )
