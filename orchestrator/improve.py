"""What it takes to improve a finished run, and what the new run takes over from it.

    inherited(parent, given)        the new run's options
    check(parent, recorded, ...)    FailedPrecondition where the run cannot be improved: before anything is spent
    slices(recorded)                where its student fails, the worst first
    next_name(name)                 "dates" -> "dates.2" -> "dates.3"

Slices that were found on validation rows are all that the LLM is told of; those of test rows are never used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from p2m.run.v1 import run_pb2

from orchestrator.runs import UNFINISHED, StoredRun
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.kit.values import Artifact

Recorded = Mapping[str, Mapping[str, Any]]
"""The values of a run's stages, by stage."""

# What the earlier run has done with them is taken over as it is, or they are the new run's own.
_NOT_INHERITED = (
    "number", "parts", "skip_datasets", "skip_generation", "dataset", "data", "test", "budget", "ask", "teacher_rows",
    "adapt", "prefer", "attributes", "mix", "caps", "search_seconds", "attribution_seconds",
)  # fmt: skip
_TABLES = ("train", "validation", "test")


def prompt_of(parent: StoredRun, given: str) -> str:
    """The parent's prompt; InvalidArgument where another is given."""
    if given:
        raise InvalidArgument(
            "PROMPT_GIVEN", f"A run that improves {parent.name} has that run's prompt and no prompt of its own; leave "
            "it empty.", field="prompt",
        )  # fmt: skip
    return parent.prompt


def inherited(parent: StoredRun, given: run_pb2.RunOptions) -> run_pb2.RunOptions:
    """How the parent was trained, and what is given over it; the teacher answers no test row unless it is asked to."""
    options = run_pb2.RunOptions()
    options.CopyFrom(parent.options)
    for name in _NOT_INHERITED:
        options.ClearField(name)  # type: ignore[arg-type]
    options.teacher_rows = 0
    for field, _ in given.ListFields():
        options.ClearField(field.name)  # type: ignore[arg-type]
    options.MergeFrom(given)
    if options.skip_generation or (options.HasField("number") and options.number == 0):
        raise InvalidArgument(
            "BAD_OPTION", "To improve a run examples must be generated; wanted a number of at least 1.",
            field="options.number",
        )  # fmt: skip
    return options


def check(parent: StoredRun, recorded: Recorded, artifacts: Artifacts) -> None:
    """Returns where the parent can be improved. FailedPrecondition: RUN_NOT_ENDED, NOTHING_TO_IMPROVE, RESULT_GONE."""
    if parent.state != run_pb2.RUN_STATE_SUCCEEDED:
        state = run_pb2.RunState.Name(parent.state).removeprefix("RUN_STATE_").lower()  # type: ignore[arg-type]
        do = "wait for its end" if parent.state in UNFINISHED else "the command that started it goes on with it"
        raise FailedPrecondition(
            "RUN_NOT_ENDED",
            f"Run {parent.name} is {state}; only a run that ended well can be improved: {do}. `p2m show {parent.name}` "
            "says where it stands.",
        )
    if not slices(recorded):
        raise FailedPrecondition(
            "NOTHING_TO_IMPROVE", f"Run {parent.name}: {_why_none(recorded)} Nothing was asked of the LLM."
        )
    for name, artifact in _needed(recorded, artifacts):
        try:
            there = artifacts.store.size(artifact.uri.removeprefix("p2m://")) is not None
        except NotFound:
            there = False
        if not there:
            raise FailedPrecondition(
                "RESULT_GONE",
                f"Run {parent.name} cannot be improved: {name} is no longer in the store ({artifact.uri}). Start it "
                "anew: p2m run --new.",
            )


def slices(recorded: Recorded) -> list[dict[str, Any]]:
    """The slices of errors that were found on validation rows; none where they were found on test rows."""
    measured = recorded.get("evaluate") or {}
    if measured.get("slices_split") != "validation":
        return []
    return [one for one in measured.get("slices") or [] if one["examples"]]


def next_name(name: str) -> str:
    """The name of the run that improves the run `name`."""
    match = re.fullmatch(r"(.+)\.(\d{1,6})", name)
    return f"{match[1]}.{int(match[2]) + 1}" if match else f"{name}.2"


def _why_none(recorded: Recorded) -> str:
    split = (recorded.get("evaluate") or {}).get("slices_split")
    if split == "test":
        return (
            "it has no validation rows, so what its model fails at was found on test rows, and examples must not be "
            "aimed at those."
        )
    if split != "validation":
        return "it was measured before slices of errors were looked for; start it anew with p2m run --new."
    return (
        "no kind of validation row is clearly worse than the others, so there is nothing to aim at. More examples of "
        "every kind, or a larger model, may help: p2m run --number N, --model ID."
    )


def _needed(recorded: Recorded, artifacts: Artifacts) -> Iterator[tuple[str, Artifact]]:
    """What the new run reads of the old one, by a name for a person: its splits, and its model with every file."""
    for name in _TABLES:
        yield f"its {name} split", Artifact(**recorded["prepare"][name])
    model = Artifact(**recorded["train"]["model"])
    yield "its model", model
    prefix = model.uri.rpartition("/")[0]
    for file in json.loads(artifacts.read_bytes(model))["files"]:
        yield f"its model's {file['path']}", Artifact(f"{prefix}/{file['sha256']}", file["sha256"])
