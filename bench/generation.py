"""How fast the generator makes examples with a given teacher: one JSON line.

    python -m bench.generation --teacher URL --prompt-spec FILE --num N [--seed S] [--out FILE]

seconds           of the generator's own work, from the first request to the rows
items             rows made
unique            different inputs among them
requests          answers that were paid for
items_per_second
share_of_limit    of the teacher's requests a minute, in percent, by its own /stats; null where there is no limit
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from bench import replay
from services.kit.values import Progress


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True, metavar="URL", help="an OpenAI-compatible server")
    parser.add_argument("--prompt-spec", required=True, type=Path, metavar="FILE", help="instruction, demonstrations")
    parser.add_argument("--num", required=True, type=int, metavar="N", help="examples to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the rows here, as JSON lines")
    print(json.dumps(asyncio.run(_measure(parser.parse_args()))))
    return 0


async def _measure(args: argparse.Namespace) -> dict[str, float | None]:
    seconds, made = await replay.make(args.teacher, replay.read_spec(args.prompt_spec), args.num, args.seed, _report)
    print(f"\n{made.stop_reason.name}; left out: {made.dropped or 'none'}", file=sys.stderr)
    if args.out:
        lines = (json.dumps({"input": row.input, "output": row.output}, ensure_ascii=False) for row in made.rows)
        args.out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    share = (await replay.stats(args.teacher)).get("rpm_utilisation")
    return {
        "seconds": round(seconds, 3),
        "items": len(made.rows),
        "unique": len({row.input for row in made.rows}),
        "requests": made.ledger.requests,
        "items_per_second": round(len(made.rows) / seconds, 3),
        "share_of_limit": None if share is None else round(100 * share, 1),
    }


def _report(progress: Progress) -> None:
    print(f"\r{progress.message} ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
