"""A stack to run on: the house with services that do nothing, so that a test of runs takes a second.

idle_runs(before)      an async context: a RunClient, the work counted, the stack
finished(client, name) the run once it has ended
until(client, name, reached) the run once it is so
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from p2m.run.v1 import run_pb2

from bench.idle import Before, idle
from orchestrator.client import RunClient
from orchestrator.local import LocalStack, hosted
from services.kit.artifacts import Artifacts
from services.kit.settings import Settings
from services.kit.values import Artifact
from tests.support.seaweed import Seaweed, seaweed

PROMPT = "Name the colour in the sentence."
# Nobody is asked: what the services do is none of these tests' matter, but a set endpoint keeps the small LLM out.
NO_LLM = "http://127.0.0.1:9/v1"


@dataclass
class Idle:
    """A hosted stack of idle services."""

    client: RunClient
    calls: Counter[str]
    """The work done, by "<service>.<Request>"."""
    stack: LocalStack
    settings: Settings
    """Those of the home, with the services' targets: for another orchestrator beside this one."""


IdleRuns = Callable[..., AbstractAsyncContextManager[Idle]]


@pytest.fixture
def idle_settings(settings: Settings) -> Settings:
    """Settings of a home of the test's own, with a short grace."""
    return settings.model_copy(update={"openai_base_url": NO_LLM, "grace_s": 2.0})


@pytest.fixture
def idle_runs(idle_settings: Settings) -> IdleRuns:
    """Hosts RunService over idle services; `before` is `bench.idle`'s."""

    @asynccontextmanager
    async def host(before: Before | None = None, *, adopt: bool = False) -> AsyncIterator[Idle]:
        calls: Counter[str] = Counter()
        async with idle(idle_settings, calls, before) as targets:
            settings = idle_settings.model_copy(update=targets)
            async with hosted(settings, adopt=adopt) as stack, RunClient(stack.run_target, stack.settings) as client:
                yield Idle(client, calls, stack, settings)

    return host


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server of the session's own."""
    with seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


async def finished(client: RunClient, name: str, timeout_s: float = 60.0) -> run_pb2.Run:
    """The run once it has ended."""
    async with asyncio.timeout(timeout_s):
        async for _ in client.watch(name):
            pass
        return await client.get(name)


async def until(
    client: RunClient, name: str, reached: Callable[[run_pb2.Run], bool], timeout_s: float = 60.0
) -> run_pb2.Run:
    """The run once `reached` holds of it."""
    async with asyncio.timeout(timeout_s):
        while not reached(run := await client.get(name)):
            await asyncio.sleep(0.05)
        return run


def stage(run: run_pb2.Run, name: str) -> run_pb2.Stage:
    """One stage of a run."""
    return next(one for one in run.stages if one.name == name)


def read_record(store: Artifacts, result: Artifact) -> dict[str, Any]:
    """run.json of a run's result."""
    files = {entry["path"]: entry for entry in json.loads(store.read_bytes(result))["files"]}
    digest = files["run.json"]["sha256"]
    service = result.uri.removeprefix("p2m://").partition("/")[0]
    return dict(json.loads(store.read_bytes(Artifact(f"p2m://{service}/blobs/sha256/{digest}", digest))))
