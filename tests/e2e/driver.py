"""What the container test does from inside of the stack's network, as a person with the client's identity would.

    python -m tests.e2e.driver start NAME... [--number N] [--parts P]     runs of a toy task with the tiny model
    python -m tests.e2e.driver wait NAME... [--timeout S]                 {name: state}, once all have ended
    python -m tests.e2e.driver show NAME                                  {stage: state}
    python -m tests.e2e.driver cancel NAME                                the Unix time just before the call
    python -m tests.e2e.driver metrics HOST...                            [[host, address, {metric: sum}]], by replica
    python -m tests.e2e.driver watch SECONDS HOST...                      the same, with the time, once a half second

Each prints JSON on standard output, `watch` a line each time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import sys
import time
import urllib.request
from collections import Counter
from typing import Any

from p2m.run.v1 import run_pb2

from orchestrator.client import FINAL, RunClient
from services.kit.errors import P2MError
from services.kit.settings import Settings

TARGET = "orchestrator:50050"
PROMPT = """Each input is a handful of words. One of them is the name of a colour. Give that word alone.

input="apple red arm army baby ball bank"
output="red"

input="door dress blue drink ear earth egg"
output="blue"
"""


async def start(client: RunClient, names: list[str], number: int, parts: int) -> list[str]:
    """Starts runs whose every stage is real and small."""
    options = run_pb2.RunOptions(
        number=number, parts=parts, skip_datasets=True, model="folder:/models/tiny", epochs=1, teacher_rows=0,
        export_formats=["none"],
    )  # fmt: skip
    return [(await client.start(name, PROMPT, options)).name for name in names]


async def wait(client: RunClient, names: list[str], timeout_s: float) -> dict[str, str]:
    """The runs' states, once all are final. An orchestrator that is just being restarted is asked again."""
    ends = time.monotonic() + timeout_s
    states: dict[str, str] = {}
    while time.monotonic() < ends:
        for name in names:
            if states.get(name, "") in _FINAL:
                continue
            try:
                run = await client.get(name)
            except P2MError as error:
                print(f"{name}: {error}", file=sys.stderr)
                continue
            states[name] = _word(run.state) + (f": {run.error}" if run.state == run_pb2.RUN_STATE_FAILED else "")
        if all(states.get(name, "").split(":")[0] in _FINAL for name in names):
            break
        await asyncio.sleep(1)
    return states


def _word(state: int) -> str:
    return run_pb2.RunState.Name(state).removeprefix("RUN_STATE_")


_FINAL = {_word(state) for state in FINAL}


async def show(client: RunClient, name: str) -> dict[str, str]:
    """Where the stages of a run stand."""
    run = await client.get(name)
    return {one.name: run_pb2.StageState.Name(one.state).removeprefix("STAGE_STATE_") for one in run.stages}


def metrics(hosts: list[str]) -> list[Any]:
    """The sums of our metrics at each replica that the network's name server knows."""
    found = []
    for host in hosts:
        try:
            addresses = sorted({info[4][0] for info in socket.getaddrinfo(host, 9464, type=socket.SOCK_STREAM)})
        except OSError:
            continue
        for address in addresses:
            try:
                with urllib.request.urlopen(f"http://{address}:9464/metrics", timeout=2) as response:
                    text = response.read().decode()
            except OSError:
                continue  # it is just starting, or going
            sums: Counter[str] = Counter()
            for name, value in re.findall(r"^(p2m_\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
                sums[name] += float(value)  # type: ignore[assignment]
            found.append([host, address, sums])
    return found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["start", "wait", "show", "cancel", "metrics", "watch"])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--number", type=int, default=24)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=300.0)
    args = parser.parse_args()
    if args.what == "metrics":
        print(json.dumps(metrics(args.names)))
        return
    if args.what == "watch":
        ends = time.monotonic() + float(args.names[0])
        while time.monotonic() < ends:
            print(json.dumps([time.time(), metrics(args.names[1:])]), flush=True)
            await asyncio.sleep(0.5)
        return
    async with RunClient(TARGET, Settings()) as client:
        if args.what == "start":
            print(json.dumps(await start(client, args.names, args.number, args.parts)))
        elif args.what == "wait":
            print(json.dumps(await wait(client, args.names, args.timeout)))
        elif args.what == "show":
            print(json.dumps(await show(client, args.names[0])))
        else:
            print(json.dumps(time.time()), flush=True)
            await client.cancel(args.names[0])


if __name__ == "__main__":
    asyncio.run(main())
