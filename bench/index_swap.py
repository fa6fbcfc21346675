"""What a new version of the index costs those who are searching: python -m bench.index_swap

    [--entries 20000] [--rate 50] [--seconds 10]

A model retriever runs as a process of its own over entries made of the starter catalogue's; searches fall due at the
rate over gRPC, and a latency is from when one is due until its answer is here. First nothing happens; then, a quarter
into as much time again, another version becomes the one that counts.

failed                      searches of both halves that had no answer
steady_p50_ms, steady_p99_ms, swap_p99_ms       latencies without and with the swap
new_after_s                 from the new version's being there to the first answer from it
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from p2m.common.v1 import common_pb2
from p2m.model_retriever.v1 import model_retriever_pb2, model_retriever_pb2_grpc

from bench.ranking import percentile_ms
from catalogue import build
from catalogue.read import read, starter
from services.kit import index
from services.kit.channel import dial, unary, wait_until_serving
from services.kit.errors import P2MError
from services.kit.settings import Settings

PROBE = "swap/probe"
_QUERIES = (
    "Answer a question about a paragraph.", "Translate from German to English.",
    "Summarise a news article.", "Tell the sentiment of a review.",
)  # fmt: skip
_DEADLINE_S, _READY_S = 30.0, 60.0
_PROBED = 10


def main() -> int:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description="A new version of the index under load; one JSON line.")
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments.entries, arguments.rate, arguments.seconds))))
    return 0


@dataclass
class Half:
    """What came of the searches of one half."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    new_at: float = 0.0


async def measure(entries: int, rate: float, seconds: float) -> dict[str, float]:
    """The figures, by their keys."""
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as name:
        settings = Settings(home=Path(name), openai_base_url="", openai_api_key="", hub_offline=False)
        old, new = ([*_models(entries), *_models(1, id=PROBE, description=word)] for word in ("old", "new"))
        await _build(Path(name) / "old.jsonl", old, settings.catalogue_folder, settings)
        await _build(Path(name) / "new.jsonl", new, Path(name) / "next", settings)
        async with _service(settings) as stub:
            await _searches(stub, rate, seconds / 4)
            steady = await _searches(stub, rate, seconds)
            swapping = asyncio.create_task(_swap(Path(name) / "next" / "models", settings, seconds / 4))
            swap = await _searches(stub, rate, seconds)
            placed = await swapping
    return {
        "entries": entries, "searches": 2 * int(rate * seconds),
        "failed": len(steady.failures) + len(swap.failures),
        "steady_p50_ms": percentile_ms(steady.seconds, 0.5), "steady_p99_ms": percentile_ms(steady.seconds, 0.99),
        "swap_p99_ms": percentile_ms(swap.seconds, 0.99),
        "new_after_s": round(swap.new_at - placed, 2) if swap.new_at else -1.0,
    }  # fmt: skip


async def _searches(stub: model_retriever_pb2_grpc.ModelRetrieverServiceStub, rate: float, seconds: float) -> Half:
    half, began = Half(), time.perf_counter() + 0.05

    async def search(number: int) -> None:
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        spec = common_pb2.PromptSpec(instruction=_QUERIES[number % len(_QUERIES)], language="en")
        request = model_retriever_pb2.SearchRequest(request_id=f"swap-{uuid.uuid4().hex}/find", spec=spec, k=5)
        if number % _PROBED == 0:  # by its name; its description tells the version
            request.constraints.model = PROBE
        try:
            found = await unary(stub.Search, request, _DEADLINE_S)
        except P2MError as error:
            half.failures.append(error.message)
            return
        half.seconds.append(time.perf_counter() - due)
        if not half.new_at and any(candidate.description == "new" for candidate in found.candidates):
            half.new_at = time.perf_counter()

    await asyncio.gather(*(search(number) for number in range(int(rate * seconds))))
    return half


async def _swap(built: Path, settings: Settings, after_s: float) -> float:
    """Puts a version that was built elsewhere in its place, as a build does; when."""
    await asyncio.sleep(after_s)

    def place() -> None:
        version = index.current(built)
        assert version
        folder = settings.catalogue_folder / "models"
        with index.staging(folder) as filled:
            index.place(Path(shutil.copytree(version, filled / "version")), folder)

    await asyncio.to_thread(place)
    return time.perf_counter()


def _models(number: int, **changes: object) -> list[dict[str, object]]:
    """Models like the starter's, which the hub has."""
    known = read([starter("models")])
    return [{**known[n % len(known)], "id": f"made/{n}", "location": "", **changes} for n in range(number)]


async def _build(path: Path, entries: list[dict[str, object]], out: Path, settings: Settings) -> None:
    await asyncio.to_thread(path.write_text, "".join(json.dumps(entry) + "\n" for entry in entries))
    await build.build_one("models", [path], out, settings)


@contextlib.asynccontextmanager
async def _service(settings: Settings) -> AsyncIterator[model_retriever_pb2_grpc.ModelRetrieverServiceStub]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"P2M_HOME": str(settings.home), "P2M_PORT": str(port), "P2M_SLOTS": "64", "P2M_HUB_OFFLINE": "false"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("P2M_", "OPENAI_", "HF_"))}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.model_retriever", env=kept | own)
    channel = dial(f"127.0.0.1:{port}", settings)
    try:
        await wait_until_serving(channel, _READY_S)
        yield model_retriever_pb2_grpc.ModelRetrieverServiceStub(channel)
    finally:
        await channel.close()
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    sys.exit(main())
