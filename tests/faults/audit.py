"""What must hold of a run after a fault, whatever the fault was. Each check gives what is wrong, in words.

one result            the run SUCCEEDED, said so once, and its row names one result
digests               the result's files and every artifact of the record are read, and so their digests checked
nothing done twice    no request's work begins after its result was recorded; no stage after the one that was hit
                      runs more than once, none before it
never by two          no stage of the run is performed by two orchestrators at the same time
nothing paid twice    no answer that was in the journal when the fault came is asked for again
no orphan             no process is left that nobody waits for
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from orchestrator.runs import STAGES
from services.kit.artifacts import Artifacts
from services.kit.journal import Journal
from services.kit.settings import SERVICES
from services.kit.values import Artifact
from services.kit.wire import from_message
from tests.integration.conftest import read_record
from tests.support.cluster import System

# What may be under way at once: a question each of datasets, generate and models; a real generator asks four at once.
MOST_UNDER_WAY, MOST_UNDER_WAY_REAL = 3, 8
_ORPHANS_END_WITHIN_S = 15.0
_TOGETHER = ("datasets", "generate", "models")


def journaled(system: System, run: str) -> set[str]:
    """The questions of a run whose answers are stored, as the small services name them: "service/request#key"."""
    found = set()
    for service in SERVICES:
        artifacts = Artifacts.open(system.settings, service)
        prefix = f"{service}/journal/{run}/"
        requests = {key.removeprefix(f"{service}/journal/").rpartition("/")[0] for key in artifacts.store.list(prefix)}
        for request in requests:
            entries = Journal(artifacts, request).read()
            found |= {f"{service}/{request}#{entry.key}" for entry in entries if not entry.lost}
    return found


async def one_result(system: System, run: run_pb2.Run, changes: list[Any]) -> list[str]:
    """The run's end and its artifacts."""
    if run.state != run_pb2.RUN_STATE_SUCCEEDED:
        error = f"{run.error.stage}: {run.error.message}" if run.HasField("error") else ""
        return [f"the run is {run_pb2.RunState.Name(run.state)} {error}".strip()]
    wrong = []
    ends = sum(change.HasField("run") and change.run.state == run_pb2.RUN_STATE_SUCCEEDED for change in changes)
    if ends != 1:
        wrong.append(f"the run ended {ends} times")
    skipped = [stage.name for stage in run.stages if stage.state != run_pb2.STAGE_STATE_DONE]
    if skipped and not system.real:
        said = {stage.name: stage.message for stage in run.stages}
        wrong.append(f"skipped: {[(name, said[name]) for name in skipped]}")
    try:
        wrong += await asyncio.to_thread(_digests, system, run)
    except Exception as error:
        wrong.append(f"the result cannot be read: {error!r}")
    return wrong


def _digests(system: System, run: run_pb2.Run) -> list[str]:
    artifacts = Artifacts.open(system.settings, "run")
    result = from_message(run.result, Artifact)
    record = read_record(artifacts, result)
    with tempfile.TemporaryDirectory() as folder:
        artifacts.fetch(result, Path(folder) / "result")
        for name, artifact in record["artifacts"].items():
            if artifact:
                artifacts.fetch(Artifact(**artifact), Path(folder) / name.replace("/", "_"))
    if system.real:
        return []
    # Every answer that was paid is in the data, once, and in its place.
    response = artifacts.store.get(f"generator/results/{run.name}/generate/0.json").decode()
    uri = response.partition('"uri": "')[2].partition('"')[0]
    found = [row.output for row in artifacts.read_rows(Artifact(uri))]
    wanted = [f"the answer to generator/{run.name}/generate/0#{one}" for one in range(3)]
    return [] if found == wanted else [f"the generated rows are {found}"]


def done_once(system: System, run: str, hit: str, tries: int) -> list[str]:
    """`hit` is the stage in which an orchestrator was stopped ("": none was); `tries` is how often it may be begun."""
    events = [e for e in system.events() if run in e["id"].split("/")]
    wrong, recorded, begun = [], set(), Counter[str]()
    for event in events:
        if event["what"] == "recorded":
            recorded.add(event["id"])
        elif event["what"] == "begin":
            begun[event["id"]] += 1
            if event["id"] in recorded:
                wrong.append(f"{event['id']} was worked on again after its result was recorded")
    performed = Counter(event["id"].rpartition("/")[2] for event in events if event["what"] == "perform")
    group = _TOGETHER if hit in _TOGETHER else (hit,)
    for stage in STAGES:
        most = tries if stage in group else 1
        if not 1 <= performed[stage] <= most:
            wrong.append(f"{stage} was performed {performed[stage]} times; wanted 1 to {most}")
    return wrong


def by_two(system: System, run: str) -> list[str]:
    """Whether two orchestrators were at the same stage at once. One that was killed is at nothing from then on."""
    at: dict[str, set[int]] = defaultdict(set)
    wrong = []
    for event in system.events():
        if not event["who"].startswith("orchestrator"):
            continue
        if event["what"] == "killed":
            for pids in at.values():
                pids.discard(event["pid"])
        elif event["id"].startswith(f"{run}/"):
            pids = at[event["id"]]
            if event["what"] == "perform":
                pids.add(event["pid"])
            else:
                pids.discard(event["pid"])
            if len(pids) > 1:
                wrong.append(f"{event['id']} was performed by the processes {sorted(pids)} at once")
    return wrong


def paid_once(system: System, run: str, stored: list[tuple[float, set[str]]]) -> tuple[list[str], int]:
    """What is wrong, and how many answers were asked for again. `stored`: what was in the journal, and when."""
    if system.real:
        return [], 0  # their questions do not tell their keys: `spent_once` counts them
    asked: dict[str, list[float]] = defaultdict(list)
    for at, question in system.asked:
        if f"/{run}/" in question:
            asked[question].append(at)
    wrong = [
        f"{question} was stored at {when:.2f} and asked for again at {at:.2f}"
        for when, questions in stored
        for question in questions
        for at in asked[question]
        if at > when
    ]
    again = sum(len(times) - 1 for times in asked.values())
    if again > MOST_UNDER_WAY * max(1, len(stored)):
        wrong.append(f"{again} answers were asked for again")
    return wrong, again


def spent_once(system: System, run: str, asked: int) -> tuple[list[str], int]:
    """The same of the real services: what was asked beyond what is stored is what was under way at the fault."""
    again = asked - len(journaled(system, run))
    return ([f"{again} answers were paid and are not stored"] if again > MOST_UNDER_WAY_REAL else []), again


async def no_orphan(system: System) -> list[str]:
    """Processes that are left over after a while."""
    for _ in range(int(_ORPHANS_END_WITHIN_S / 0.25)):
        if not (left := await asyncio.to_thread(system.left_over)):
            return []
        await asyncio.sleep(0.25)
    return [f"processes are left over: {left}"]
