"""How near the generator comes to the best fixed concurrency of a server that queues in silence: one JSON line.

    python -m bench.generation_concurrency --teacher-script FILE --examples FILE --prompt-spec FILE [--jobs N:E ...]

For each job N:E, E examples are made with a teacher that serves N requests at once and lets the others wait, without a
word: once by a generator that knows nothing of N (found), and once each with P2M_LLM_CONCURRENCY set to N and to twice
N (fixed), one after the other, each with a fresh teacher. Latencies are a quarter of those of the other benches (0.3 s
a request and 1.25 ms a token), which changes no ratio.

share_of_best       the least of the jobs' shares, in percent
jobs                by job: found and fixed (the better one), in examples per second; share, in percent
seconds             of all runs together

Without the script it prints {"skipped": why}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from typing import Any

from bench import replay
from services.kit.values import PromptSpec

JOBS = ("4:200", "8:400", "24:1200")
LATENCY = ("--latency-mean", "0.3", "--token-latency", "0.00125")


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    replay.add_arguments(parser)
    parser.add_argument("--jobs", nargs="+", default=JOBS, metavar="N:E", help="places of the server: examples to make")
    parser.add_argument("--seeds", type=int, default=2, metavar="S", help="seeds to take the mean of")
    args = parser.parse_args()
    skipped = replay.missing(args.teacher_script, args.examples)
    print(json.dumps({"skipped": skipped} if skipped else asyncio.run(_measure(args))))
    return 0


async def _measure(args: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    spec = replay.read_spec(args.prompt_spec)
    jobs: dict[str, dict[str, float]] = {}
    for job in args.jobs:
        places, number = map(int, job.split(":"))
        rates: dict[int | None, list[float]] = {None: [], places: [], 2 * places: []}
        for seed in range(args.seeds):
            for fixed, found in rates.items():
                found.append(await _rate(args, spec, places, number, seed, fixed))
                print(f"{job}, seed {seed}, {fixed or 'not told'}: {found[-1]:.2f} examples/s", file=sys.stderr)
        means = [statistics.mean(each) for each in rates.values()]
        untold, told = means[0], max(means[1:])
        jobs[job] = {"found": round(untold, 2), "fixed": round(told, 2), "share": round(100 * untold / told, 1)}
    return {
        "share_of_best": min(one["share"] for one in jobs.values()),
        "jobs": jobs,
        "seconds": round(time.perf_counter() - started, 1),
    }


async def _rate(
    args: argparse.Namespace, spec: PromptSpec, places: int, number: int, seed: int, fixed: int | None
) -> float:
    """Examples a second of one run."""
    told: dict[str, Any] = {} if fixed is None else {"llm_concurrency": fixed}
    async with replay.teacher(args, "--max-concurrent", str(places), "--seed", str(seed), *LATENCY) as url:
        seconds, made = await replay.make(url, spec, number, seed, **told)
        print(f"{made.ledger.requests} requests", end=", ", file=sys.stderr)
    return len(made.rows) / seconds


if __name__ == "__main__":
    sys.exit(main())
