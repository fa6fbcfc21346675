"""What a faulty teacher costs the generator in requests: one JSON line.

    python -m bench.generation_faults --teacher-script FILE --examples FILE --prompt-spec FILE [--num N] [--seeds S]

Each seed is run twice, against a teacher without faults and against one with 20 % duplicates, 10 % malformed answers
and 5 % errors (503, or a dropped connection), both started from the script with a short latency.

requests_ratio      requests that reached the faulty teacher, by those that reached the clean one; the seeds' mean
worst_ratio         the largest of them
items               rows made by the faulty runs, the least of the seeds
faults_kept         rows of the faulty runs that are no recorded example, or that stand twice
seconds             of all runs together

Without the script it prints {"skipped": why}.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import statistics
import sys
import time
from pathlib import Path

from bench import replay
from services.generator.generate import Generated
from services.kit.values import PromptSpec

FAULTS = ("--duplicate-rate", "0.2", "--malformed-rate", "0.1", "--error-rate", "0.05", "--hang", "0.5")
LATENCY = ("--latency-mean", "0.05")


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    replay.add_arguments(parser)
    parser.add_argument("--num", type=int, default=2_000, metavar="N", help="examples to make")
    parser.add_argument("--seeds", type=int, default=5, metavar="S", help="seeds to take the mean of")
    args = parser.parse_args()
    skipped = replay.missing(args.teacher_script, args.examples)
    print(json.dumps({"skipped": skipped} if skipped else asyncio.run(_measure(args))))
    return 0


async def _measure(args: argparse.Namespace) -> dict[str, float]:
    started = time.perf_counter()
    spec, recorded = replay.read_spec(args.prompt_spec), _recorded(args.examples)
    ratios, items, kept = [], [], 0
    for seed in range(args.seeds):
        clean, _ = await _requests(args, seed, spec)
        faulty, made = await _requests(args, seed, spec, *FAULTS)
        ratios.append(faulty / clean)
        items.append(len(made.rows))
        kept += sum((row.input, row.output) not in recorded for row in made.rows)
        kept += len(made.rows) - len({row.input for row in made.rows})
        print(f"seed {seed}: {clean} requests, {faulty} with faults; left out {made.dropped}", file=sys.stderr)
    return {
        "requests_ratio": round(statistics.mean(ratios), 3),
        "worst_ratio": round(max(ratios), 3),
        "items": min(items),
        "faults_kept": kept,
        "seconds": round(time.perf_counter() - started, 1),
    }


async def _requests(args: argparse.Namespace, seed: int, spec: PromptSpec, *faults: str) -> tuple[int, Generated]:
    """One run: the requests that the teacher counted, and what was made."""
    async with replay.teacher(args, "--seed", str(seed), *LATENCY, *faults) as url:
        _, made = await replay.make(url, spec, args.num, seed)
        return (await replay.stats(url))["requests"], made


def _recorded(path: Path) -> set[tuple[str, str]]:
    """What may be kept, as the generator writes it."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return {(row["input"].strip(), row["output"].strip()) for row in rows}


if __name__ == "__main__":
    sys.exit(main())
