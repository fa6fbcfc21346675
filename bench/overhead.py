"""What the house itself costs: python -m bench.overhead

    run_ms     a run whose stages do nothing, from Start to its result; median of five
    call_ms    one stage call that does nothing: to the service and back, its attempt and its result recorded; median
    help_ms    `p2m --help` as a process; median of five
    ready_s    from nothing to all services SERVING in one process, indexes built before; over the catalogue that
               P2M_CATALOGUE names, else the starter catalogue

One JSON line on standard output.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from p2m.parser.v1 import parser_pb2, parser_pb2_grpc
from p2m.run.v1 import run_pb2

from bench.idle import idle
from orchestrator.client import RunClient
from orchestrator.local import hosted
from services.kit.channel import dial, unary
from services.kit.settings import Settings

_RUNS = 5
_CALLS = 200
_NO_LLM = "http://127.0.0.1:9/v1"

_READY = """
import asyncio, time
from orchestrator.local import hosted
from services.kit.settings import Settings
async def main():
    async with hosted(Settings()) as stack:
        print("ready", flush=True)
asyncio.run(main())
"""


async def run_and_call_ms() -> tuple[float, float]:
    """The first two figures."""
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as home:
        settings = Settings(home=Path(home), openai_base_url=_NO_LLM, hub_offline=True)
        async with idle(settings) as targets, hosted(settings.model_copy(update=targets)) as stack:
            async with RunClient(stack.run_target, stack.settings) as client:
                runs = [await _run_ms(client, f"idle-{number}") for number in range(_RUNS + 1)]
            channel = dial(targets["parser_target"], settings)
            parse = parser_pb2_grpc.ParserServiceStub(channel).Parse
            calls = []
            for number in range(_CALLS):
                began = time.perf_counter()
                await unary(parse, parser_pb2.ParseRequest(request_id=f"call-{number}/parse", prompt="Do nothing."))
                calls.append((time.perf_counter() - began) * 1000)
            await channel.close()
    # The first run also loads what every later one has.
    return statistics.median(runs[1:]), statistics.median(calls)


async def _run_ms(client: RunClient, name: str) -> float:
    began = time.perf_counter()
    await client.start(name, "Do nothing.", run_pb2.RunOptions(number=4))
    async for change in client.watch(name):
        if change.run.state == run_pb2.RUN_STATE_FAILED:
            raise SystemExit(f"the idle run failed: {change.run.error.message}")
    return (time.perf_counter() - began) * 1000


def help_ms() -> float:
    """How long `p2m --help` takes."""
    return statistics.median(_process_s([sys.executable, "-m", "orchestrator", "--help"]) * 1000 for _ in range(5))


def ready_s() -> float:
    """How long everything takes to be ready, the second time."""
    command = [sys.executable, "-c", _READY]
    _process_s(command, until="ready")
    return min(_process_s(command, until="ready") for _ in range(2))


def _process_s(command: list[str], until: str = "") -> float:
    """Seconds until the process has said `until`, else until its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if until and line.startswith(until):
            break
    else:
        if until:
            raise SystemExit(f"{' '.join(command)[:80]} did not say {until!r}")
    seconds = time.perf_counter() - began
    process.stdout.close()
    process.wait()
    return seconds


def main() -> None:
    """Measures and prints."""
    run_ms, call_ms = asyncio.run(run_and_call_ms())
    figures = {"run_ms": run_ms, "call_ms": call_ms, "help_ms": help_ms(), "ready_s": ready_s()}
    print(json.dumps({name: round(value, 2) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
