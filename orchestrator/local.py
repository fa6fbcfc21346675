"""Everything on loopback in one process: the six services, RunService, and an LLM where none is configured.

    hosted(settings) -> LocalStack
    ├── the offline teacher, when no OpenAI endpoint or key is set and its packages are installed
    ├── six services on free ports (a service whose target is set in the settings is used, not started)
    └── RunService

Heavy work still runs in child processes of the services. This is the one place where the orchestrator imports services.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from orchestrator.service import RunService
from services.kit import offline_teacher, telemetry
from services.kit.server import Server
from services.kit.settings import SERVICES, Settings
from services.kit.tokens import with_own_token

# Two busy cores write a few tokens a second.
_OFFLINE_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class LocalStack:
    """What `hosted` started."""

    run_target: str
    """host:port of RunService."""
    targets: dict[str, str]
    """host:port of each of the six services, by name."""
    settings: Settings
    """The given settings with these targets and the LLM in use."""
    offline_teacher: bool
    """Whether the LLM is the small one that ships with the packages."""


@asynccontextmanager
async def hosted(
    settings: Settings, *, ports: Mapping[str, int] | None = None, adopt: bool = False
) -> AsyncIterator[LocalStack]:
    """Everything SERVING on loopback for the length of an `async with` block.

    `ports` names the port of each service and of "run" (absent: any free one; `p2m up` gives the usual ones). `adopt`:
    also take over unfinished runs of orchestrators that died (`p2m up`); otherwise only those that Start names.
    Leaving the block stops runs under way without losing anything: the same Start goes on with them.

    Raises FailedPrecondition when a port is taken, and what a service's warm-up raises.
    """
    ports, settings = ports or {}, with_own_token(settings)
    async with AsyncExitStack() as stack:
        if telemetry.start(settings, "p2m"):
            stack.push_async_callback(asyncio.to_thread, telemetry.stop)
        given = {name: target for name in SERVICES if (target := getattr(settings, f"{name}_target"))}
        own = [name for name in SERVICES if name not in given]
        (settings, offline), _ = await asyncio.gather(_with_llm(settings, stack), asyncio.to_thread(_import, own))
        servers = {name: Server(_service(name, settings), settings) for name in own}
        for server in servers.values():
            stack.push_async_callback(server.stop)
        await asyncio.gather(*(server.start(ports.get(name, 0)) for name, server in servers.items()))
        targets = {**given, **{name: f"{settings.host}:{server.port}" for name, server in servers.items()}}
        settings = settings.model_copy(update={f"{name}_target": target for name, target in targets.items()})
        runs = Server(RunService(settings, adopt=adopt), settings)
        stack.push_async_callback(runs.stop)
        await runs.start(ports.get("run", 0))
        yield LocalStack(f"{settings.host}:{runs.port}", targets, settings, offline)


def _import(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(f"services.{name}.service")


def _service(name: str, settings: Settings) -> Any:
    module = importlib.import_module(f"services.{name}.service")
    class_name = "".join(word.capitalize() for word in name.split("_")) + "Service"
    return getattr(module, class_name)(settings)


async def _with_llm(settings: Settings, stack: AsyncExitStack) -> tuple[Settings, bool]:
    """The settings with an LLM: their own, else the small one of the offline packages, where they are installed."""
    if settings.openai_base_url or settings.openai_api_key.get_secret_value():
        return settings, False
    if offline_teacher.missing():
        return settings, False
    teacher = await offline_teacher.start(settings.threads)
    stack.push_async_callback(teacher.stop)
    its_own = {
        "openai_base_url": teacher.base_url,
        "llm": offline_teacher.NAME,
        "llm_context_tokens": offline_teacher.CONTEXT_TOKENS,
        "llm_concurrency": offline_teacher.PARALLEL,
        "llm_timeout_s": max(settings.llm_timeout_s, _OFFLINE_TIMEOUT_S),
        "rerank": False,
    }
    return settings.model_copy(update=its_own), True
