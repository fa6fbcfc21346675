"""A service of ours replaced by a stranger's: tests/support/swapped_parser.py, forty lines behind the same proto."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from p2m.run.v1 import run_pb2

from bench.idle import idle
from orchestrator.client import RunClient
from orchestrator.local import hosted
from services.kit.artifacts import Artifacts
from services.kit.channel import dial, wait_until_serving
from services.kit.settings import Settings
from services.kit.values import Artifact
from services.kit.wire import from_message
from tests.conftest import ROOT
from tests.integration.conftest import finished, read_record
from tests.support.seaweed import free_ports
from tests.support.teacher import TOY_PROMPT


@asynccontextmanager
async def swapped(settings: Settings) -> AsyncIterator[str]:
    """host:port of the other parser, in a process of its own."""
    [port] = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.swapped_parser", cwd=ROOT, env=_environment(settings, P2M_PORT=str(port))
    )
    try:
        channel = dial(f"127.0.0.1:{port}", settings)
        await wait_until_serving(channel, 60)
        await channel.close()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def test_it_passes_the_contract_and_a_run_uses_it(idle_settings: Settings) -> None:
    """The parser's contract tests pass against it by --target, and a run whose parser it is says so."""
    async with swapped(idle_settings) as target:
        contract = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", "-q", "tests/contract/test_parser.py", "--target", f"parser={target}",
            cwd=ROOT, env=_environment(idle_settings), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(contract.communicate(), 200)
        assert contract.returncode == 0, said.decode()[-3000:]

        async with idle(idle_settings) as targets:
            targets["parser_target"] = target
            settings = idle_settings.model_copy(update=targets)
            async with hosted(settings) as stack, RunClient(stack.run_target, stack.settings) as client:
                await client.start("swapped", TOY_PROMPT, run_pb2.RunOptions(number=4))
                run = await finished(client, "swapped")
        record = read_record(Artifacts.open(settings, "run"), from_message(run.result, Artifact))
    assert record["spec"]["notes"] == ["Parsed by swapped rules alone."]
    assert len(record["spec"]["demonstrations"]) == 3


def _environment(settings: Settings, **more: str) -> dict[str, str]:
    home = str(settings.home_folder)
    return os.environ | {"P2M_HOME": home, "P2M_STORE": f"{home}/store"} | more
