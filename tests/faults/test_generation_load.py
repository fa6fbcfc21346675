"""Fifty generations at once in one replica, a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from p2m.generator.v1 import generator_pb2 as pb
from p2m.generator.v1.generator_pb2_grpc import GeneratorServiceStub

from services.kit.channel import dial, stream, wait_until_serving
from services.kit.settings import Settings
from tests.support.teacher import ScriptedTeacher, prompt_of, schema_of

JOBS, NUMBER = 50, 95


def _teacher(given: Counter[int]) -> ScriptedTeacher:
    """Every example is another; `given` counts them by job."""
    count = itertools.count()

    def examples(body: dict[str, Any], _: random.Random) -> Any:
        wanted = schema_of(body)[1]["properties"]["examples"]["maxItems"]
        found = re.search(r"thing of job (\d+)", prompt_of(body))
        assert found
        given[int(found[1])] += wanted
        return {"examples": [{"input": f"item {next(count)}", "output": "x"} for _ in range(wanted)]}

    return ScriptedTeacher({"examples": examples}, latency=0.2, max_concurrent=64)


def _request(job: int) -> pb.GenerateRequest:
    request = pb.GenerateRequest(request_id=f"load-{job}/generate", number=NUMBER)
    request.spec.instruction = f"Name the thing of job {job}."
    request.spec.demonstrations.add(input="a lamp on a table", output="lamp")
    return request


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def test_fifty_jobs_at_once(tmp_path: Path) -> None:
    """One replica holds 50 jobs within 1 GB, refuses none, and lets all progress: none is far behind at any's end."""
    port = _free_port()
    given = Counter[int]()
    async with _teacher(given) as teacher:
        own = {"P2M_HOME": str(tmp_path), "P2M_PORT": str(port), "OPENAI_BASE_URL": teacher.url, "OPENAI_API_KEY": ""}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.generator", env={**os.environ, **own}, stderr=asyncio.subprocess.DEVNULL
        )
        channel = dial(f"127.0.0.1:{port}", Settings(home=tmp_path))
        try:
            await wait_until_serving(channel, 60)
            stub = GeneratorServiceStub(channel)
            jobs = [asyncio.create_task(stream(stub.Generate, _request(job))) for job in range(JOBS)]
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            behind = min(given[job] for job in range(JOBS))
            results = await asyncio.gather(*jobs)
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            await channel.close()
            process.terminate()
            await process.wait()
    assert [result.rows for result in results] == [NUMBER] * JOBS
    peak_kb = int(status.partition("VmHWM:")[2].split()[0])
    print(f"{JOBS} jobs: {peak_kb / 1000:.0f} MB; at the first one's end the last had {behind} of {NUMBER}")
    assert peak_kb < 1_000_000
    assert behind >= 0.4 * NUMBER
