"""The generator and a peer side by side, one after the other with the same replay teacher: one JSON line.

    python -m bench.generation_peer --teacher-script FILE --examples FILE --prompt-spec FILE
        --peer-python FILE --peer-script FILE [--num N ...] [--latency-mean S] [--token-latency S] [--rounds R]

The peer is started as `PYTHON FILE generate --teacher URL --prompt-spec FILE --num N --out FILE` and prints a JSON line
with at least `seconds` and `unique_inputs`. Each run has a fresh teacher.

jobs        by number of examples, means of the rounds: times, by how much the generator is faster than the peer;
            peer_per_second and per_second, different inputs made; seconds, of the generator; requests, paid for by it;
            peer_requests
seconds     of all runs together

Without the scripts it prints {"skipped": why}.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import replay
from services.kit.values import PromptSpec


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    replay.add_arguments(parser)
    parser.add_argument("--peer-python", required=True, type=Path, metavar="FILE", help="the peer's own Python")
    parser.add_argument("--peer-script", required=True, type=Path, metavar="FILE", help="what runs one of its stages")
    parser.add_argument("--num", type=int, nargs="+", default=[200, 2_000], metavar="N", help="examples to make")
    parser.add_argument("--latency-mean", type=float, default=1.2, metavar="S", help="seconds of a request")
    parser.add_argument("--token-latency", type=float, default=0.005, metavar="S", help="more per token of an answer")
    parser.add_argument("--rounds", type=int, default=1, metavar="R", help="runs to take the mean of")
    args = parser.parse_args()
    skipped = replay.missing(args.teacher_script, args.examples, args.peer_python, args.peer_script)
    print(json.dumps({"skipped": skipped} if skipped else asyncio.run(_measure(args))))
    return 0


async def _measure(args: argparse.Namespace) -> dict[str, Any]:
    started = time.perf_counter()
    spec = replay.read_spec(args.prompt_spec)
    jobs = {}
    for number in args.num:
        ours, peers = [], []
        for seed in range(args.rounds):
            peers.append(await _peer(args, number, seed))
            ours.append(await _own(args, spec, number, seed))
            print(f"{number}, round {seed}: {ours[-1]}, the peer: {peers[-1]}", file=sys.stderr)
        own, peer = (
            {key: statistics.mean(one[key] for one in runs) for key in ("per_second", "seconds", "requests")}
            for runs in (ours, peers)
        )
        jobs[str(number)] = {
            "times": round(own["per_second"] / peer["per_second"], 2),
            "peer_per_second": round(peer["per_second"], 2),
            "per_second": round(own["per_second"], 2),
            "seconds": round(own["seconds"], 2),
            "requests": round(own["requests"]),
            "peer_requests": round(peer["requests"]),
        }
    return {"jobs": jobs, "seconds": round(time.perf_counter() - started, 1)}


def _options(args: argparse.Namespace, seed: int) -> tuple[str, ...]:
    latency = ("--latency-mean", str(args.latency_mean), "--token-latency", str(args.token_latency))
    return (*latency, "--seed", str(seed))


async def _own(args: argparse.Namespace, spec: PromptSpec, number: int, seed: int) -> dict[str, float]:
    async with replay.teacher(args, *_options(args, seed)) as url:
        seconds, made = await replay.make(url, spec, number, seed)
    unique = len({row.input for row in made.rows})
    return {"per_second": unique / seconds, "seconds": seconds, "requests": made.ledger.requests}


async def _peer(args: argparse.Namespace, number: int, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as folder:
        async with replay.teacher(args, *_options(args, seed)) as url:
            process = await asyncio.create_subprocess_exec(
                str(args.peer_python), str(args.peer_script), "generate", "--teacher", url, "--prompt-spec",
                str(args.prompt_spec), "--num", str(number), "--out", f"{folder}/made.jsonl",
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
            said, _ = await process.communicate()
            counted = await replay.stats(url)
    if process.returncode:
        raise SystemExit(f"{args.peer_script} ended with status {process.returncode}")
    told = json.loads(said.splitlines()[-1])
    return {
        "per_second": told["unique_inputs"] / told["seconds"],
        "seconds": told["seconds"],
        "requests": counted["requests"],
    }


if __name__ == "__main__":
    sys.exit(main())
