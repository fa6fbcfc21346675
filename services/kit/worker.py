"""Heavy work in a child process, so that health checks answer and a cancel really stops it.

    run("services.trainer.train:train", request, Result, settings, report)     one job, one process
    Resident("services.evaluator.predict:Predictor", settings)                 a process that keeps a model loaded

The child is a fresh interpreter (a forked one breaks gRPC). It gets JSON lines on standard input and answers JSON
lines; what it prints goes to standard error. Cancelling sends SIGTERM: the job sees `context.stopping`, saves what it
wants and returns or raises; after the grace SIGKILL follows, for it and for what it started. When the parent dies, the
child's standard input ends, and it stops too, within the grace.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, get_type_hints

from services.kit import logs, telemetry
from services.kit.errors import Cancelled, Internal, P2MError, ResourceExhausted, Unavailable, from_os_error, rebuild
from services.kit.settings import Settings
from services.kit.values import Progress
from services.kit.wire import from_json, to_json

T = TypeVar("T")
log = logging.getLogger(__name__)

# How often a thread of torch's looks whether the others are done before it gives its core away. By default it looks for
# so long that a second busy process makes a step of training three times as slow; this much costs nothing when alone.
_SPINS = "2000"
_LINE_LIMIT = 256 << 20


class WorkerContext:
    """What a job in a child may use: its settings, `report`, and `stopping`."""

    def __init__(self, settings: Settings, send: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.settings = settings
        self.resident = False
        self._send = send
        self._stop = threading.Event()

    @property
    def stopping(self) -> bool:
        """True once the job should save and end: raise `Cancelled` when it has."""
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()

    def report(self, progress: Progress) -> None:
        if self._send:
            self._send({"progress": json.loads(to_json(progress))})

    def raise_if_stopping(self) -> None:
        if self.stopping:
            raise Cancelled("CANCELLED", "The work was stopped on request; what it saved is kept.")


class Answers(Protocol):
    """What `Resident` hosts: built once from the settings, then asked again and again."""

    def __init__(self, settings: Settings) -> None: ...

    def answer(self, request: Any) -> Any:
        """The answer to one request; both are dataclasses, named by the annotations."""


async def run(
    function: str,
    request: Any,
    result_type: type[T],
    settings: Settings,
    report: Callable[[Progress], None] = lambda _: None,
) -> T:
    """Runs `module:function(request, context)` in a child and returns its result.

    Raises what the child raised, Unavailable when it was killed, or Internal when it died by itself. On cancellation:
    SIGTERM at once, SIGKILL after the grace.
    """
    with telemetry.working(function):
        process = await _spawn(function)
        try:
            await _send(process, {"settings": settings.reveal()})
            await _send(process, {"request": json.loads(to_json(request)), **telemetry.handed()})
            while message := await _receive(process):
                if "progress" in message:
                    report(from_json(json.dumps(message["progress"]), Progress))
                elif "error" in message:
                    raise rebuild(**message["error"])
                else:
                    return from_json(json.dumps(message["result"]), result_type)
            raise _died(function, await process.wait())
        finally:
            await _end(process, settings.grace_s)


class Resident:
    """A child that keeps an object of `module:Class` and answers one request after another."""

    def __init__(self, class_path: str, settings: Settings) -> None:
        self._class_path = class_path
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Returns once the object is built; raises what its construction raised."""
        async with self._lock:
            await self._started()

    async def ask(self, request: Any, result_type: type[T]) -> T:
        """The object's answer. A child that died is started anew for the next request."""
        async with self._lock:
            process = await self._started()
            try:
                await _send(process, {"request": json.loads(to_json(request)), **telemetry.handed()})
                message = await _receive(process)
            except asyncio.CancelledError:
                # The answer would come to the next one who asks.
                await self._stop()
                raise
            if not message:
                await self._stop()
                raise _died(self._class_path, process.returncode)
            if "error" in message:
                raise rebuild(**message["error"])
            return from_json(json.dumps(message["result"]), result_type)

    async def stop(self) -> None:
        async with self._lock:
            await self._stop()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = None
            process = await _spawn(self._class_path)
            try:
                await _send(process, {"settings": self._settings.reveal()})
                message = await _receive(process)
                if not message:
                    raise _died(self._class_path, await process.wait())
                if "error" in message:
                    raise rebuild(**message["error"])
            except BaseException:
                await _end(process, self._settings.grace_s)
                raise
            self._process = process
        return self._process

    async def _stop(self) -> None:
        if self._process is not None:
            await _end(self._process, self._settings.grace_s)
            self._process = None


async def _spawn(target: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.kit.worker", target,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_LIMIT,
        # A Ctrl-C at the terminal is the parent's to handle: it cancels, and the child saves.
        start_new_session=True, env={"GOMP_SPINCOUNT": _SPINS} | os.environ,
    )  # fmt: skip


async def _send(process: asyncio.subprocess.Process, message: dict[str, Any]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a dead child is noticed when it is read from
        process.stdin.write(json.dumps(message).encode() + b"\n")
        await process.stdin.drain()


async def _receive(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    assert process.stdout is not None
    line = await process.stdout.readline()
    return json.loads(line) if line.endswith(b"\n") else None


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    """SIGTERM, then SIGKILL after the grace. A second cancellation does not cut it short."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            # Not process.terminate(): that takes the status of a child that has ended from the one who waits for it.
            os.kill(process.pid, signal.SIGTERM)
        waiting = asyncio.ensure_future(_wait(process, grace_s))
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            await waiting
            raise
    # Without this the pipe's transport is closed by the garbage collector, perhaps after its loop.
    process._transport.close()  # type: ignore[attr-defined]


async def _wait(process: asyncio.subprocess.Process, grace_s: float) -> None:
    assert process.stdout is not None
    # Reading on lets a child that is writing reach its end.
    reading = asyncio.ensure_future(process.stdout.read())
    try:
        await asyncio.wait_for(process.wait(), grace_s)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    finally:
        reading.cancel()


def _died(target: str, status: int | None) -> P2MError:
    if status == -signal.SIGKILL:
        return Unavailable(
            "WORKER_KILLED",
            f"The worker process of {target} was killed; it may have run out of memory. Run the same command again to "
            "go on, or take a smaller model or batch.",
        )
    how = f"by {signal.Signals(-status).name}" if status is not None and status < 0 else f"with status {status}"
    return Internal(
        "WORKER_DIED", f"The worker process of {target} ended {how} and without an answer. Its log says more."
    )


# -- the child's side


def main(target: str) -> int:
    """The child: hosts `module:function` or `module:Class`, speaks JSON lines."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with lock:
            answers.write(json.dumps(message) + "\n")
            answers.flush()

    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    ended = threading.Event()
    threading.Thread(target=_read_lines, args=(lines, ended), daemon=True).start()
    if not (first := lines.get()):
        return 1
    settings = Settings.model_validate(json.loads(first)["settings"])
    logs.configure(settings.log_level, settings.log_format)
    observed = telemetry.start(settings, target.removeprefix("services.").partition(".")[0], worker=True)
    context = WorkerContext(settings, send)
    threading.Thread(target=_end_with_parent, args=(ended, context), daemon=True).start()
    try:
        module, name = target.split(":")
        hosted = getattr(importlib.import_module(module), name)
        # Only now: what is still importing has nothing to save, and SIGTERM ends it at once.
        signal.signal(signal.SIGTERM, lambda *_: context.stop())
        if isinstance(hosted, type):
            return _answer(hosted, target, lines, context, send)
        if not (line := lines.get()):
            return 1
        message = json.loads(line)
        with telemetry.received(message.get("where"), target):
            result = hosted(_request(message, hosted), context)
            log.info("%s is done", target)
        send({"result": json.loads(to_json(result))})
        return 0
    except BrokenPipeError:  # the parent is gone
        return 1
    except BaseException as error:
        send(_error(error))
        return 1
    finally:
        if observed:
            telemetry.stop()


def _read_lines(lines: queue.SimpleQueue[bytes], ended: threading.Event) -> None:
    """Puts each line of standard input into `lines`, and b"" at its end.

    Not by `sys.stdin`: a thread that waits in it when the interpreter ends crashes the interpreter.
    """
    parts: list[bytes] = []
    while data := os.read(0, 1 << 20):
        *whole, rest = data.split(b"\n")
        for part in whole:
            lines.put(b"".join((*parts, part)))
            parts = []
        parts.append(rest)
    ended.set()
    lines.put(b"")


def _end_with_parent(ended: threading.Event, context: WorkerContext) -> None:
    """Ends the child when its standard input did, which is when the parent is gone: nobody would take a result."""
    ended.wait()
    context.stop()
    # A parent that was killed sends no SIGKILL after the grace.
    if not context.resident:
        time.sleep(context.settings.grace_s)
    os._exit(1)


def _answer(
    hosted: type[Any],
    target: str,
    lines: queue.SimpleQueue[bytes],
    context: WorkerContext,
    send: Callable[[dict[str, Any]], None],
) -> int:
    context.resident = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing to save: end at once
    answers: Answers = hosted(context.settings)
    send({"ready": True})
    while line := lines.get():
        try:
            message = json.loads(line)
            with telemetry.received(message.get("where"), target):
                answer = answers.answer(_request(message, answers.answer))
            send({"result": json.loads(to_json(answer))})
        except BrokenPipeError:
            raise
        except Exception as error:
            send(_error(error))
    return 0


def _request(message: dict[str, Any], function: Callable[..., Any]) -> Any:
    """The request of a message, of the type that the function's first annotation names."""
    return from_json(json.dumps(message["request"]), next(iter(get_type_hints(function).values())))


def _error(error: BaseException) -> dict[str, Any]:
    if isinstance(error, P2MError):
        known = error
    elif isinstance(error, MemoryError):
        known = ResourceExhausted("OUT_OF_MEMORY", "The worker ran out of memory; take a smaller model or batch.")
    elif isinstance(error, OSError):
        known = from_os_error(error, "Working")
    else:
        log.error("unforeseen error in a worker", exc_info=error)
        known = Internal(
            "BUG", f"A bug in a worker ({type(error).__name__}: {error}). The service's log has the traceback."
        )
    return {
        "error": {
            "code": known.code, "reason": known.reason, "message": known.message, "field": known.field,
            "retry_after": known.retry_after,
        }
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
