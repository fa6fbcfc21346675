"""Jobs for worker processes under test: they do what a real one does in the moments that matter."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings
from services.kit.values import Metric, Progress
from services.kit.worker import WorkerContext


@dataclass(frozen=True)
class Order:
    """What the job shall do; `folder` is where it leaves its process id and its traces."""

    what: str = ""
    folder: str = ""
    size: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    said: str = ""
    pid: int = 0


def work(order: Order, context: WorkerContext) -> Outcome:
    """Does `order.what`."""
    if order.folder:
        Path(order.folder, "pid").write_text(str(os.getpid()))
    return _JOBS[order.what](order, context)


def _echo(order: Order, context: WorkerContext) -> Outcome:
    print("a library prints this")
    return Outcome("x" * order.size, os.getpid())


def _report(order: Order, context: WorkerContext) -> Outcome:
    for step in range(3):
        context.report(Progress(step, 3, "steps", metrics=(Metric("train_loss", float("nan")),)))
    return Outcome("reported")


def _refuse(order: Order, context: WorkerContext) -> Outcome:
    raise FailedPrecondition("TOO_FEW", "2 rows; wanted 10.", field="train")


def _crash(order: Order, context: WorkerContext) -> Outcome:
    return Outcome(str(1 // 0))


def _fill_the_disk(order: Order, context: WorkerContext) -> Outcome:
    raise OSError(errno.ENOSPC, "No space left on device")


def _use_up_memory(order: Order, context: WorkerContext) -> Outcome:
    raise MemoryError


def _be_killed(order: Order, context: WorkerContext) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return Outcome()


def _exit(order: Order, context: WorkerContext) -> Outcome:
    os._exit(3)


def _wait_and_save(order: Order, context: WorkerContext) -> Outcome:
    while not context.stopping:
        time.sleep(0.02)
    Path(order.folder, "saved").write_text("checkpoint")
    context.raise_if_stopping()
    return Outcome()


def _train(order: Order, context: WorkerContext) -> Outcome:
    """Reports `order.size` times, a moment apart, and ends when it is told to."""
    for step in range(order.size):
        context.raise_if_stopping()
        context.report(Progress(step + 1, order.size, "steps"))
        time.sleep(0.03)
    return Outcome("trained")


def _ignore_everything(order: Order, context: WorkerContext) -> Outcome:
    """Also starts a process of its own, as a data loader does."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(order.folder, "own").write_text(str(own.pid))
    while True:
        time.sleep(1)


_JOBS = {
    "echo": _echo, "report": _report, "refuse": _refuse, "crash": _crash, "fill the disk": _fill_the_disk,
    "use up memory": _use_up_memory, "be killed": _be_killed, "exit": _exit, "wait and save": _wait_and_save,
    "ignore everything": _ignore_everything, "train": _train,
}  # fmt: skip


class Counter:
    """A resident object: answers with how often it was asked."""

    def __init__(self, settings: Settings) -> None:
        if settings.llm == "refuse":
            raise FailedPrecondition("NO_MODEL", "There is no such model.")
        time.sleep(float(settings.llm) if settings.llm.replace(".", "").isdigit() else 0)
        self._asked = 0

    def answer(self, request: Order) -> Outcome:
        """The number of requests so far; "sleep" takes long, "be killed" dies, "refuse" raises."""
        self._asked += 1
        if request.folder:
            Path(request.folder, "pid").write_text(str(os.getpid()))
        if request.what == "sleep":
            time.sleep(600)
        if request.what == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if request.what == "refuse":
            raise FailedPrecondition("REFUSED", "No.")
        return Outcome(str(self._asked), os.getpid())
