"""The six services as six processes, with mutual TLS and an S3 server, do what they do in one process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from orchestrator.client import RunClient
from orchestrator.local import hosted
from services.kit.artifacts import Artifacts
from services.kit.authority import Authority
from services.kit.channel import dial, wait_until_serving
from services.kit.settings import SERVICES, Settings
from services.kit.values import Artifact
from services.kit.wire import from_message
from tests.conftest import ROOT
from tests.integration.conftest import finished, read_record
from tests.support.models import tiny_t5
from tests.support.seaweed import free_ports, seaweed
from tests.support.teacher import TOY_PROMPT, ScriptedTeacher

_READY_WITHIN_S = 120.0


@asynccontextmanager
async def six_processes(settings: Settings) -> AsyncIterator[Settings]:
    """`python -m services.<name>` for each, with these settings; yields them with the targets."""
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    plain = {f"P2M_{name.upper()}": str(value) for name, value in settings.reveal().items() if value not in (None, "")}
    # These two are read under their usual names.
    plain |= {"OPENAI_BASE_URL": plain.pop("P2M_OPENAI_BASE_URL"), "OPENAI_API_KEY": plain.pop("P2M_OPENAI_API_KEY")}
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"services.{name}", cwd=ROOT, env=os.environ | plain | {"P2M_PORT": str(port)}
        )
        for name, port in ports.items()
    ]
    targets = {f"{name}_target": f"localhost:{port}" for name, port in ports.items()}
    try:
        for target in targets.values():
            channel = dial(target, settings)
            await wait_until_serving(channel, _READY_WITHIN_S)
            await channel.close()
        yield settings.model_copy(update=targets)
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in processes:
            await process.wait()


async def run_on(settings: Settings, model: Path) -> dict[str, Artifact]:
    """The artifacts of a whole run of the toy task."""
    options = run_pb2.RunOptions(
        number=60, skip_datasets=True, model=f"folder:{model}", epochs=3, teacher_rows=10, seed=7
    )
    async with hosted(settings) as stack, RunClient(stack.run_target, stack.settings) as client:
        await client.start("same", TOY_PROMPT, options)
        run = await finished(client, "same", timeout_s=400)
        assert run.state == run_pb2.RUN_STATE_SUCCEEDED, run.error
        record = await asyncio.to_thread(
            read_record, Artifacts.open(settings, "run"), from_message(run.result, Artifact)
        )
    weights = Artifact(sha256=record["training"]["weights_sha256"])
    return {name: Artifact(**artifact) for name, artifact in record["artifacts"].items()} | {"weights": weights}


async def test_one_process_and_six_give_the_same_bytes(tmp_path: Path) -> None:
    """Given the same answers, a run in one process and one over six with TLS and S3 have equal data and weights."""
    model = tiny_t5(tmp_path / "tiny")
    own: dict[str, Any] = {"openai_api_key": "a key", "threads": 1, "grace_s": 3.0, "hub_offline": True}
    own["catalogue"] = tmp_path / "catalogue"
    # How many examples a request asks for follows the LLM's pace; one request at a time, it is the same everywhere.
    own["llm_concurrency"] = 1
    async with ScriptedTeacher() as teacher:
        here = await run_on(Settings(**own, openai_base_url=teacher.url, home=tmp_path / "alone"), model)
    issued = Authority(tmp_path / "authority").issue("localhost")
    tls = {"ca": issued / "ca.pem", "certificate": issued / "certificate.pem", "key": issued / "key.pem"}
    (tmp_path / "s3").mkdir()
    with seaweed(tmp_path / "s3") as server:
        async with ScriptedTeacher() as teacher:
            apart = server.settings(
                tmp_path / "apart",
                **{f"tls_{part}": path for part, path in tls.items()},
                **own,
                openai_base_url=teacher.url,
            )
            async with six_processes(apart) as settings_of_six:
                there = await run_on(settings_of_six, model)
    assert {name: artifact.sha256 for name, artifact in there.items()} == {
        name: artifact.sha256 for name, artifact in here.items()
    }
