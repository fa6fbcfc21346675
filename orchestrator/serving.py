"""`p2m serve`: a run's model behind HTTP, as a REST service and as the demo's page, until stopped.

    serve(terminal, settings, wanted)
    ├── answering      the model in a child process
    ├── rest           /v1, /health, /docs
    └── demo.build     the page, at /

A run's folder is all it needs: no service, no store, no LLM. So it can be copied to another machine and served there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.answering import Answering
from orchestrator.terminal import DONE, Terminal
from services.kit.errors import FailedPrecondition, NotFound
from services.kit.settings import Settings
from services.kit.values import Demonstration, PromptSpec

AS_TRAINED = "model"
# How long those who are being answered may take when it is stopped.
_GRACE_S = 20


@dataclass(frozen=True)
class Wanted:
    """What `p2m serve` was asked for. `format` "": what the run recommends; `token` "": nobody is asked for one."""

    run: str
    host: str = "127.0.0.1"
    port: int = 8000
    format: str = ""
    token: str = ""
    page: bool = True
    connect: str = ""


async def serve(terminal: Terminal, settings: Settings, wanted: Wanted) -> int:
    """Serves until the person stops it; those who are being answered then still get their answer."""
    import uvicorn

    from orchestrator import rest

    class Server(uvicorn.Server):
        """Leaves the signals to the command, which stops it."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    async with _folder(settings, wanted) as folder:
        record = read_record(folder)
        model, served = choose(folder, record, wanted.format)
        with _bound(wanted.host, wanted.port) as opened:
            answering = Answering(model, spec_of(record), settings)
            app = rest.application(answering, record, served, wanted.token)
            if wanted.page:
                app = _with_page(app, folder, record, answering, wanted)
            server = Server(
                uvicorn.Config(
                    app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE_S, server_header=False
                )
            )
            serving = asyncio.create_task(server.serve(sockets=[opened]))
            try:
                terminal.say(f"Loading {served or 'the model as it was trained'} …")
                await answering.start()
                _tell(terminal, record, wanted, opened.getsockname()[1])
                await asyncio.wait([serving])  # not itself: a cancellation would reach it, and those it answers
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
            finally:
                server.should_exit = True
                await asyncio.gather(serving, return_exceptions=True)
                await answering.close()
    return DONE


def read_record(folder: Path) -> dict[str, Any]:
    """run.json of a run's folder. FailedPrecondition where it is none."""
    try:
        record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        spec_of(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(
            "NO_RUN_FOLDER", f"{folder} is no run's folder: its run.json cannot be read ({error})."
        ) from error
    return record


def choose(folder: Path, record: dict[str, Any], asked: str) -> tuple[Path, str]:
    """The folder of the model to serve and its format, "" as trained: what was asked for, else what is recommended."""
    exports = folder / "exports"
    there = sorted(path.name for path in exports.iterdir() if path.is_dir()) if exports.is_dir() else []
    recommended = (record.get("exports") or {}).get("recommended") or ""
    name = asked or (recommended if recommended in there else AS_TRAINED)
    if name == AS_TRAINED and (folder / AS_TRAINED).is_dir():
        return folder / AS_TRAINED, ""
    if name in there:
        return exports / name, name
    raise NotFound(
        "NO_SUCH_FORMAT",
        f"The run's folder has no {name}; it has {', '.join([AS_TRAINED, *there])}. Write it with: "
        f"p2m export {record['name']} --format {name} --out {exports / name}",
    )


def spec_of(record: dict[str, Any]) -> PromptSpec:
    """The task, as the model was trained on it."""
    spec = record["spec"]
    return PromptSpec(
        spec["instruction"],
        tuple(Demonstration(one["input"], one["output"]) for one in spec.get("demonstrations") or []),
        spec.get("language") or "en",
        spec.get("original_instruction") or "",
    )


def _with_page(app: Any, folder: Path, record: dict[str, Any], answering: Answering, wanted: Wanted) -> Any:
    """The application with the demo's page at /."""
    from orchestrator import demo

    async def predict(text: str) -> str:
        outputs, _ = await answering.answer((text,))
        return outputs[0]

    path = folder / "report.html"
    blocks = demo.build(record, path.read_text(encoding="utf-8") if path.is_file() else "", predict)
    return demo.mounted(app, blocks, wanted.token)


def _tell(terminal: Terminal, record: dict[str, Any], wanted: Wanted, port: int) -> None:
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    url = f"http://{host}:{port}"
    terminal.say(f"{record['name']} is served at {url}")
    terminal.say(f"  POST {url}/v1/predict   GET /v1/model, /health, /docs" + ("   page: /" if wanted.page else ""))
    if wanted.token:
        terminal.say("  /v1 asks for the token; the page too, as the password of the user p2m.")
    elif wanted.host not in ("127.0.0.1", "localhost", "::1"):
        terminal.say("  Everybody who reaches it can use it: P2M_SERVE_TOKEN or --token asks for a token.")
    terminal.say("Ctrl-C stops it.")


@contextlib.asynccontextmanager
async def _folder(settings: Settings, wanted: Wanted) -> AsyncIterator[Path]:
    """The run's folder: the one that is named, else the named run's, out of the store."""
    folder = Path(wanted.run)
    if await asyncio.to_thread((folder / "run.json").is_file):
        yield folder
        return
    if not wanted.connect and await asyncio.to_thread(folder.is_dir):
        raise FailedPrecondition("NO_RUN_FOLDER", f"{wanted.run} is no run's folder: it has no run.json.")
    from orchestrator import results
    from orchestrator.session import reached

    async with reached(wanted.connect, settings) as client:
        run = await client.get(wanted.run)
    with tempfile.TemporaryDirectory(prefix="p2m-serve-", ignore_cleanup_errors=True) as temporary:
        yield await asyncio.to_thread(results.fetch, settings, run, Path(temporary) / "run")


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket: bound before the model is loaded, so that a port that is taken is told at once."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise FailedPrecondition(
            "PORT_TAKEN", f"{host}:{port} cannot be served at: {error.strerror or error}. Try another --port; 0: any."
        ) from error
    with opened:
        yield opened
