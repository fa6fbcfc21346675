"""One orchestrator over many runs, one after another: python -m bench.soak [--runs 2000] [--concurrent 10] [--home DIR]

    runs, succeeded, seconds
    mb                          its memory, median over the last half; the share that only this process has
    growth_mb, at_most_mb       what it gained over the last half: median slope, upper end of its 95 % interval
    open_files                  at the end

The six services do nothing (`bench.idle`): a run is what the orchestrator itself does, its rows in the database, its
calls, its report. What grows with each run, and not with how many there are at once, shows here alone.

One JSON line on standard output, progress on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from bench.idle import idle
from bench.load import is_flat
from bench.load_processes import Memory, free_ports, serving
from orchestrator.client import RunClient
from services.kit.settings import Settings


async def soak(home: Path, runs: int, concurrent: int) -> dict[str, Any]:
    """Measures. P2MError where the orchestrator does not start."""
    own = Settings(home=home, store=str(home / "store"), hub_offline=True)
    (port,) = free_ports(1)
    async with idle(own) as targets:
        settings = own.model_copy(update=targets)
        with (home / "soak.log").open("ab") as log:
            async with (
                serving(["orchestrator.serve"], settings, port, log) as process,
                RunClient(f"127.0.0.1:{port}", settings) as client,
                Memory({"orchestrator": process.pid}, every_s=0.25) as memory,
            ):
                began = time.monotonic()
                succeeded = await _run_all(client, runs, concurrent)
                ended = time.monotonic()
                grown = memory.growth((began + ended) / 2)["orchestrator"]
    return {
        "runs": runs, "succeeded": succeeded, "seconds": round(ended - began, 1), "mb": round(grown.mb, 1),
        "growth_mb": round(grown.growth_mb, 1), "at_most_mb": round(grown.at_most_mb, 1),
        "open_files": grown.open_files, "flat": bool(is_flat(grown)),
    }  # fmt: skip


async def _run_all(client: RunClient, runs: int, concurrent: int) -> int:
    """How many of them succeeded."""
    numbers, done, well = count(), count(1), 0

    async def one_after_another() -> None:
        nonlocal well
        while (number := next(numbers)) < runs:
            name = f"soak-{number}"
            await client.start(name, "Say it again.", run_pb2.RunOptions(number=4, model="folder:nowhere"))
            async for _ in client.watch(name):
                pass
            run = await client.get(name)
            well += run.state == run_pb2.RUN_STATE_SUCCEEDED
            if not (ended := next(done)) % 100:
                print(f"{ended} of {runs} ended, {ended - well} not well", file=sys.stderr)

    await asyncio.gather(*(one_after_another() for _ in range(concurrent)))
    return well


def main() -> int:
    """Measures and prints; 1 where a run did not end well or the memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--concurrent", type=int, default=10)
    parser.add_argument("--home", type=Path, help="an empty folder, kept; without it a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2m-soak-") as temporary:
        home = (args.home or Path(temporary)).absolute()
        home.mkdir(parents=True, exist_ok=True)
        figures = asyncio.run(soak(home, args.runs, args.concurrent))
    print(json.dumps(figures))
    return int(figures["succeeded"] != figures["runs"] or not figures["flat"])


if __name__ == "__main__":
    sys.exit(main())
