"""`p2m run` as a process of its own, so that it can be killed; and a teacher that outlives it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from orchestrator.database import open_engine
from orchestrator.runs import Runs
from services.kit.errors import NotFound
from services.kit.settings import Settings
from tests.conftest import ROOT


@dataclass
class Teacher:
    """A scripted teacher in a process of its own."""

    url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:
            return dict(json.load(answer))

    def requests(self) -> int:
        """All requests that came so far."""
        return int(self.stats()["requests"])


@asynccontextmanager
async def teacher(latency_s: float) -> AsyncIterator[Teacher]:
    """Serves for the length of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.teacher", "--latency", str(latency_s),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield Teacher((await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()[-1])
    finally:
        process.kill()
        await process.wait()


class Command:
    """One `p2m run`, again and again in the same home."""

    def __init__(self, home: Path, name: str, prompt: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.out = home / "out"
        self.log = home / "said.txt"
        home.mkdir(parents=True, exist_ok=True)
        (home / "prompt.txt").write_text(prompt)
        self._arguments = ["run", str(home / "prompt.txt"), "--name", name, "--out", str(self.out), *arguments]
        self._environment = os.environ | {"P2M_HOME": str(home / "home"), "HF_HUB_OFFLINE": "1"} | environment
        self._settings = Settings(home=home / "home")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "orchestrator", *self._arguments,
                cwd=ROOT, env=self._environment, stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        assert self._process.returncode is None, f"it has ended by itself:\n{self.log.read_text()[-3000:]}"
        self._process.kill()
        await self._process.wait()

    async def ended(self, timeout_s: float = 300.0) -> int:
        """The exit status, once it has ended."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), timeout_s)

    async def stop(self) -> None:
        """Ends what is left of it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def run(self) -> run_pb2.Run | None:
        """The run as its rows stand; None before there are any."""
        if not self._settings.home_folder.joinpath("runs.sqlite").exists():
            return None
        engine = open_engine(self._settings)
        try:
            runs = Runs(engine, "a test")
            runs.create_tables()
            return runs.get(self.name)
        except NotFound:
            return None
        finally:
            engine.dispose()

    async def reaches(self, stage: str, least: float = 0.0, timeout_s: float = 180.0) -> None:
        """Returns when a stage is under way and has done at least so much."""
        assert self._process is not None
        async with asyncio.timeout(timeout_s):
            while True:
                run = self.run()
                for one in run.stages if run else ():
                    under_way = one.name == stage and one.state == run_pb2.STAGE_STATE_RUNNING
                    if under_way and one.progress.done >= least:
                        return
                    assert one.name != stage or one.state != run_pb2.STAGE_STATE_DONE, f"{stage} was too fast"
                assert self._process.returncode is None, f"it has ended:\n{self.log.read_text()[-3000:]}"
                await asyncio.sleep(0.02)

    def attempts(self) -> dict[str, str]:
        """Which attempt each stage request is at, by its key: a stage that is run again has another one."""
        store = self._settings.home_folder / "store"
        return {
            str(path.relative_to(store)): path.read_text() for path in store.glob("*/attempts/**/*") if path.is_file()
        }
