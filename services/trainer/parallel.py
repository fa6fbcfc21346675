"""Several processes that train one model, each on its part of every batch: torchrun starts them, accelerate joins them.

    launch(request, settings, ...) ── result      in the worker: starts the processes and passes on what the first says
    python -m services.trainer.parallel           one of them, as torchrun starts it
    Team                                          what the loop asks: who am I, the sum of a number over all

By default there is one process for each GPU, and on a CPU one alone; `P2M_TRAIN_PROCESSES` sets another number. A batch
is divided, not multiplied: the training takes the same steps with any number of processes. The first process alone
reads and writes the store, reports, and gives the result.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch

from services.kit import logs, telemetry
from services.kit.errors import P2MError, Unavailable, rebuild
from services.kit.settings import Settings
from services.kit.values import Progress
from services.kit.wire import from_json, to_json
from services.kit.worker import WorkerContext
from services.trainer.calls import TrainRequest, TrainResult

# The environment is where the secrets in the settings are neither on a command line nor in a file.
_JOB = "P2M_TRAIN_JOB"
_POLL_S = 0.2


class Team:
    """The processes of one training. Without `accelerator` there is one."""

    def __init__(self, accelerator: Any = None) -> None:
        self._accelerator = accelerator
        self.rank: int = accelerator.process_index if accelerator else 0
        self.size: int = accelerator.num_processes if accelerator else 1
        self.device: torch.device = accelerator.device if accelerator else device()

    def join(self, module: torch.nn.Module) -> torch.nn.Module:
        """The module on this process's device; its gradients become the mean over all processes."""
        module.to(self.device)
        return self._accelerator.prepare_model(module) if self.size > 1 else module

    def apart(self, module: torch.nn.Module, passes_left: int) -> contextlib.AbstractContextManager[Any]:
        """Gradients are only exchanged in the last pass of a step."""
        return self._accelerator.no_sync(module) if self.size > 1 and passes_left else contextlib.nullcontext()

    def share(self, rows: Sequence[int]) -> list[int]:
        """The rows of a batch that are this process's; perhaps none."""
        return list(rows[self.rank :: self.size])

    def sums(self, *values: float) -> list[float]:
        """Each value's sum over all processes; all must ask together."""
        if self.size == 1:
            return list(values)
        total = self._accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=self.device), "sum")
        return [float(value) for value in total]


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processes(settings: Settings) -> int:
    """How many processes are to train."""
    return settings.train_processes or max(1, torch.cuda.device_count())


def launch(request: TrainRequest, context: WorkerContext, count: int) -> TrainResult:
    """Trains with `count` processes. A stop is passed on to them; what the first to fail raised is raised here."""
    job = {"settings": context.settings.reveal(), "request": json.loads(to_json(request)), **telemetry.handed()}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    process = subprocess.Popen(
        [*command, "-m", "services.trainer.parallel"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        env=os.environ | {_JOB: json.dumps(job), "OMP_NUM_THREADS": str(_threads(context.settings, count))},
    )  # fmt: skip
    ended = threading.Event()
    threading.Thread(target=_pass_on_stop, args=(context, process, ended), daemon=True).start()
    try:
        return _result(process, context)
    finally:
        ended.set()
        try:  # the first process has said all; the others end with it
            process.wait(context.settings.grace_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()


def _pass_on_stop(context: WorkerContext, process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    while not ended.wait(_POLL_S):
        if context.stopping:
            process.terminate()
            return


def _result(process: subprocess.Popen[bytes], context: WorkerContext) -> TrainResult:
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)
        if "progress" in message:
            context.report(from_json(json.dumps(message["progress"]), Progress))
        elif "error" in message:
            raise rebuild(**message["error"])
        else:
            return from_json(json.dumps(message["result"]), TrainResult)
    context.raise_if_stopping()
    raise Unavailable(
        "WORKER_KILLED",
        f"A training process ended with status {process.wait()} and without an answer; it may have run out of memory. "
        "Run the same command again to go on, or take a smaller model or fewer batch_tokens.",
    )


def _threads(settings: Settings, count: int) -> int:
    return max(1, (settings.threads or len(os.sched_getaffinity(0))) // count)


def main() -> int:
    """One process of the team. Only the first one reports; what libraries print goes to standard error."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    from services.trainer.train import train_as

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = json.loads(os.environ.pop(_JOB))
    settings = Settings.model_validate(job["settings"])
    logs.configure(settings.log_level, settings.log_format)
    observed = telemetry.start(settings, "trainer", worker=True)
    # Some weights take no part: an encoder's pooler, an expert that no token was sent to.
    joined = DistributedDataParallelKwargs(find_unused_parameters=True)
    team = Team(Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[joined]))

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    own = settings.model_copy(update={"threads": _threads(settings, team.size)})
    context = WorkerContext(own, None if team.rank else send)
    signal.signal(signal.SIGTERM, lambda *_: context.stop())
    try:
        with telemetry.received(job.get("where"), "services.trainer.parallel"):
            result = train_as(team, from_json(json.dumps(job["request"]), TrainRequest), context)
        if team.rank == 0:
            send({"result": json.loads(to_json(result))})
        return 0
    except P2MError as error:
        send({"error": _plain(error)})  # any of them: the first to fail has the others ended
        return 1
    finally:
        torch.distributed.destroy_process_group()
        if observed:
            telemetry.stop()


def _plain(error: P2MError) -> dict[str, Any]:
    return {
        "code": error.code, "reason": error.reason, "message": error.message, "field": error.field,
        "retry_after": error.retry_after,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
