"""What a run left, out of the store: the whole folder, or one file of it.

fetch(settings, run, out)       the folder, to the disk
read(settings, run, path)       one file's bytes
record(settings, run)           run.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, NotFound
from services.kit.settings import Settings
from services.kit.values import Artifact
from services.kit.wire import from_message


def fetch(settings: Settings, run: run_pb2.Run, out: Path) -> Path:
    """Writes the run's folder to `out`, in place of what is there, and returns it."""
    try:
        return _artifacts(settings).fetch(_result(run), out)
    except NotFound as error:
        raise _elsewhere(run) from error


def read(settings: Settings, run: run_pb2.Run, path: str) -> bytes:
    """One file of the run's folder. FailedPrecondition where the run has no result, or the store here lacks it."""
    result, artifacts = _result(run), _artifacts(settings)
    try:
        manifest = json.loads(artifacts.read_bytes(result))
        digest = next((entry["sha256"] for entry in manifest["files"] if entry["path"] == path), None)
        if digest is None:
            raise FailedPrecondition("NO_SUCH_FILE", f"The result of run {run.name} has no file {path}.")
        return artifacts.read_bytes(Artifact(f"{result.uri.rpartition('/')[0]}/{digest}", digest))
    except NotFound as error:
        raise _elsewhere(run) from error


def record(settings: Settings, run: run_pb2.Run) -> dict[str, Any]:
    """The run's run.json (its keys: see `outcome`)."""
    found: dict[str, Any] = json.loads(read(settings, run, "run.json"))
    return found


def _artifacts(settings: Settings) -> Artifacts:
    return Artifacts.open(settings, "orchestrator")


def _result(run: run_pb2.Run) -> Artifact:
    if not run.HasField("result"):
        state = run_pb2.RunState.Name(run.state).removeprefix("RUN_STATE_").lower()
        raise FailedPrecondition(
            "NO_RESULT", f"Run {run.name} has no result: it is {state}. `p2m show {run.name}` says where it stands."
        )
    return from_message(run.result, Artifact)


def _elsewhere(run: run_pb2.Run) -> FailedPrecondition:
    return FailedPrecondition(
        "RESULT_ELSEWHERE",
        f"Run {run.name} is done, and its result is not in the store that is set here. Set P2M_STORE (and "
        "P2M_S3_ENDPOINT with its keys) as it is at the services.",
    )
