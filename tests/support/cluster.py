"""The whole system as processes that may be killed, over links that may break.

    async with cluster(folder) as system:      SeaweedFS, PostgreSQL, six services, two orchestrators, an LLM

    client ── orchestrator a, b ──┬── service ──┬── store
                    │             │             └── teacher
                 database       store
      every line but the client's goes through a proxy: system.links["generator" | "store" | "teacher" | ...]

The services are the tests' small ones (`small`), or the real ones. Every process carries the mark of its cluster in its
environment, so that those that are left over can be found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from catalogue.build import build_one
from orchestrator.client import RunClient
from services.kit.channel import dial, wait_until_serving
from services.kit.settings import SERVICES, Settings
from tests.conftest import ROOT
from tests.support.postgres import Postgres, postgres
from tests.support.processes import is_alive
from tests.support.proxy import Proxy
from tests.support.seaweed import Seaweed, free_ports, seaweed
from tests.support.teacher import ScriptedTeacher, prompt_of, toy_example

ORCHESTRATORS = ("orchestrator-a", "orchestrator-b")
STORE, OWN_STORE, DATABASE, TEACHER = "store", "store-of-orchestrators", "database", "teacher"
LINKS = (*SERVICES, STORE, OWN_STORE, DATABASE, TEACHER)
# The second orchestrator's own way to the database: the first one's is DATABASE.
OTHER_DATABASE = "database-of-b"
# The dataset that the real services' catalogue has beside the starter's.
DATASET = "tests/colours"
READY_WITHIN_S = 120.0
_MARK = "P2M_FAULTS_MARK"
_ANSWER_S = 0.02


@dataclass
class System:
    """What `cluster` started."""

    folder: Path
    settings: Settings
    """Those of the tests themselves: the store and the database without a proxy between."""
    store: Seaweed
    database: Postgres
    links: dict[str, Proxy]
    real: bool
    apart: bool = False
    """Whether the orchestrators are to take each other for processes of other machines."""
    ports: dict[str, int] = field(default_factory=dict)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    asked: list[tuple[float, str]] = field(default_factory=list)
    """When the LLM answered whom: the text of each question."""
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    clients: dict[str, RunClient] = field(default_factory=dict)
    _events: list[dict[str, Any]] = field(default_factory=list)
    _read: int = 0

    async def start(self, who: str) -> None:
        """Starts a service or an orchestrator; it may not be ready yet."""
        module = "orchestrator.serve" if who in ORCHESTRATORS else "tests.support.small"
        if self.real and who in SERVICES:
            module = f"services.{who}"
        with (self.folder / f"{who}.log").open("ab") as log:
            self.processes[who] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.support.killable", str(self.folder), who, module,
                cwd=ROOT, env=os.environ | self.environments[who], stdout=log, stderr=log,
            )  # fmt: skip

    async def ready(self, who: str) -> None:
        """Returns once it is SERVING; RuntimeError with the end of its log where it ends before, or takes too long."""
        channel = dial(f"127.0.0.1:{self.ports[who]}", self.settings)
        serving = asyncio.ensure_future(wait_until_serving(channel, READY_WITHIN_S))
        ended = asyncio.ensure_future(self.processes[who].wait())
        try:
            await asyncio.wait([serving, ended], return_when=asyncio.FIRST_COMPLETED)
            if not serving.done() or serving.exception() is not None:
                raise RuntimeError(f"{who} is not ready:\n{(self.folder / f'{who}.log').read_text()[-3000:]}")
        finally:
            for waiting in (serving, ended):
                waiting.cancel()
            await asyncio.gather(serving, ended, return_exceptions=True)
            await channel.close()

    async def ended(self, who: str) -> None:
        """Returns once its process is gone."""
        await self.processes[who].wait()

    def events(self) -> list[dict[str, Any]]:
        """What the parts have written down, in order."""
        file = self.folder / "events.jsonl"
        if file.exists():
            with file.open("rb") as lines:
                lines.seek(self._read)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self._events.append(json.loads(line))
        return self._events

    def left_over(self) -> list[int]:
        """Processes of this cluster that are neither its parts nor the children of living ones."""
        parts = {one.pid for one in self.processes.values() if one.returncode is None}
        return [pid for pid in _marked(self.mark) if pid not in parts and not _descends(pid, parts)]


@contextlib.asynccontextmanager
async def cluster(folder: Path, *, real: bool = False, apart: bool = False) -> AsyncIterator[System]:
    """Everything SERVING. `real`: the six real services; `apart`: see `System`."""
    (folder / "s3").mkdir(parents=True)
    async with contextlib.AsyncExitStack() as stack:
        store = stack.enter_context(seaweed(folder / "s3"))
        database = stack.enter_context(postgres())
        own = await asyncio.to_thread(_settings, folder, store, database)
        system = System(folder, own, store, database, {}, real, apart)
        teacher = await stack.enter_async_context(_teacher(system))
        wanted = SERVICES + ORCHESTRATORS
        system.ports = dict(zip(wanted, free_ports(len(wanted)), strict=True))
        ends = {name: system.ports[name] for name in SERVICES} | {
            STORE: int(store.endpoint.rpartition(":")[2]), OWN_STORE: int(store.endpoint.rpartition(":")[2]),
            DATABASE: database.port, OTHER_DATABASE: database.port, TEACHER: teacher.port,
        }  # fmt: skip
        for name, port in ends.items():
            system.links[name] = await stack.enter_async_context(Proxy("127.0.0.1", port))
        system.environments = {who: _environment(system, who) for who in wanted}
        if real:
            await _catalogue(system)
        stack.push_async_callback(_end, system)
        for who in wanted:
            await system.start(who)
        await asyncio.gather(*(system.ready(who) for who in wanted))
        for who in wanted[len(SERVICES) :]:
            client = RunClient(f"127.0.0.1:{system.ports[who]}", system.settings)
            system.clients[who] = await stack.enter_async_context(client)
        yield system


async def _catalogue(system: System) -> None:
    """A catalogue with one dataset more, which is on this machine: DATASET."""
    rows = system.folder / "colours"
    rows.mkdir()
    examples = [toy_example(random.Random(1000 + number)) for number in range(40)]
    (rows / "train.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    config = {
        "name": "default",
        "features": {"input": "string", "output": "string"},
        "splits": {"train": len(examples)},
    }
    entry = {
        "id": DATASET, "description": "Handfuls of words, and the colour in each.", "location": f"folder:{rows}",
        "configs": [config],
    }  # fmt: skip
    (system.folder / "datasets.jsonl").write_text(json.dumps(entry) + "\n")
    listed = [system.folder / "datasets.jsonl"]
    await build_one("datasets", listed, system.settings.catalogue_folder, system.settings)


def _settings(folder: Path, store: Seaweed, database: Postgres) -> Settings:
    return store.settings(folder / "home", database=database.url, grace_s=2.0, catalogue=folder / "catalogue")


def _teacher(system: System) -> ScriptedTeacher:
    """The LLM. The small services get an answer that names the question; the real ones the toy task's."""

    def answer(body: dict[str, Any], _: random.Random) -> Any:
        question = prompt_of(body)
        system.asked.append((time.time(), question))
        return None if system.real else {"text": f"the answer to {question}"}

    return ScriptedTeacher(answer, latency=_ANSWER_S)


def _environment(system: System, who: str) -> dict[str, str]:
    """A part's settings, as variables: it sees the others through the proxies."""
    links, settings = system.links, system.settings
    orchestrates = who in ORCHESTRATORS
    return {
        _MARK: system.mark, "P2M_FAULTS_SERVICE": who, "P2M_FAULTS_CHILD": str(system.folder),
        "P2M_FAULTS_APART": "1" if system.apart else "",
        "P2M_HOME": str(settings.home), "P2M_CATALOGUE": str(settings.catalogue), "P2M_PORT": str(system.ports[who]),
        "P2M_STORE": settings.store, "P2M_S3_ENDPOINT": links[OWN_STORE if orchestrates else STORE].address,
        "P2M_S3_ACCESS_KEY": settings.s3_access_key, "P2M_S3_SECRET_KEY": settings.s3_secret_key.get_secret_value(),
        "P2M_DATABASE": system.database.url_at(links[_database(who)].port), "P2M_GRACE_S": str(settings.grace_s),
        "OPENAI_BASE_URL": f"http://{links[TEACHER].address}/v1", "OPENAI_API_KEY": "a key", "HF_HUB_OFFLINE": "1",
        "P2M_LLM_CONCURRENCY": "4", "P2M_THREADS": "1",
        **{f"P2M_{name.upper()}_TARGET": links[name].address for name in SERVICES},
    }  # fmt: skip


def _database(who: str) -> str:
    return OTHER_DATABASE if who == ORCHESTRATORS[1] else DATABASE


async def _end(system: System) -> None:
    """SIGTERM to all; whoever is there after a while is killed."""
    living = [one for one in system.processes.values() if one.returncode is None]
    for process in living:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await asyncio.gather(*(process.wait() for process in living))
    for process in living:
        if process.returncode is None:
            process.kill()
            await process.wait()
    for pid in _marked(system.mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _marked(mark: str) -> list[int]:
    wanted, found = f"{_MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0") and is_alive(int(entry.name)):
                    found.append(int(entry.name))
    return found


def _descends(pid: int, parts: set[int]) -> bool:
    """Whether one of `parts` is the process's parent, or its parent's."""
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid in parts:
            return True
    return False
