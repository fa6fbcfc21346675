"""The datasets that a run has, whatever became of it.

datasets     retrieved, generated, train, validation, test: out of the recorded outcomes of its stages; generation that
             was stopped is gathered from what was paid for
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import ParseDict
from p2m.common.v1 import common_pb2
from p2m.generator.v1 import generator_pb2
from p2m.run.v1 import run_pb2

from orchestrator.stages import Stages
from orchestrator.steps.step import wanted_examples
from services.kit.errors import FailedPrecondition, NotFound

SPLITS = ("train", "validation", "test")


async def datasets(
    name: str, options: run_pb2.RunOptions, recorded: Mapping[str, dict[str, Any]], stages: Stages
) -> list[run_pb2.RunDataset]:
    """Those of the run `name`, of whose stages `recorded` holds the values of the finished ones.

    FailedPrecondition (NO_DATA_YET) where there is none; what `Stages.salvage` raises.
    """
    found = []
    if retrieved := recorded.get("datasets", {}).get("dataset"):
        found.append(_dataset("retrieved", retrieved))
    if "generate" in recorded:
        generated = recorded["generate"].get("datasets", [])
        found.extend(_dataset(f"generated-{part}", dataset) for part, dataset in enumerate(generated))
    elif "parse" in recorded and wanted_examples(options):
        spec = ParseDict(recorded["parse"]["spec"], common_pb2.PromptSpec())
        request = generator_pb2.SalvageRequest(request_id=f"{name}/generate", spec=spec, exclude=options.data)
        try:
            answer = await stages.salvage(request)
            found.append(run_pb2.RunDataset(name="generated-0", dataset=answer.dataset, complete=False))
        except NotFound:
            pass  # it had not begun
    found.extend(_dataset(split, recorded["prepare"][split]) for split in SPLITS if "prepare" in recorded)
    if not found:
        raise FailedPrecondition(
            "NO_DATA_YET",
            f"Run {name} has neither found nor generated a row yet. `p2m show {name}` says how far it is.",
        )
    return found


def _dataset(name: str, plain: dict[str, Any]) -> run_pb2.RunDataset:
    return run_pb2.RunDataset(name=name, dataset=ParseDict(plain, common_pb2.Artifact()), complete=True)
