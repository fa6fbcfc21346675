"""The fine-tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from p2m.run.v1 import run_pb2
from p2m.trainer.v1 import trainer_pb2

from orchestrator import searching
from orchestrator.plain import plain
from orchestrator.steps.step import Outcome, Step
from services.kit.values import Progress


async def train(step: Step) -> Outcome:
    """The fine-tuned model, by what a search has found where one was asked for."""
    usual = hyper_parameters(step.options, step.done["models"]["chosen"])
    found = await searching.find(step, usual, hyper_parameters(step.options, {}))
    parameters = found.parameters
    request = trainer_pb2.TrainRequest(
        request_id=f"{step.name}/train", train=step.artifact("prepare", "train"),
        validation=step.artifact("prepare", "validation"), spec=step.spec, seed=step.options.seed,
        model=found.model["location"], hyper_parameters=parameters,
    )  # fmt: skip
    resumed: list[int] = []

    def report(progress: Progress) -> None:
        resumed.extend(int(one.value) for one in progress.metrics if one.name == "resumed_from_step" and one.value)
        step.report(progress)

    result = await step.stages.train(request, report)
    shown = f"{result.parameters / 1e6:.1f} M parameters, best at step {result.best_step}, {result.seconds:.0f} s"
    given = {key: value for key, value in plain(parameters).items() if value is not None}
    return Outcome(
        shown + (f", resumed from step {resumed[0]}" if resumed else "") + searching.line(found),
        {
            **plain(result), "hyper_parameters": given, "resumed_from_step": resumed[0] if resumed else None,
            **({"chosen": found.model, "search": found.search} if found.search else {}),
        },
    )  # fmt: skip


def hyper_parameters(options: run_pb2.RunOptions, model: Mapping[str, Any]) -> trainer_pb2.HyperParameters:
    """What the options say, else what the model's entry is known to want; the rest is the trainer's default."""
    parameters = trainer_pb2.HyperParameters(head=options.head)
    if options.lora:
        parameters.lora = True
    if options.qlora:
        parameters.qlora = True
    for name in ("learning_rate", "epochs", "batch_tokens"):
        if options.HasField(name):
            setattr(parameters, name, getattr(options, name))
        elif model.get(name):
            setattr(parameters, name, model[name])
    if options.HasField("checkpoint_steps"):
        parameters.checkpoint_steps = options.checkpoint_steps
    if options.HasField("max_train_seconds"):
        parameters.max_seconds = options.max_train_seconds
    return parameters
