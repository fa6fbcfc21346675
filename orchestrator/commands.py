"""What the CLI's commands do; `__main__` has their names and options.

    run        start a run or go on with it, show it until it ends, bring its result here
    watch      show a run that another process works on
    list_runs, show, cancel, choose
    up         the six services and RunService on their usual ports, until stopped

Each takes the terminal and the settings and returns the exit status; errors are raised (see `session`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from p2m.common.v1 import common_pb2
from p2m.run.v1 import run_pb2

from orchestrator import attributes, display, results, summary
from orchestrator.client import RunClient
from orchestrator.inputs import check_out, store_rows
from orchestrator.session import reached, with_hub
from orchestrator.terminal import DONE, FAILED, STOPPED, Terminal
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, P2MError
from services.kit.settings import RUN_PORT, SERVICES, Settings, port_of
from services.kit.wire import to_message

_STATUS = {
    run_pb2.RUN_STATE_SUCCEEDED: DONE,
    run_pb2.RUN_STATE_FAILED: FAILED,
    run_pb2.RUN_STATE_CANCELLED: STOPPED,
}
_CANCEL_TIMEOUT_S = 15.0
_WAIT_FOR_RUNS = 20


@dataclass(frozen=True)
class Job:
    """A run as its command line describes it."""

    prompt: str
    options: run_pb2.RunOptions
    name: str = ""
    new: bool = False
    """Start another run, whatever there is of that name."""
    data: list[Path] = field(default_factory=list)
    test: Path | None = None
    out: Path | None = None
    connect: str = ""
    as_json: bool = False


async def run(terminal: Terminal, settings: Settings, job: Job) -> int:
    """Starts or goes on with a run and shows it until it ends."""
    if job.out or job.name:
        check_out(job.out or Path("runs") / job.name)
    options = await asyncio.to_thread(_with_files, job, settings)
    async with _stack(terminal, settings, job.connect) as (client, settings):
        name = await _new_name(client, job.name) if job.new else job.name
        started = await client.start(name, job.prompt, options)
        out = check_out(job.out or Path("runs") / started.name)
        if started.state in _STATUS:
            terminal.say(f"Run {started.name} has ended before; this is what came of it. (--new starts another.)")
        else:
            terminal.say(f"Run {started.name}")
        try:
            ended = await _follow(terminal, client, started.name)
        except asyncio.CancelledError:
            return await _interrupted(terminal, client, started.name, job.connect)
        return await _conclude(terminal, settings, ended, out, job.as_json)


async def watch(terminal: Terminal, settings: Settings, name: str, connect: str, as_json: bool) -> int:
    """Shows a run until it ends; ending the watching leaves the run alone."""
    async with reached(connect, settings) as client:
        await client.get(name)
        try:
            ended = await _follow(terminal, client, name)
        except asyncio.CancelledError:
            _uncancel()
            terminal.say("The run itself goes on.")
            return STOPPED
        return await _conclude(terminal, settings, ended, None, as_json)


async def list_runs(terminal: Terminal, settings: Settings, number: int, connect: str, as_json: bool) -> int:
    """Prints the newest runs."""
    async with reached(connect, settings) as client:
        runs, _ = await client.list(number)
    if as_json:
        for found in runs:
            print(json.dumps(_plain(found), ensure_ascii=False), file=terminal.out)
    elif runs:
        summary.table(terminal.out, runs)
    else:
        terminal.say("There are no runs yet. Start one: p2m run PROMPT_FILE")
    return DONE


async def show(terminal: Terminal, settings: Settings, name: str, connect: str, as_json: bool) -> int:
    """Prints one run as it stands."""
    async with reached(connect, settings) as client:
        found = await client.get(name)
    if as_json:
        print(json.dumps(_plain(found), ensure_ascii=False), file=terminal.out)
        return DONE
    record = await asyncio.to_thread(_record, settings, found)
    summary.run(terminal.out, found, record)
    return DONE


async def cancel(terminal: Terminal, settings: Settings, name: str, connect: str) -> int:
    """Stops a run; what it has is kept."""
    async with reached(connect, settings) as client:
        before = await client.get(name)
        if before.state in _STATUS:
            terminal.say(f"Run {name} has ended already ({summary.state_word(before)}); there is nothing to cancel.")
            return DONE
        await client.cancel(name)
    terminal.say(f"Run {name} is cancelled. What it has is kept: the same `p2m run` goes on with it.")
    terminal.say(f"The rows so far: p2m data {name} --out FILE")
    return DONE


async def choose(terminal: Terminal, settings: Settings, name: str, question: str, value: str, connect: str) -> int:
    """Answers a question that a run waits for."""
    value = attributes.typed(value) if question == attributes.QUESTION else value
    async with reached(connect, settings) as client:
        await client.choose(name, question, value)
    terminal.say(f"Run {name} goes on with {question}: {display.clean(value)}")
    return DONE


async def up(terminal: Terminal, settings: Settings) -> int:
    """Serves everything on the usual ports until stopped."""
    from orchestrator.local import hosted

    ports = {name: port_of(name) for name in SERVICES} | {"run": RUN_PORT}
    terminal.say("Starting the services on this machine …")
    settings = await with_hub(terminal, settings)
    async with hosted(settings, ports=ports, adopt=True) as stack:
        for name in SERVICES:
            terminal.say(f"{name:<18} {stack.targets[name]}")
        terminal.say(f"{'run':<18} {stack.run_target}")
        terminal.say(
            f"\nAll are serving. Use them with: p2m run PROMPT_FILE --connect {stack.run_target}\nCtrl-C stops them."
        )
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        _uncancel()
    return DONE


# -- the parts of a run


@contextlib.asynccontextmanager
async def _stack(terminal: Terminal, settings: Settings, connect: str) -> AsyncIterator[tuple[RunClient, Settings]]:
    """A client of the RunService at `connect`, else of one with all services in this process."""
    if connect:
        async with reached(connect, settings) as client:
            yield client, settings
        return
    from orchestrator.local import hosted

    terminal.say("Starting the services on this machine …")
    settings = await with_hub(terminal, settings)
    async with hosted(settings) as stack, RunClient(stack.run_target, stack.settings) as client:
        if stack.offline_teacher:
            terminal.say(
                "No LLM is set (OPENAI_API_KEY, or OPENAI_BASE_URL): using the small one that ships with the packages. "
                "It is poor, and what it costs is time."
            )
        elif not (stack.settings.openai_base_url or stack.settings.openai_api_key.get_secret_value()):
            terminal.say(
                "No LLM is set (OPENAI_API_KEY, or OPENAI_BASE_URL), and the small one's packages are not installed: "
                "nothing can be generated. Data that is found or given (--data) is all there is."
            )
        yield client, stack.settings


def _with_files(job: Job, settings: Settings) -> run_pb2.RunOptions:
    """The options with the user's files as artifacts."""
    paths = [*job.data, *([job.test] if job.test else [])]
    if not paths:
        return job.options
    if job.connect and not settings.store:
        raise InvalidArgument(
            "NO_SHARED_STORE",
            f"Files travel through the store that the services at {job.connect} use, and none is set here. Set "
            "P2M_STORE (and P2M_S3_ENDPOINT with its keys) as it is there.",
        )
    stored = [to_message(artifact, common_pb2.Artifact) for artifact in store_rows(paths, settings)]
    options = run_pb2.RunOptions()
    options.CopyFrom(job.options)
    if job.test:
        options.test.CopyFrom(stored.pop())
    options.data.extend(stored)
    return options


async def _new_name(client: RunClient, name: str) -> str:
    """`name` with a number that no run has yet; without a name, one made of the time."""
    if not name:
        return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    for number in range(1, 1000):
        candidate = name if number == 1 else f"{name}-{number}"
        try:
            await client.get(candidate)
        except NotFound:
            return candidate
    raise FailedPrecondition("NAMES_TAKEN", f"A thousand runs are named {name} already. Take another name.")


async def _follow(terminal: Terminal, client: RunClient, name: str) -> run_pb2.Run:
    """Shows a run until it ends; asks its questions where somebody is there to answer. Returns its last state."""
    view = display.view(terminal.err)
    ended: run_pb2.Run | None = None
    seen: set[bytes] = set()
    try:
        async for change in client.watch(name):
            view.update(change)
            if not change.HasField("run"):
                continue
            ended = change.run
            if ended.state == run_pb2.RUN_STATE_WAITING and ended.HasField("question"):
                asked = ended.question.SerializeToString(deterministic=True)
                if asked not in seen:
                    seen.add(asked)
                    view.pause()
                    await _ask(terminal, client, name, ended.question)
    finally:
        view.close()
    if ended is None or ended.state not in _STATUS:
        raise FailedPrecondition("WATCH_ENDED", f"The server stopped telling about {name} before the run had ended.")
    return await client.get(name)


async def _ask(terminal: Terminal, client: RunClient, name: str, question: run_pb2.Question) -> None:
    """Shows a question, and answers it where somebody is there to be asked."""
    display.question(terminal.err, question, name)
    if not terminal.interactive:
        return
    try:
        await client.choose(name, question.id, await _answer(terminal, question))
    except FailedPrecondition as error:
        terminal.say(error.message)  # it was answered elsewhere in the meantime


async def _answer(terminal: Terminal, question: run_pb2.Question) -> str:
    """The chosen option's value; an empty line takes the first."""
    while True:
        typed = (await terminal.read_line(f"Your choice, 1 to {len(question.options)} [1]: ")).strip() or "1"
        if typed.isdigit() and 1 <= int(typed) <= len(question.options):
            return question.options[int(typed) - 1].value
        if typed in {option.value for option in question.options}:
            return typed
        if question.open:
            try:
                return attributes.told(attributes.parse(attributes.typed(typed)))
            except P2MError as error:
                terminal.say(display.clean(error.message))
                continue
        terminal.say(f"{display.clean(typed)!r} is none of them.")


async def _interrupted(terminal: Terminal, client: RunClient, name: str, connect: str) -> int:
    _uncancel()
    if connect:
        terminal.say(f"The run goes on at {connect}. See it: p2m watch {name} --connect {connect}")
        return STOPPED
    with contextlib.suppress(P2MError, TimeoutError):
        await asyncio.wait_for(client.cancel(name), _CANCEL_TIMEOUT_S)
    terminal.say(f"Run {name} is stopped and nothing finished is lost. Run the same command again to go on.")
    terminal.say(f"The rows so far: p2m data {name} --out FILE")
    return STOPPED


async def _conclude(terminal: Terminal, settings: Settings, run: run_pb2.Run, out: Path | None, as_json: bool) -> int:
    """The result's folder, the summary, the final JSON line."""
    folder = await asyncio.to_thread(results.fetch, settings, run, out) if out and run.HasField("result") else None
    record = (
        json.loads((folder / "run.json").read_text()) if folder else await asyncio.to_thread(_record, settings, run)
    )
    summary.ending(terminal.err, run, record, folder)
    if as_json:
        parts = {"folder": str(folder.absolute()), "report": str((folder / "report.html").absolute())} if folder else {}
        measured = {"evaluation": record.get("evaluation")} if record else {}
        print(json.dumps(_plain(run) | parts | measured, ensure_ascii=False), file=terminal.out, flush=True)
    return _STATUS[run.state]


def _record(settings: Settings, run: run_pb2.Run) -> dict[str, Any]:
    """run.json of a finished run; {} where there is none or its store is not this one."""
    if not run.HasField("result"):
        return {}
    try:
        return results.record(settings, run)
    except P2MError:
        return {}


def _plain(run: run_pb2.Run) -> dict[str, Any]:
    """A run as JSON: fields as in the proto, states as one lower-case word."""
    plain: dict[str, Any] = MessageToDict(run, preserving_proto_field_name=True)
    plain["state"] = summary.state_word(run)
    for stage, message in zip(plain.get("stages", []), run.stages, strict=True):
        stage["state"] = run_pb2.StageState.Name(message.state).removeprefix("STAGE_STATE_").lower()
    return plain


def _uncancel() -> None:
    """What follows may wait again: the interrupt has been heard."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
