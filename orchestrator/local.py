"""Everything on loopback in one process: the six services, RunService, and an LLM where none is configured.

    hosted(settings) -> LocalStack
    ├── the offline teacher, when no OpenAI endpoint or key is set and its packages are installed
    ├── six services on free ports (a service whose target is set in the settings is used, not started)
    └── RunService

Heavy work still runs in child processes of the services. This is the one place where the orchestrator imports services.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.kit.settings import Settings


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
    raise NotImplementedError
    yield
