"""A replay teacher as a process of its own, and the generator at work with it: what the benches of generation share.

    add_arguments, missing      the command line's part: the teacher's script, what it replays, the prompt
    teacher                     a fresh teacher with given options; its URL
    make                        the generator's rows and seconds
    stats                       what the teacher counted

The script is started as `FILE --examples FILE --prompt-spec FILE [options]` and prints its URL. The journal of paid
answers is written as in a run, to a folder that is removed afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai  # noqa: F401  its import, half a second, is not the generator's work

from services.generator.generate import Generated, GenerateRequest, generate
from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, Progress, PromptSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--teacher-script, --examples and --prompt-spec."""
    parser.add_argument("--teacher-script", required=True, type=Path, metavar="FILE", help="a replay teacher")
    parser.add_argument("--examples", required=True, type=Path, metavar="FILE", help="what it replays, JSONL or .gz")
    parser.add_argument("--prompt-spec", required=True, type=Path, metavar="FILE", help="instruction, demonstrations")


def missing(*files: Path) -> str:
    """Which file is not there; "" where all are."""
    return next((f"there is no file {file}" for file in files if not file.is_file()), "")


def read_spec(path: Path) -> PromptSpec:
    """The prompt of a file {"instruction", "demonstrations": [{"input", "output"}]}."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    demonstrations = tuple(Demonstration(one["input"], one["output"]) for one in plain["demonstrations"])
    return PromptSpec(plain["instruction"], demonstrations)


@contextlib.asynccontextmanager
async def teacher(args: argparse.Namespace, *options: str) -> AsyncIterator[str]:
    """The URL of a teacher that was started for this block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(args.teacher_script), "--examples", str(args.examples), "--prompt-spec",
        str(args.prompt_spec), *options, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.terminate()
        await process.wait()


async def make(
    url: str,
    spec: PromptSpec,
    number: int,
    seed: int = 0,
    report: Callable[[Progress], None] = lambda _: None,
    **settings: Any,
) -> tuple[float, Generated]:
    """Seconds of the generator's own work, from the first request to the rows; and what it made."""
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as home:
        own = Settings(home=Path(home), store="", openai_base_url=url, **settings)
        llm = Teacher(own, Artifacts.open(own, "generator"))
        request = GenerateRequest("bench/generate", Allowance(), spec, number, seed=seed)
        session = llm.session(request.request_id, request.allowance)
        started = time.perf_counter()
        try:
            made = await generate(request, session, llm.name, (), own, report)
            return time.perf_counter() - started, made
        finally:
            await llm.close()


async def stats(url: str) -> dict[str, Any]:
    """The teacher's /stats; {} where it has none."""
    try:
        answer = await asyncio.to_thread(urllib.request.urlopen, f"{url.rstrip('/').removesuffix('/v1')}/stats")
        found: dict[str, Any] = json.load(answer)
    except (OSError, ValueError):
        return {}
    return found
