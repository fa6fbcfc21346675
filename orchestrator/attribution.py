"""What each source of training rows contributed: the student beside one that was trained without that source.

    of_run(step, evaluated) ── {budget_seconds, sources, left_out}

Each is an ordinary Train, with the student's model, hyper-parameters and seed but without one source's training rows,
and an ordinary Measure on the same locked test rows, under ids of its own: a run that goes on repeats none. What the
time does not allow is said to be left out. The interval tells the chance in the test rows, not that in a training.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import ParseDict
from p2m.common.v1 import common_pb2
from p2m.evaluator.v1 import evaluator_pb2
from p2m.trainer.v1 import trainer_pb2

from orchestrator.plain import plain
from orchestrator.searching import chosen_model
from services.kit.errors import FailedPrecondition
from services.kit.values import Progress

if TYPE_CHECKING:
    from orchestrator.steps.step import Step

METRIC = "exact_match"


async def of_run(step: Step, evaluated: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the record keeps: None where it was not asked for.

    `sources`: {source: a kind, rows: of it in training, difference {value, low, high}: the student less the one without
    it in points of exact match, test_rows, seconds}; `left_out`: {source, rows, why}.
    """
    if not step.options.HasField("attribution_seconds"):
        return None
    budget = step.options.attribution_seconds
    found: dict[str, Any] = {"budget_seconds": budget, "sources": [], "left_out": []}
    kinds = sources(step.done["prepare"]["counts"])
    total = sum(rows for _, rows in kinds.values())
    spent = 0.0
    # The most rows left out first: that training is the shortest.
    for kind, (names, rows) in sorted(kinds.items(), key=lambda item: -item[1][1]):
        left_out = {"source": kind, "rows": rows}
        expected = step.done["train"]["seconds"] * (total - rows) / total
        if rows == total:
            found["left_out"].append(left_out | {"why": "it is the only source"})
            continue
        if spent + expected > budget:
            found["left_out"].append(left_out | {"why": f"the time does not allow it: it needs about {expected:.0f} s"})
            continue
        began = time.monotonic()
        try:
            async with asyncio.timeout(budget - spent):
                one = await _without(step, kind, names, evaluated)
        except TimeoutError:
            found["left_out"].append(left_out | {"why": "the time was up"})
            break
        except FailedPrecondition as error:
            found["left_out"].append(left_out | {"why": error.message})
            spent += time.monotonic() - began
            continue
        # A training that an earlier attempt has done answers at once.
        one["seconds"] = max(one["seconds"], time.monotonic() - began)
        spent += one["seconds"]
        found["sources"].append({"source": kind, "rows": rows, **one})
    told = {one["source"] for one in [*found["sources"], *found["left_out"]]}
    found["left_out"] += [
        {"source": kind, "rows": rows, "why": "the time was up"}
        for kind, (_, rows) in kinds.items()
        if kind not in told
    ]
    return found


def sources(counts: list[dict[str, Any]]) -> dict[str, tuple[list[str], int]]:
    """The training split's sources by kind: their names, and how many rows they have together."""
    found: dict[str, tuple[list[str], int]] = {}
    for count in counts:
        if count["split"] == "train" and count["rows"]:
            names, rows = found.get(count["kind"], ([], 0))
            found[count["kind"]] = ([*names, count["source"]], rows + count["rows"])
    return found


async def _without(step: Step, kind: str, names: list[str], evaluated: Mapping[str, Any]) -> dict[str, Any]:
    """The difference that the sources `names` make."""

    def report(progress: Progress) -> None:
        step.report(replace(progress, message=f"without {kind}: {progress.message}"))

    trained = await step.stages.train(
        trainer_pb2.TrainRequest(
            request_id=f"{step.name}/attribution/{kind}/train", train=step.artifact("prepare", "train"),
            validation=step.artifact("prepare", "validation"), spec=step.spec, seed=step.options.seed,
            model=chosen_model(step.done)["location"], leave_out=names,
            hyper_parameters=ParseDict(step.done["train"]["hyper_parameters"], trainer_pb2.HyperParameters()),
        ),
        report,
    )  # fmt: skip
    measured = await step.stages.measure(
        evaluator_pb2.MeasureRequest(
            request_id=f"{step.name}/attribution/{kind}/measure", spec=step.spec, name=f"without_{kind}",
            model=trained.model, test=step.artifact("prepare", "test"), seed=step.options.seed, timed_inputs=1,
            predictions=ParseDict(evaluated["predictions"], common_pb2.Artifact()),
        ),
        report,
    )  # fmt: skip
    compared = next(plain(one) for one in measured.comparisons if one.metric == METRIC)
    less = compared["difference"]
    return {
        # Not -x, which makes -0.0 of 0.
        "difference": {"value": 0.0 - less["value"], "low": 0.0 - less["high"], "high": 0.0 - less["low"]},
        "test_rows": compared["rows"],
        "seconds": trained.seconds,
    }
