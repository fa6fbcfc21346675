"""One command on a person's terminal: settings, the log, interrupts, errors as one clear message.

execute(command)      runs `async command(terminal, settings)` and returns the exit status
reached(...)          a RunClient: of `--connect HOST:PORT`, or of this machine's own runs
    services(...)         some of the six services, started here
    with_hub(...)         the settings, offline where the hub is out of reach
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

from orchestrator.client import RunClient
from orchestrator.terminal import FAILED, STOPPED, Terminal, quiet, status_of
from services.kit import logs
from services.kit.errors import InvalidArgument, P2MError, Unavailable
from services.kit.settings import SERVICES, Settings
from services.kit.tokens import with_own_token

log = logging.getLogger(__name__)

Command = Callable[[Terminal, Settings], Awaitable[int]]
_CONNECT_TIMEOUT_S = 5.0
_HUB_TIMEOUT_S = 4.0


def execute(command: Command) -> int:
    """Runs a command to its exit status. No traceback reaches the terminal: what nobody foresaw goes to the log."""
    settings = load_settings()
    with quiet(settings.home_folder / "p2m.log", settings.log_level) as terminal:
        if settings.log_format == "json":
            logs.as_json()
        try:
            return asyncio.run(_interruptible(command, terminal, settings))
        except P2MError as error:
            log.error("%s: %s", error.reason, error.message)
            terminal.say(f"p2m: {error.message}")
            return status_of(error)
        except (KeyboardInterrupt, asyncio.CancelledError):
            terminal.say("Stopped.")
            return STOPPED
        except BrokenPipeError:
            return FAILED
        except Exception as error:
            log.exception("unforeseen error")
            terminal.say(f"p2m: this is a bug in p2m ({type(error).__name__}: {error}). Details are in {terminal.log}")
            return FAILED


def load_settings() -> Settings:
    """The settings out of the environment; InvalidArgument that names each wrong variable."""
    from pydantic import ValidationError

    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"P2M_{str(e['loc'][0]).upper().removeprefix('P2M_')}: {e['msg']}" for e in error.errors())
        raise InvalidArgument("BAD_SETTING", f"The environment has a wrong setting. {wrong}.") from None


@contextlib.asynccontextmanager
async def reached(connect: str, settings: Settings) -> AsyncIterator[RunClient]:
    """A client of RunService at `connect`, or, where that is empty, of one in this process that only reads and writes
    the runs of this machine. Unavailable where nobody answers."""
    if connect:
        async with RunClient(connect, settings) as client:
            await check_serving(connect, settings)
            yield client
        return
    settings = with_own_token(settings)
    async with alone(settings) as target, RunClient(target, settings) as client:
        yield client


@contextlib.asynccontextmanager
async def alone(settings: Settings) -> AsyncIterator[str]:
    """RunService by itself on a free port, for calls that need no other service: all runs are in the database."""
    from orchestrator.service import RunService
    from services.kit.server import Server

    server = Server(RunService(settings, adopt=False), settings)
    try:
        await server.start(0)
        yield f"{settings.host}:{server.port}"
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def services(settings: Settings, *names: str) -> AsyncIterator[dict[str, str]]:
    """Targets of just these services: those that the settings name, the others started here, without an LLM."""
    from orchestrator.local import hosted

    # A service whose target is set is not started, and where an LLM is set none is either.
    others = {f"{name}_target": settings.target(name) for name in SERVICES if name not in names}
    llm = {} if settings.openai_base_url else {"openai_base_url": "http://127.0.0.1:9"}
    async with hosted(settings.model_copy(update=others | llm)) as stack:
        yield stack.targets


async def with_hub(terminal: Terminal, settings: Settings) -> Settings:
    """The settings, offline where the hub does not answer: a model that cannot be fetched must not be chosen."""
    if settings.hub_offline:
        return settings
    import httpx

    try:
        async with httpx.AsyncClient(timeout=_HUB_TIMEOUT_S) as client:
            await asyncio.wait_for(client.head(settings.hub_url), _HUB_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        log.warning("%s does not answer: %r", settings.hub_url, error)
        terminal.say(f"{settings.hub_url} does not answer: going on with the models and datasets on this machine.")
        return settings.model_copy(update={"hub_offline": True})
    return settings


async def check_serving(target: str, settings: Settings) -> None:
    """Returns when the server at `target` is SERVING; Unavailable, with what to look at, when it is not soon."""
    from services.kit.channel import dial, wait_until_serving

    channel = dial(target, settings)
    try:
        await wait_until_serving(channel, _CONNECT_TIMEOUT_S)
    except P2MError as error:
        raise Unavailable(
            "NO_RUN_SERVICE",
            f"Nobody answers at {target}. Start the services there (p2m up), or check the address and the TLS "
            "settings.",
        ) from error
    finally:
        await channel.close()


async def _interruptible(command: Command, terminal: Terminal, settings: Settings) -> int:
    """Ctrl-C and SIGTERM cancel the command, which then ends cleanly; a second one ends the process."""
    task = asyncio.ensure_future(command(terminal, settings))
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            terminal.say("Stopped at once. What is stored is kept.")
            os._exit(STOPPED)
        terminal.say("\nStopping; what is done is kept. (Ctrl-C again: at once.)")
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    return await task
