"""A process that starts a run over idle services and hangs in one stage, to be killed there.

    python -m tests.support.orchestrate NAME STAGE_REQUEST       for example colours trainer.TrainRequest

Settings come from the environment. It prints "ready" once RunService has the run, "hangs" once the stage is under way.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from p2m.run.v1 import run_pb2

from bench.idle import idle
from orchestrator.client import RunClient
from orchestrator.local import hosted
from services.kit.settings import Settings
from tests.integration.conftest import PROMPT


async def main(name: str, request: str) -> None:
    """Runs until it is killed."""
    settings = Settings()

    async def hang(_: Any) -> None:
        print("hangs", flush=True)
        await asyncio.sleep(3600)

    async with (
        idle(settings, before={request: hang}) as targets,
        hosted(settings.model_copy(update=targets)) as stack,
        RunClient(stack.run_target, stack.settings) as client,
    ):
        await client.start(name, PROMPT, run_pb2.RunOptions(number=4))
        print("ready", flush=True)
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
