"""A generation by batches in a process of its own, which a test may kill.

`python -m tests.faults.batch_job URL HOME NUMBER` prints {"rows": [[input, output]], "requests", "batched"}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from services.generator.generate import GenerateRequest, generate
from services.kit import wave
from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, Prefer, PromptSpec

SPEC = PromptSpec("Name the colour among the words.", (Demonstration("lamp red door", "red"),))


async def run(url: str, home: Path, number: int) -> None:
    own = Settings(home=home, store="", openai_base_url=url, openai_api_key="", llm_batch_look_s=0.02)
    teacher = Teacher(own, Artifacts.open(own, "generator"))
    session = teacher.session("run/generate", Allowance())
    request = GenerateRequest("run/generate", Allowance(), SPEC, number, prefer=Prefer.COST)
    try:
        made = await generate(request, session, "it", (), own)
    finally:
        await teacher.close()
    rows = [[row.input, row.output] for row in made.rows]
    print(json.dumps({"rows": rows, "requests": made.ledger.requests, "batched": made.batched}))


if __name__ == "__main__":
    wave._LISTED_S = 0.1  # the server lists at once what it took
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
