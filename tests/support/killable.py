"""A real part of the system that dies at a named point, and writes down what it does.

    python -m tests.support.killable FOLDER WHO MODULE

runs MODULE's main with the kit's stage (of a service) or the orchestrator's pipeline wrapped. Into FOLDER/events.jsonl
go lines {at, pid, who, what, id}. FOLDER/WHO.kill, {run, where, point}, tells where to die by SIGKILL; the one who dies
takes the file away first, so that its successor lives.

    point         in a service, `where` a request's type             in the orchestrator, `where` a stage
    before        the call has come, nothing is done                 before the stage's call leaves
    during        work is under way and has reported                 the stream has brought progress
    unrecorded    the artifact is there, its record is not           the service has answered
    unsaid        the result is recorded, the answer has not left    the stage is done, its step is not recorded
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

POINTS = ("before", "during", "unrecorded", "unsaid")
# A call without progress is under way after so long.
_UNDER_WAY_S = 0.03

_stage: contextvars.ContextVar[tuple[str, str]] = contextvars.ContextVar("stage", default=("", ""))


class Watch:
    """What this process writes down, and where it dies."""

    def __init__(self, folder: Path, who: str) -> None:
        self.who = who
        self._plan = folder / f"{who}.kill"
        self._events = os.open(folder / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, what: str, name: str) -> None:
        """One line, written whole."""
        event = {"at": time.time(), "pid": os.getpid(), "who": self.who, "what": what, "id": name}
        os.write(self._events, (json.dumps(event) + "\n").encode())

    def at(self, point: str, run: str, where: str) -> None:
        """Dies here where the plan says so."""
        try:
            plan = json.loads(self._plan.read_text())
        except FileNotFoundError:
            return
        if (plan["run"], plan["where"], plan["point"]) == (run, where, point):
            self._plan.unlink()
            self.note("killed", f"{run}/{where}")
            os.kill(os.getpid(), signal.SIGKILL)


def watch_service(watch: Watch) -> None:
    """Wraps `services.kit.stage.Stage`: every request of a service goes through it."""
    from services.kit.stage import Stage

    unary, stream, record = Stage.unary, Stage.stream, Stage._record

    def names(request: Any) -> tuple[str, str]:
        return request.request_id.partition("/")[0], type(request).__name__

    def watched(request: Any, work: Any) -> Any:
        async def noted(*report: Any) -> Any:
            watch.note("begin", f"{watch.who}/{request.request_id}")
            name = names(request)

            def reported(progress: Any) -> None:
                report[0](progress)
                watch.at("during", *name)

            if report:
                return await work(reported)
            asyncio.get_running_loop().call_later(_UNDER_WAY_S, watch.at, "during", *name)
            return await work()

        return noted

    @functools.wraps(unary)
    async def noted_unary(self: Any, request: Any, response_type: Any, work: Any, *rest: Any) -> Any:
        watch.at("before", *names(request))
        _stage.set(names(request))
        return await unary(self, request, response_type, watched(request, work), *rest)

    @functools.wraps(stream)
    async def noted_stream(self: Any, request: Any, *types: Any, **more: Any) -> Any:
        watch.at("before", *names(request))
        _stage.set(names(request))
        response_type, result_type, work, *rest = (*types, *([more.pop("work")] if "work" in more else []))
        async for event in stream(self, request, response_type, result_type, watched(request, work), *rest, **more):
            yield event

    @functools.wraps(record)
    def noted_record(self: Any, key: str, *rest: Any) -> None:
        watch.at("unrecorded", *_stage.get())
        record(self, key, *rest)
        watch.note("recorded", f"{watch.who}/{key}")
        watch.at("unsaid", *_stage.get())

    Stage.unary, Stage.stream, Stage._record = noted_unary, noted_stream, noted_record  # type: ignore[method-assign]


def watch_orchestrator(watch: Watch) -> None:
    """Wraps the pipeline's stages and the calls that they make."""
    from orchestrator import executors
    from orchestrator.pipeline import Pipeline
    from orchestrator.stages import Stages
    from services.kit import channel

    if os.environ.get("P2M_FAULTS_APART"):
        # As if each were on a machine of its own: only its heartbeat tells that it lives.
        executors._place = lambda: watch.who  # type: ignore[assignment]
    perform, asked, stream = Pipeline.perform, Stages._asked_again, channel.stream

    @functools.wraps(perform)
    async def noted_perform(self: Any, name: str, stage: str, *rest: Any) -> Any:
        _stage.set((name, stage))
        watch.note("perform", f"{name}/{stage}")
        try:
            result = await perform(self, name, stage, *rest)
        except BaseException:
            watch.note("left", f"{name}/{stage}")
            raise
        watch.note("performed", f"{name}/{stage}")
        watch.at("unsaid", name, stage)
        return result

    @functools.wraps(asked)
    async def noted_asked(self: Any, *rest: Any) -> Any:
        watch.at("before", *_stage.get())
        asyncio.get_running_loop().call_later(_UNDER_WAY_S, watch.at, "during", *_stage.get())
        result = await asked(self, *rest)
        watch.at("unrecorded", *_stage.get())
        return result

    @functools.wraps(stream)
    async def noted_stream(method: Any, request: Any, report: Any = lambda _: None, *rest: Any) -> Any:
        def reported(progress: Any) -> None:
            report(progress)
            watch.at("during", *_stage.get())

        return await stream(method, request, reported, *rest)

    Pipeline.perform, Stages._asked_again = noted_perform, noted_asked  # type: ignore[method-assign]
    channel.stream = noted_stream


def main(folder: str, who: str, module: str) -> int:
    """Runs until it is killed or told to end."""
    watch = Watch(Path(folder), who)
    (watch_orchestrator if module.startswith("orchestrator") else watch_service)(watch)
    sys.argv = [module]
    hosted = importlib.import_module(module if module.startswith(("orchestrator", "tests")) else f"{module}.__main__")
    status: int = hosted.main()
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
