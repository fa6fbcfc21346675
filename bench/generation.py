"""How fast the generator makes examples with a given teacher: one JSON line.

    python -m bench.generation --teacher URL --prompt-spec FILE --num N [--seed S] [--out FILE]

seconds           of the generator's own work, from the first request to the rows
items             rows made
unique            different inputs among them
requests          answers that were paid for
items_per_second
share_of_limit    of the teacher's requests a minute, in percent, by its own /stats; null where there is no limit

The journal of paid answers is written as in a run, to a folder that is removed afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from services.generator.generate import Generated, GenerateRequest, generate
from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, Demonstration, Progress, PromptSpec


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, metavar="URL", help="an OpenAI-compatible server")
    parser.add_argument("--prompt-spec", required=True, type=Path, metavar="FILE", help="instruction, demonstrations")
    parser.add_argument("--num", required=True, type=int, metavar="N", help="examples to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows here, as JSON lines")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as home:
        settings = Settings(home=Path(home), store="", openai_base_url=args.teacher)
        seconds, made = asyncio.run(_measure(args.num, args.seed, _read_spec(args.prompt_spec), settings))
    if args.out:
        lines = (json.dumps({"input": row.input, "output": row.output}, ensure_ascii=False) for row in made.rows)
        args.out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(
        json.dumps(
            {
                "seconds": round(seconds, 3),
                "items": len(made.rows),
                "unique": len({row.input for row in made.rows}),
                "requests": made.ledger.requests,
                "items_per_second": round(len(made.rows) / seconds, 3),
                "share_of_limit": _share_of_limit(args.teacher),
            }
        )
    )
    return 0


async def _measure(number: int, seed: int, spec: PromptSpec, settings: Settings) -> tuple[float, Generated]:
    artifacts = Artifacts.open(settings, "generator")
    teacher = Teacher(settings, artifacts)

    def report(progress: Progress) -> None:
        print(f"\r{progress.message} ", end="", file=sys.stderr, flush=True)

    request = GenerateRequest("bench/generate", Allowance(), spec, number, seed=seed)
    session = teacher.session(request.request_id, request.allowance)
    started = time.perf_counter()
    try:
        made = await generate(request, session, teacher.name, (), settings, report)
        seconds = time.perf_counter() - started
    finally:
        await teacher.close()
    print(f"\n{made.stop_reason.name}; left out: {made.dropped or 'none'}", file=sys.stderr)
    return seconds, made


def _read_spec(path: Path) -> PromptSpec:
    plain = json.loads(path.read_text(encoding="utf-8"))
    demonstrations = tuple(Demonstration(one["input"], one["output"]) for one in plain["demonstrations"])
    return PromptSpec(plain["instruction"], demonstrations)


def _share_of_limit(url: str) -> float | None:
    """The teacher's own count, in percent; None where it keeps none or has no limit."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/').removesuffix('/v1')}/stats", timeout=5) as response:
            stats: dict[str, Any] = json.load(response)
    except (OSError, ValueError):
        return None
    share = stats.get("rpm_utilisation")
    return None if share is None else round(100 * share, 1)


if __name__ == "__main__":
    sys.exit(main())
