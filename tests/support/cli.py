"""The command line as a person starts it: a process of its own, with a home of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    status: int
    out: str
    err: str


class Cli:
    """`p2m` in `folder`, with P2M_HOME in it and nothing of this process's own settings."""

    def __init__(self, folder: Path, targets: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.home = folder / "home"
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("P2M_", "OPENAI_", "DEEPL_", "HF_", "COLUMNS"))
        }
        self.environment = kept | {
            "P2M_HOME": str(self.home),
            "P2M_HUB_OFFLINE": "1",
            # A server that refuses: no test of the command line asks an LLM.
            "OPENAI_BASE_URL": "http://127.0.0.1:9",
            "PYTHONPATH": str(ROOT),
            **{f"P2M_{name.upper()}": target for name, target in (targets or {}).items()},
        }

    async def start(self, *arguments: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        """Starts `p2m` with these arguments."""
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "orchestrator", *arguments, cwd=self.folder, env=self.environment,
            stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def __call__(self, *arguments: str, stdin: bytes | None = None) -> Ended:
        """Runs `p2m` with these arguments to its end."""
        process = await self.start(
            *arguments, stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE
        )
        return await ended(process, stdin)


async def ended(process: asyncio.subprocess.Process, stdin: bytes | None = None) -> Ended:
    """Waits for a started command; ends it where it takes too long."""
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
