"""Many runs at once: python -m bench.load [--light] [--runs 100] [--concurrent 100] [--home DIR]

    runs, succeeded, seconds
    first_s, median_s, last_s   from a run's Start to its end
    parts                       per process: memory (MB), what it gained over the last half, open files, seconds of CPU
    children_mb                 the most that all the children (trainings, evaluations) had at once, resident
    flat                        whether no process gained more over the last half than the bound (see _BOUND_MB)
    calls_ms                    median and 99th percentile of Get, asked all the while beside the runs

The six services and the orchestrators are processes of their own, as in an installation; the LLM is a scripted one, the
student a T5 of 0.1 M parameters, and every stage but the export is really done. Each run has some seven children, of
which most load torch: half a minute of one core, nearly all of it for that. --light leaves torch out of them (see
`load_light`): what is measured, the services, is the same, and a run takes a few seconds of one core.

One JSON line on standard output, progress on standard error, samples and logs in --home.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from bench.load_processes import Growth, Memory, Parts, installation, scripted_teacher
from orchestrator.client import RunClient
from services.kit.settings import Settings

# Flat: the upper end of the interval of what was gained over the last half stays under this, or under a twentieth.
_BOUND_MB = 8.0
_BOUND_SHARE = 0.05
_LATENCY_S = 0.05


@dataclass
class Tally:
    """What happened, as it happens."""

    wanted: int
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    calls_ms: list[float] = field(default_factory=list)

    def end(self, name: str, run: run_pb2.Run, seconds: float) -> None:
        """Counts a run that has ended."""
        self.seconds.append(seconds)
        if run.state != run_pb2.RUN_STATE_SUCCEEDED:
            self.failures.append(f"{name}: {run_pb2.RunState.Name(run.state)} {run.error.stage} {run.error.message}")
        ended = len(self.seconds)
        print(f"{ended} of {self.wanted} ended, {len(self.failures)} not well, {seconds:.0f} s", file=sys.stderr)


@dataclass(frozen=True)
class Wanted:
    """What to do to whom."""

    home: Path
    """An empty folder, for everything."""
    runs: int = 100
    concurrent: int = 100
    """Of these at once."""
    rows: int = 40
    """Examples that each run has written."""
    light: bool = False
    orchestrators: int = 1
    """More than one need a database that they can share."""
    database: str = ""
    """A SQLAlchemy URL; empty: SQLite in `home`."""


async def load(wanted: Wanted) -> dict[str, Any]:
    """Measures. Raises P2MError where a service does not start."""
    from tests.support.models import tiny_t5
    from tests.support.teacher import TOY_PROMPT

    home = wanted.home
    model = await asyncio.to_thread(tiny_t5, home / "model")
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(scripted_teacher(_LATENCY_S))
        settings = Settings(
            home=home, store=str(home / "store"), database=wanted.database, openai_base_url=url,
            openai_api_key="scripted", llm="scripted", hub_offline=True, threads=1, grace_s=5.0,
        )  # fmt: skip
        parts = await stack.enter_async_context(
            installation(settings, home / "load.log", wanted.orchestrators, wanted.light)
        )
        memory = await stack.enter_async_context(Memory(parts.pids))
        began = time.monotonic()
        tally = await _runs(parts, wanted, f"folder:{model}", TOY_PROMPT)
        ended = time.monotonic()
        growth = memory.growth((began + ended) / 2)
        await asyncio.to_thread(_write_samples, home / "memory.jsonl", memory.plain())
    for failure in tally.failures:
        print(failure, file=sys.stderr)
    return _figures(tally, ended - began, growth, memory.children_mb)


async def _runs(parts: Parts, wanted: Wanted, model: str, prompt: str) -> Tally:
    tally = Tally(wanted.runs)
    turn = asyncio.Semaphore(wanted.concurrent)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RunClient(target, parts.settings)) for target in parts.run_targets]

        async def one(number: int) -> None:
            client = clients[number % len(clients)]
            options = run_pb2.RunOptions(
                number=wanted.rows, model=model, epochs=1, seed=number, teacher_rows=4, export_formats=["none"]
            )
            name = f"load-{number}"
            async with turn:
                began = time.monotonic()
                await client.start(name, prompt, options)
                async for _ in client.watch(name):
                    pass
                tally.end(name, await client.get(name), time.monotonic() - began)

        asking = asyncio.create_task(_ask(clients, tally))
        await asyncio.gather(*(one(number) for number in range(wanted.runs)))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    return tally


async def _ask(clients: Sequence[RunClient], tally: Tally) -> None:
    """Get of the first run, twice a second."""
    while True:
        await asyncio.sleep(0.5)
        began = time.perf_counter()
        try:
            await clients[0].get("load-0")
        except Exception as error:
            print(f"Get: {error}", file=sys.stderr)
            continue
        tally.calls_ms.append((time.perf_counter() - began) * 1000)


def is_flat(growth: Growth) -> bool:
    """Whether a part's memory is: what it gained is under the bound, with its interval."""
    return growth.at_most_mb <= max(_BOUND_MB, _BOUND_SHARE * growth.mb)


def _figures(tally: Tally, seconds: float, growth: dict[str, Growth], children_mb: float) -> dict[str, Any]:
    calls = sorted(tally.calls_ms) or [0.0]
    return {
        "runs": len(tally.seconds),
        "succeeded": len(tally.seconds) - len(tally.failures),
        "seconds": round(seconds, 1),
        "first_s": round(min(tally.seconds), 1),
        "median_s": round(statistics.median(tally.seconds), 1),
        "last_s": round(max(tally.seconds), 1),
        "parts": {name: {key: round(value, 1) for key, value in asdict(one).items()} for name, one in growth.items()},
        "children_mb": round(children_mb),
        "flat": all(is_flat(one) for one in growth.values()),
        "calls_ms": [round(statistics.median(calls), 1), round(calls[int(0.99 * (len(calls) - 1))], 1)],
    }


def _write_samples(path: Path, samples: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples), encoding="utf-8")


def main() -> int:
    """Measures and prints; 1 where a run did not end well or a process's memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--concurrent", type=int, default=0, help="at once; 0: all")
    parser.add_argument("--rows", type=int, default=40, help="examples that each run has written")
    parser.add_argument("--light", action="store_true", help="no torch in the children of trainer and evaluator")
    parser.add_argument("--orchestrators", type=int, default=1, help="more than one need --database")
    parser.add_argument("--database", default="", help="postgresql+psycopg://...; empty: SQLite in --home")
    parser.add_argument("--home", type=Path, help="an empty folder, kept; without it a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2m-load-") as temporary:
        home = (args.home or Path(temporary)).absolute()
        home.mkdir(parents=True, exist_ok=True)
        at_once = args.concurrent or args.runs
        wanted = Wanted(home, args.runs, at_once, args.rows, args.light, args.orchestrators, args.database)
        figures = asyncio.run(load(wanted))
    print(json.dumps(figures))
    return int(figures["succeeded"] != figures["runs"] or not figures["flat"])


if __name__ == "__main__":
    sys.exit(main())
