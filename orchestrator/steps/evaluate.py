"""Scores with intervals, and the verdict."""

from __future__ import annotations

from p2m.evaluator.v1 import evaluator_pb2

from orchestrator import attribution
from orchestrator.plain import plain
from orchestrator.steps.step import Outcome, Step, message_of, teacher_rows
from services.kit.values import Ledger
from services.kit.wire import from_message


async def evaluate(step: Step) -> Outcome:
    """Scores with intervals, and the verdict."""
    return await evaluated(step, evaluation(step))


def evaluation(step: Step) -> evaluator_pb2.EvaluateRequest:
    """Who is measured, on what."""
    contestant = evaluator_pb2.Contestant
    contestants = [
        contestant(name="student", model=step.artifact("train", "model")),
        contestant(name="base", model=step.artifact("train", "base")),
        contestant(name="nearest_neighbour", nearest_neighbour=step.artifact("prepare", "train")),
    ]
    rows = teacher_rows(step.options)
    if rows:
        contestants.append(contestant(name="teacher", teacher=evaluator_pb2.Teacher(max_rows=rows)))
    return evaluator_pb2.EvaluateRequest(
        request_id=f"{step.name}/evaluate", allowance=message_of(step.left()), spec=step.spec, contestants=contestants,
        test=step.artifact("prepare", "test"), validation=step.artifact("prepare", "validation"),
        seed=step.options.seed,
    )  # fmt: skip


async def evaluated(step: Step, request: evaluator_pb2.EvaluateRequest) -> Outcome:
    """What measuring gave."""
    result = await step.stages.evaluate(request, step.report)
    values = plain(result)
    if (told := await attribution.of_run(step, values)) is not None:
        values["attribution"] = told
    return Outcome(result.verdict_reason, values, from_message(result.ledger, Ledger))
