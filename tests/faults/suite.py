"""The fault suite: `python -m tests.faults.suite`, or `make faults`. It goes on where it stopped.

    --results FILE     one JSON line a trial; trials that are in it and held are not tried again
    --seed N           which trials (tests.faults.trials)
    --kinds a,b        only these kinds      --stack small|real|all
    --trials 3,17      only these numbers    --shard i/n    every n-th, from the i-th on
    --seconds S        begin no trial after S seconds
    --summary          only add up what is in FILE

Exit status 1 where a trial did not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.faults.run_trial import attempt
from tests.faults.trials import NUMBERS, Trial, drawn
from tests.support.cluster import cluster


async def run(trials: list[Trial], seed: int, results: Path, seconds: float) -> int:
    """Tries them, each cluster for as long as its trials hold; how many did not."""
    task = asyncio.current_task()
    assert task is not None
    # Ended from outside it leaves no process behind.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    until = time.monotonic() + seconds
    left, failed = list(trials), 0
    while left and time.monotonic() < until:
        real, apart = left[0].real, left[0].apart
        with tempfile.TemporaryDirectory(prefix="p2m-faults-") as folder:
            async with cluster(Path(folder) / "cluster", real=real, apart=apart) as system:
                held = True
                while held and left and (left[0].real, left[0].apart) == (real, apart) and time.monotonic() < until:
                    found = await attempt(system, left.pop(0), seed)
                    held = not found["wrong"]
                    failed += not held
                    with results.open("a") as file:
                        file.write(json.dumps(found) + "\n")
                    print(_line(found), flush=True)
                if not held:
                    _keep_logs(Path(folder) / "cluster", results, found)
    return failed


def _share(trial: Trial) -> float:
    """Where the trial stands among its kind, 0 to 1: sorted by it the kinds take turns."""
    first = 0
    for kind, number in NUMBERS.items():
        if kind == trial.kind:
            return (trial.number - first) / number
        first += number
    raise ValueError(trial.kind)


def summary(results: Path) -> str:
    """A table of what is in the file, by kind and how: tried, held, median and longest seconds."""
    by: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in read(results).values():
        by[one["kind"], "real" if one["real"] else "small", one["how"]].append(one)
    lines = [
        "| kind | services | how | tried | held | median s | longest s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (kind, stack, how), found in sorted(by.items(), key=lambda item: ([*NUMBERS].index(item[0][0]), item[0])):
        times = sorted(one["seconds"] for one in found)
        held = sum(not one["wrong"] for one in found)
        row = (kind, stack, how, len(found), held, f"{times[len(times) // 2]:.1f}", f"{times[-1]:.1f}")
        lines.append(f"| {' | '.join(map(str, row))} |")
    everything = [*read(results).values()]
    lines.append(f"\n{len(everything)} trials, {sum(not one['wrong'] for one in everything)} held")
    for key in ("taken_up_s", "child_s", "again"):
        values = [one[key] for one in everything if one.get(key) is not None]
        if values:
            lines.append(f"{key}: {len(values)} values, sum {sum(values):.2f}, largest {max(values):.2f}")
    return "\n".join(lines)


def read(results: Path) -> dict[int, dict[str, Any]]:
    """The newest result of each trial."""
    found = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    return {one["number"]: one for one in found}


def _keep_logs(folder: Path, results: Path, found: dict[str, Any]) -> None:
    kept = results.parent / f"{results.stem}-{found['number']:03d}"
    kept.mkdir(parents=True, exist_ok=True)
    for file in (*folder.glob("*.log"), folder / "events.jsonl", folder / "home" / "p2m.log"):
        if file.exists():
            (kept / file.name).write_bytes(file.read_bytes()[-2_000_000:])


def _line(found: dict[str, Any]) -> str:
    said = "; ".join(found["wrong"]) or "held"
    where = "real " if found["real"] else ""
    return (
        f"{found['number']:03d} {found['kind']:9} {where}{found['who']}/{found['where']} {found['how']}: {said} "
        f"({found['seconds']:.1f} s)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("build/faults.jsonl"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(NUMBERS))
    parser.add_argument("--stack", choices=("small", "real", "all"), default="all")
    parser.add_argument("--trials", default="")
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args()
    if args.summary:
        print(summary(args.results))
        return 0
    args.results.parent.mkdir(parents=True, exist_ok=True)
    done = {number for number, one in read(args.results).items() if not one["wrong"] and one["seed"] == args.seed}
    shard, shards = map(int, args.shard.split("/"))
    only = {int(number) for number in args.trials.split(",") if number}
    trials = [
        trial
        for trial in drawn(args.seed)
        if trial.number not in done and (not only or trial.number in only)
        and trial.kind in args.kinds.split(",") and trial.number % shards == shard
        and args.stack in ("all", "real" if trial.real else "small")
    ]  # fmt: skip
    trials.sort(key=lambda trial: (trial.real, trial.apart, _share(trial)))
    try:
        failed = asyncio.run(run(trials, args.seed, args.results, args.seconds))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    by = Counter(not one["wrong"] for one in read(args.results).values())
    print(f"{by[True]} held, {by[False]} did not, of {sum(NUMBERS.values())}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
