"""How much of a rate limit the generator uses, and whether it is refused: one JSON line.

    python -m bench.generation_limit --teacher-script FILE --examples FILE --prompt-spec FILE [--rpm R] [--num N ...]

jobs        by number of examples: share_of_limit, in percent, over the steady part: from the second second, when the
            server has told the limit, until nine in ten requests were sent: the last ones wait for the answers that
            tell whether they are needed; refused, 429s in all; refused_late, those after ten seconds; requests; seconds
seconds     of all runs together

Without the script it prints {"skipped": why}.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from typing import Any

from bench import replay
from services.kit.values import PromptSpec

LATENCY = ("--latency-mean", "1.2", "--token-latency", "0.005")
LOOK_S = 0.2
# The steady part begins so long after the first request; a refusal so long after it is a late one.
STEADY_S, LATE_S = 2.0, 10.0
NEARLY_ALL = 0.9


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    replay.add_arguments(parser)
    parser.add_argument("--rpm", type=int, default=600, metavar="R", help="requests a minute that the teacher lets in")
    parser.add_argument("--num", type=int, nargs="+", default=[200, 2_000], metavar="N", help="examples to make")
    args = parser.parse_args()
    skipped = replay.missing(args.teacher_script, args.examples)
    print(json.dumps({"skipped": skipped} if skipped else asyncio.run(_measure(args))))
    return 0


async def _measure(args: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    spec = replay.read_spec(args.prompt_spec)
    jobs = {str(number): await _job(args, spec, number) for number in args.num}
    return {"jobs": jobs, "seconds": round(time.perf_counter() - started, 1)}


async def _job(args: argparse.Namespace, spec: PromptSpec, number: int) -> dict[str, float]:
    looks: list[tuple[float, int, int]] = []  # when; admitted and refused until then

    async def watch(url: str) -> None:
        while True:
            found = await replay.stats(url)
            if found["admitted"]:
                looks.append((time.monotonic(), found["admitted"], found["rate_limited"]))
            await asyncio.sleep(LOOK_S)

    async with replay.teacher(args, "--rpm", str(args.rpm), *LATENCY) as url:
        watching = asyncio.create_task(watch(url))
        seconds, made = await replay.make(url, spec, number)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    began, last = looks[0][0], looks[-1][1]
    steady = [look for look in looks if look[0] >= began + STEADY_S]
    end = next(look for look in steady if look[1] >= NEARLY_ALL * last)
    let_in = args.rpm / 60 * (end[0] - steady[0][0])
    late = [look[2] for look in looks if look[0] <= began + LATE_S]
    return {
        "share_of_limit": round(100 * (end[1] - steady[0][1]) / let_in, 1) if let_in else 0.0,
        "refused": looks[-1][2],
        "refused_late": looks[-1][2] - late[-1],
        "requests": made.ledger.requests,
        "seconds": round(seconds, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
