"""One trial: start a run, bring the fault, heal it, wait for the end, and check what must hold (tests.faults.audit)."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from orchestrator.client import FINAL
from services.kit.errors import P2MError
from services.kit.settings import SERVICES
from tests.conftest import ROOT
from tests.faults import audit
from tests.faults.trials import REQUESTS, Trial
from tests.support.cluster import DATABASE, DATASET, ORCHESTRATORS, OTHER_DATABASE, System
from tests.support.processes import is_alive
from tests.support.proxy import Proxy
from tests.support.teacher import TOY_PROMPT

# How long a run may take with its fault, and how soon the fault must have come.
ENDS_WITHIN_S, COMES_WITHIN_S = {False: 300.0, True: 600.0}, {False: 200.0, True: 400.0}
PROMPT = "Name the colour in the sentence."


@dataclass
class Noted:
    """What is found out on the way."""

    stored: list[tuple[float, set[str]]] = field(default_factory=list)
    """What was in the journals at the fault, and when that was."""
    wrong: list[str] = field(default_factory=list)
    hit: str = ""
    """The stage in which an orchestrator was stopped."""
    taken_up_s: float | None = None
    child_s: float | None = None


async def attempt(system: System, trial: Trial, seed: int) -> dict[str, Any]:
    """The trial and what came of it: {..., seconds, wrong [words], again, taken_up_s, child_s}."""
    began, noted, again = time.time(), Noted(), 0
    asked = len(system.asked)
    run = f"{trial.name}-{seed}-{int(began)}"
    try:
        await _FAULTS[trial.kind](system, trial, run, noted)
        again = await _check(system, trial, run, noted, asked)
    except (TimeoutError, AssertionError, P2MError, RuntimeError) as error:
        noted.wrong.append(f"{type(error).__name__}: {error}")
    finally:
        for link in system.links.values():
            link.heal()
    try:
        await _all_up(system)
    except RuntimeError as error:
        noted.wrong.append(f"not up again: {error}")
    found = {"taken_up_s": noted.taken_up_s, "child_s": noted.child_s, "again": again}
    return asdict(trial) | found | {"seed": seed, "seconds": time.time() - began, "wrong": noted.wrong}


async def _check(system: System, trial: Trial, run: str, noted: Noted, asked: int) -> int:
    client = system.clients[trial.owner]
    changes: list[Any] = []
    async with asyncio.timeout(60):
        async for change in client.watch(run):
            changes.append(change)
        ended = await client.get(run)
    noted.wrong += await audit.one_result(system, ended, changes)
    noted.wrong += audit.done_once(system, run, noted.hit, 2 if noted.hit else 1)
    noted.wrong += audit.by_two(system, run)
    if system.real:
        wrong, again = await asyncio.to_thread(audit.spent_once, system, run, len(system.asked) - asked)
    else:
        wrong, again = audit.paid_once(system, run, noted.stored)
    noted.wrong += wrong + await audit.no_orphan(system)
    return again


# -- the faults


async def _kill(system: System, trial: Trial, run: str, noted: Noted) -> None:
    plan = {"run": run, "where": trial.where, "point": trial.how}
    (system.folder / f"{trial.who}.kill").write_text(json.dumps(plan))
    orchestrates = trial.who in ORCHESTRATORS
    await _start(system, trial, run)
    async with asyncio.timeout(COMES_WITHIN_S[system.real]):
        await system.ended(trial.who)
    killed = time.time()
    await _remember(system, run, noted)
    if orchestrates:
        noted.hit = trial.where
        other = next(one for one in ORCHESTRATORS if one != trial.who)
        noted.taken_up_s = await _taken_up(system, run, other, killed)
    await system.start(trial.who)
    await _until_ended(system, trial, run)


async def _taken_up(system: System, run: str, other: str, killed: float) -> float:
    """Seconds until the other orchestrator was at the run; or had ended it, where all steps were done."""
    while True:
        for event in system.events():
            if event["at"] > killed and event["who"] == other and event["id"].startswith(f"{run}/"):
                return float(event["at"]) - killed
        if (await system.clients[other].get(run)).state in FINAL:
            return time.time() - killed
        assert time.time() - killed < 60, "nobody took the run up within 60 s"
        await asyncio.sleep(0.05)


async def _apart(system: System, trial: Trial, run: str, noted: Noted) -> None:
    if trial.who in ORCHESTRATORS:
        await _kill(system, trial, run, noted)
        return
    await _start(system, trial, run)
    await _reached(system, trial, run)
    lost = time.time()
    _break(_link(system, trial), trial.how)
    noted.hit = trial.where
    other = next(one for one in ORCHESTRATORS if one != trial.owner)
    noted.taken_up_s = await _taken_up(system, run, other, lost)
    await asyncio.sleep(max(0.0, lost + trial.seconds - time.time()))
    _link(system, trial).heal()
    await _until_ended(system, trial, run)
    # It must be as good as new: what is queued for it is taken, though it was held to be dead.
    again = dataclasses.replace(trial, kind="cancel")
    await _cancel(system, again, f"{run}-again", Noted())


async def _partition(system: System, trial: Trial, run: str, noted: Noted) -> None:
    link = _link(system, trial)
    await _start(system, trial, run)
    await _reached(system, trial, run)
    await _remember(system, run, noted)
    _break(link, trial.how)
    await asyncio.sleep(trial.seconds)
    await _remember(system, run, noted)
    link.heal()
    await _until_ended(system, trial, run)


async def _slow(system: System, trial: Trial, run: str, noted: Noted) -> None:
    _link(system, trial).slow(trial.delay_s, trial.bytes_per_s)
    await _start(system, trial, run)
    await _until_ended(system, trial, run)


async def _store(system: System, trial: Trial, run: str, noted: Noted) -> None:
    await _start(system, trial, run)
    await _reached(system, trial, run)
    await _remember(system, run, noted)
    await asyncio.to_thread(system.store.kill)
    await asyncio.to_thread(system.store.start)
    await _until_ended(system, trial, run)


async def _database(system: System, trial: Trial, run: str, noted: Noted) -> None:
    await _start(system, trial, run)
    await _reached(system, trial, run)
    await _remember(system, run, noted)
    await asyncio.to_thread(system.database.stop, trial.how)
    await asyncio.sleep(trial.seconds)
    await asyncio.to_thread(system.database.start)
    await _until_ended(system, trial, run)


async def _cancel(system: System, trial: Trial, run: str, noted: Noted) -> None:
    pid = system.folder / "pid"
    await _start(system, trial, run)
    await _reached(system, dataclasses.replace(trial, where="train"), run)
    pid.unlink(missing_ok=True)  # the one of the stage before
    await _until(lambda: pid.exists() and pid.read_text(), COMES_WITHIN_S[system.real], "no child was started")
    asked, child = time.time(), int(pid.read_text())
    cancelling = asyncio.create_task(system.clients[trial.owner].cancel(run))
    await _until(lambda: not is_alive(child), 60, "the child lives")
    noted.child_s = time.time() - asked
    if noted.child_s > 2.0:
        noted.wrong.append(f"the cancel took {noted.child_s:.1f} s to reach the child")
    await cancelling
    noted.hit = "train"
    await _remember(system, run, noted)
    await _start(system, trial, run)
    await _until_ended(system, trial, run)


_FAULTS = {
    "kill": _kill, "partition": _partition, "slow": _slow, "store": _store, "database": _database, "cancel": _cancel,
    "apart": _apart,
}  # fmt: skip


# -- steps


def _link(system: System, trial: Trial) -> Proxy:
    """The link of the fault; to the database each orchestrator has one of its own."""
    other = trial.who == DATABASE and trial.owner == ORCHESTRATORS[1]
    return system.links[OTHER_DATABASE if other else trial.who]


def _break(link: Proxy, how: str) -> None:
    if how == "cut":
        link.cut()
    elif how == "strand":
        link.strand()
    else:
        link.hold(there=how != "hold-back", back=how != "hold-there")


async def _start(system: System, trial: Trial, run: str) -> None:
    options = run_pb2.RunOptions(number=4)
    if system.real:
        model = system.folder / "model"
        if not model.exists():
            # In a process of its own: this one stays small, and does not depend on what torch thinks of threads.
            making = (
                f"from pathlib import Path; from tests.support.models import tiny_t5; tiny_t5(Path({str(model)!r}))"
            )
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", making, cwd=ROOT)
            assert await process.wait() == 0, "the tiny model could not be made"
        options = run_pb2.RunOptions(
            number=24, dataset=DATASET if trial.where in ("InspectRequest", "RetrieveRequest") else "",
            skip_datasets=trial.who != "dataset_retriever", model=f"folder:{model}", epochs=1,
            teacher_rows=4, seed=7,
        )  # fmt: skip
    await system.clients[trial.owner].start(run, TOY_PROMPT if system.real else PROMPT, options)


async def _reached(system: System, trial: Trial, run: str) -> None:
    """Returns when the run is in the stage of the fault."""
    wanted = (f"{run}/{trial.where}",)
    said = f"the run never came to {trial.where}"
    await _until(lambda: any(e["id"] in wanted for e in system.events()), COMES_WITHIN_S[system.real], said)


async def _until_ended(system: System, trial: Trial, run: str) -> None:
    """Returns when the run has ended, as somebody who asks now and then sees it."""
    deadline = time.monotonic() + ENDS_WITHIN_S[system.real]
    while True:
        for who, client in system.clients.items():
            if system.processes[who].returncode is not None:
                continue
            try:
                async with asyncio.timeout(5):
                    if (await client.get(run)).state in FINAL:
                        return
            except (TimeoutError, P2MError):
                continue  # the database is away, or it has just died
        assert time.monotonic() < deadline, f"the run did not end within {ENDS_WITHIN_S[system.real]:.0f} s"
        await asyncio.sleep(0.3)


async def _remember(system: System, run: str, noted: Noted) -> None:
    """What is paid and stored at this moment."""
    if system.real:
        return
    found = await asyncio.to_thread(audit.journaled, system, run)
    noted.stored.append((time.time(), found))


async def _all_up(system: System) -> None:
    for who, process in system.processes.items():
        plan: Path = system.folder / f"{who}.kill"
        if plan.exists():
            plan.unlink()
        if process.returncode is not None:
            await system.start(who)
    await asyncio.gather(*(system.ready(who) for who in system.processes))


async def _until(true: Callable[[], object], within_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, otherwise
        await asyncio.sleep(0.02)


assert set(REQUESTS) == set(SERVICES)
