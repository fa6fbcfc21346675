"""Which model to train, and how: what the run has chosen, or what a search has found.

    find(step, usual, ...) ── Found     asks the trainer to search where the options give it time
    chosen_model(done)                  the model that a run has trained

The first trial is the run's own choice, so that what wins was at least as good on the validation split; then the others
of the best-ranked models, the cheapest first, since more of them are tried in the same time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from p2m.trainer.v1 import trainer_pb2

from orchestrator.plain import plain
from services.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from orchestrator.steps.step import Step

MOST_MODELS = 4
SEARCHED = ("learning_rate", "epochs", "batch_tokens")


@dataclass(frozen=True)
class Found:
    """The model's entry, how to train it, and what the record keeps of the search: None where there was none."""

    model: dict[str, Any]
    parameters: trainer_pb2.HyperParameters
    search: dict[str, Any] | None = None


async def find(step: Step, usual: trainer_pb2.HyperParameters, fixed: trainer_pb2.HyperParameters) -> Found:
    """`usual`: how the chosen model would be trained; `fixed`: of that, what the options say.

    Without time to search, or where no trial came to its end, it is the chosen model as usual.
    """
    chosen: dict[str, Any] = step.done["models"]["chosen"]
    if not step.options.HasField("search_seconds"):
        return Found(chosen, usual)
    models = candidates(step.done["models"])
    request = trainer_pb2.SearchRequest(
        request_id=f"{step.name}/search", train=step.artifact("prepare", "train"),
        validation=step.artifact("prepare", "validation"), spec=step.spec, hyper_parameters=fixed,
        budget_seconds=step.options.search_seconds, seed=step.options.seed,
        candidates=[
            trainer_pb2.SearchCandidate(
                model=model["location"], start=_start(model), cpu_latency_ms=model.get("cpu_latency_ms") or 0.0
            )
            for model in models
        ],
    )  # fmt: skip
    try:
        result = await step.stages.search(request, step.report)
    except FailedPrecondition as error:
        return Found(chosen, usual, _kept(step, models) | {"notes": [error.message]})
    kept = _kept(step, models) | plain(result)
    ids = {model["location"]: model["id"] for model in models}
    for trial in kept["trials"]:
        trial["model"] = ids[trial["model"]]
    if not result.HasField("best"):
        return Found(chosen, usual, kept)
    best = next(trial for trial in result.trials if trial.number == result.best)
    parameters = trainer_pb2.HyperParameters()
    parameters.CopyFrom(fixed)
    for name in SEARCHED:
        setattr(parameters, name, getattr(best.hyper_parameters, name))
    return Found({**next(m for m in models if m["location"] == best.model), "by": "search"}, parameters, kept)


def candidates(models: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The models to try: the chosen one, then others of the best-ranked, the cheapest first; it alone where named."""
    chosen: dict[str, Any] = models["chosen"]
    if chosen["by"] in ("option", "person"):
        return [chosen]
    best = {model["location"]: model for model in models["candidates"][:MOST_MODELS]}
    best.pop(chosen["location"], None)
    return [chosen, *sorted(best.values(), key=_cost)][:MOST_MODELS]


def chosen_model(done: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The entry of the model that was trained."""
    return done["train"].get("chosen") or dict(done["models"]["chosen"])


def line(found: Found) -> str:
    """What a person is told of the search; "" where there was none."""
    if found.search is None:
        return ""
    trials = found.search["trials"]
    if found.search["best"] is None:
        return f"; searched, nothing found in {len(trials)} trials"
    return f"; {found.model['id']} the best of {len(trials)} trials"


def _kept(step: Step, models: list[dict[str, Any]]) -> dict[str, Any]:
    """What the record has of every search."""
    return {
        "budget_seconds": step.options.search_seconds, "models": [model["id"] for model in models], "trials": [],
        "best": None, "pareto": [], "seconds": 0.0, "notes": [],
    }  # fmt: skip


def _start(model: Mapping[str, Any]) -> trainer_pb2.HyperParameters:
    return trainer_pb2.HyperParameters(**{name: model[name] for name in SEARCHED if model.get(name)})


def _cost(model: Mapping[str, Any]) -> tuple[float, float]:
    return model.get("cpu_latency_ms") or math.inf, model.get("size_bytes") or math.inf
