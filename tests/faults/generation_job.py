"""A generation in a process of its own, which a test may kill: `python -m tests.faults.generation_job URL HOME NUMBER`.

Prints {"rows": [[input, output]], "requests", "replayed"}.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from services.generator.generate import GenerateRequest, generate
from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, PromptSpec

SPEC = PromptSpec("Name the colour among the words.", (Demonstration("lamp red door", "red"),))
CONCURRENCY = 4


def settings(url: str, home: Path) -> Settings:
    """Four requests at once, a store in a folder."""
    return Settings(home=home, store="", openai_base_url=url, openai_api_key="", llm_concurrency=CONCURRENCY)


async def run(url: str, home: Path, number: int) -> None:
    own = settings(url, home)
    teacher = Teacher(own, Artifacts.open(own, "generator"))
    session = teacher.session("run/generate", Allowance())
    try:
        made = await generate(GenerateRequest("run/generate", Allowance(), SPEC, number), session, "it", (), own)
    finally:
        await teacher.close()
    rows = [[row.input, row.output] for row in made.rows]
    print(json.dumps({"rows": rows, "requests": made.ledger.requests, "replayed": made.ledger.replayed}))


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
