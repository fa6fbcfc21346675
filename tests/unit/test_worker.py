"""Worker processes: what they answer, how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.kit.errors import DiskFull, FailedPrecondition, Internal, P2MError, ResourceExhausted, Unavailable
from services.kit.settings import Settings
from services.kit.values import Progress
from services.kit.worker import Resident, run
from tests.support.jobs import Order, Outcome
from tests.support.processes import is_alive, pid_in, until_dead

ROOT = Path(__file__).resolve().parent.parent.parent
WORK = "tests.support.jobs:work"
COUNTER = "tests.support.jobs:Counter"


@pytest.fixture
def soon(settings: Settings) -> Settings:
    """Settings with a short grace."""
    return settings.model_copy(update={"grace_s": 1.0})


async def test_a_job_runs_in_a_process_of_its_own(settings: Settings) -> None:
    """The result comes from another process, whole at 10 MB too; what the job prints does not mix with it."""
    outcome = await run(WORK, Order("echo", size=10_000_000), Outcome, settings)
    assert (len(outcome.said), outcome.pid != os.getpid()) == (10_000_000, True)


async def test_a_job_reports_even_what_is_no_number(settings: Settings) -> None:
    """Progress arrives in order, and a loss that is NaN arrives as NaN."""
    seen: list[Progress] = []
    await run(WORK, Order("report"), Outcome, settings, seen.append)
    assert [progress.done for progress in seen] == [0, 1, 2]
    assert all(progress.metrics[0].value != progress.metrics[0].value for progress in seen)


@pytest.mark.parametrize(
    ("what", "error", "reason"),
    [
        ("refuse", FailedPrecondition, "TOO_FEW"),
        ("crash", Internal, "BUG"),
        ("fill the disk", DiskFull, "DISK_FULL"),
        ("use up memory", ResourceExhausted, "OUT_OF_MEMORY"),
        ("be killed", Unavailable, "WORKER_KILLED"),
        ("exit", Internal, "WORKER_DIED"),
        ("no such job", Internal, "BUG"),
    ],
)
async def test_what_a_job_raises_is_raised(settings: Settings, what: str, error: type[P2MError], reason: str) -> None:
    """The child's error is the caller's, with its parts; a killed child is Unavailable, a bug says that it is one."""
    with pytest.raises(error) as raised:
        await run(WORK, Order(what), Outcome, settings)
    assert raised.value.reason == reason
    assert raised.value.field == ("train" if what == "refuse" else "")


async def test_a_cancelled_job_saves_and_ends(soon: Settings, tmp_path: Path) -> None:
    """Cancelling sends SIGTERM within 2 s; the job saves, and when the cancelling is done the process is gone."""
    task = asyncio.ensure_future(run(WORK, Order("wait and save", str(tmp_path)), Outcome, soon))
    pid = await pid_in(tmp_path)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (tmp_path / "saved").read_text() == "checkpoint"
    assert time.monotonic() - began < 2
    assert not is_alive(pid)


async def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(soon: Settings, tmp_path: Path) -> None:
    """A job that ignores SIGTERM is killed after the grace and not before, with the processes that it started."""
    task = asyncio.ensure_future(run(WORK, Order("ignore everything", str(tmp_path)), Outcome, soon))
    pid = await pid_in(tmp_path)
    own = await pid_in(tmp_path, "own")
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 0.9 < time.monotonic() - began < 4
    assert not is_alive(pid)
    await until_dead(own, 2)


@pytest.mark.parametrize("what", ["wait and save", "ignore everything"])
async def test_a_job_ends_when_its_parent_was_killed(tmp_path: Path, what: str) -> None:
    """After kill -9 of the parent the job is asked to stop at once, and is gone within its grace."""
    code = (
        "import asyncio; from services.kit import worker; from services.kit.settings import Settings\n"
        "from tests.support.jobs import Order, Outcome\n"
        f"asyncio.run(worker.run({WORK!r}, Order({what!r}, {str(tmp_path)!r}), Outcome, Settings(grace_s=1.0)))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        pid = await pid_in(tmp_path)
        if what == "ignore everything":
            own = await pid_in(tmp_path, "own")
    finally:
        parent.kill()
        parent.wait()
    await until_dead(pid, 5)
    if what == "wait and save":
        assert (tmp_path / "saved").exists()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(own, signal.SIGKILL)


async def test_a_resident_object_ends_when_its_parent_was_killed(tmp_path: Path) -> None:
    """A resident object in the middle of an answer ends at once when its parent was killed."""
    code = (
        "import asyncio; from services.kit.worker import Resident; from services.kit.settings import Settings\n"
        "from tests.support.jobs import Order, Outcome\n"
        f"asyncio.run(Resident({COUNTER!r}, Settings()).ask(Order('sleep', {str(tmp_path)!r}), Outcome))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    try:
        pid = await pid_in(tmp_path)
    finally:
        parent.kill()
        parent.wait()
    await until_dead(pid, 3)


async def test_a_resident_object_keeps_what_it_has(settings: Settings) -> None:
    """One process answers one request after another, also of many who ask at once; `stop` ends it."""
    counter = Resident(COUNTER, settings)
    await counter.start()
    outcomes = await asyncio.gather(*(counter.ask(Order(), Outcome) for _ in range(5)))
    assert [outcome.said for outcome in outcomes] == ["1", "2", "3", "4", "5"]
    assert len({outcome.pid for outcome in outcomes}) == 1
    with pytest.raises(FailedPrecondition, match="No"):
        await counter.ask(Order("refuse"), Outcome)
    assert (await counter.ask(Order(), Outcome)).said == "7"
    await counter.stop()
    assert not is_alive(outcomes[0].pid)


async def test_a_resident_object_that_died_is_built_anew(settings: Settings) -> None:
    """A killed process is Unavailable to the one who asked, and the next one finds a new process."""
    counter = Resident(COUNTER, settings)
    first = await counter.ask(Order(), Outcome)
    with pytest.raises(Unavailable):
        await counter.ask(Order("be killed"), Outcome)
    second = await counter.ask(Order(), Outcome)
    assert (second.said, second.pid != first.pid) == ("1", True)
    os.kill(second.pid, signal.SIGKILL)
    await until_dead(second.pid, 3)
    await asyncio.sleep(0.1)
    assert (await counter.ask(Order(), Outcome)).said == "1"
    await counter.stop()


async def test_a_cancelled_question_leaves_no_answer_behind(soon: Settings, tmp_path: Path) -> None:
    """Cancelling one question, in the answer or while the object is built, does not give its answer to the next."""
    counter = Resident(COUNTER, soon)
    task = asyncio.ensure_future(counter.ask(Order("sleep", str(tmp_path)), Outcome))
    pid = await pid_in(tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)
    assert (await counter.ask(Order(), Outcome)).said == "1"
    await counter.stop()

    slow = Resident(COUNTER, soon.model_copy(update={"llm": "0.5"}))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slow.start(), 0.2)
    assert (await slow.ask(Order(), Outcome)).said == "1"
    await slow.stop()


async def test_an_object_that_cannot_be_built_says_why_each_time(settings: Settings) -> None:
    """What its construction raised is raised to each who asks."""
    counter = Resident(COUNTER, settings.model_copy(update={"llm": "refuse"}))
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="no such model"):
            await counter.ask(Order(), Outcome)
    await counter.stop()
