"""What `p2m catalogue` does: builds the search indexes, and searches them as a run would.

build      catalogue files to indexes in <home>/catalogue
search     the retrievers' own Search, with nothing to spend on an LLM
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from p2m.common.v1 import common_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2, dataset_retriever_pb2_grpc
from p2m.model_retriever.v1 import model_retriever_pb2, model_retriever_pb2_grpc

from catalogue import build as builder
from orchestrator.display import clean
from orchestrator.session import services, with_hub
from orchestrator.terminal import DONE, Terminal
from services.kit.channel import dial, unary
from services.kit.errors import NotFound
from services.kit.settings import Settings
from services.kit.values import Progress

_KINDS = ("datasets", "models")


async def build(terminal: Terminal, settings: Settings, models: Sequence[Path], datasets: Sequence[Path]) -> int:
    """Builds the indexes of the files, or of the starter catalogue where there are none."""
    for path in (*models, *datasets):
        if not path.is_file():
            raise NotFound("NO_SUCH_FILE", f"There is no catalogue file {path}.")
    shown = ""

    def report(progress: Progress) -> None:
        nonlocal shown
        tenth = int(10 * progress.done / progress.total) if progress.total else 0
        line = f"{progress.message}: {tenth * 10} %" if progress.total else progress.message
        if line != shown:
            shown = line
            terminal.say(line)

    built = await asyncio.to_thread(builder.build, models, datasets, settings.catalogue_folder, settings, report)
    for kind in _KINDS:
        if count := getattr(built, kind):
            terminal.say(f"{count:,} {kind} are in {settings.catalogue_folder / kind}")
    terminal.say("Services that run take it up when they start anew.")
    return DONE


async def search(terminal: Terminal, settings: Settings, words: str, number: int, as_json: bool) -> int:
    """Prints the best datasets and models for a description, and why they are there."""
    spec = common_pb2.PromptSpec(instruction=words, language="en")
    nothing = common_pb2.Allowance(requests=0, tokens=0, dollars=0.0)
    identity = f"search/{uuid.uuid4().hex}"
    settings = await with_hub(terminal, settings)
    async with contextlib.AsyncExitStack() as stack:
        targets = await stack.enter_async_context(services(settings, "dataset_retriever", "model_retriever"))
        channels = [dial(targets[name], settings) for name in ("dataset_retriever", "model_retriever")]
        for channel in channels:
            stack.push_async_callback(channel.close)
        datasets, models = await asyncio.gather(
            unary(
                dataset_retriever_pb2_grpc.DatasetRetrieverServiceStub(channels[0]).Search,
                dataset_retriever_pb2.SearchRequest(request_id=identity, allowance=nothing, spec=spec, k=number),
            ),
            unary(
                model_retriever_pb2_grpc.ModelRetrieverServiceStub(channels[1]).Search,
                model_retriever_pb2.SearchRequest(request_id=identity, allowance=nothing, spec=spec, k=number),
            ),
        )
    found = {"datasets": datasets.candidates, "models": models.candidates}
    if as_json:
        print(
            json.dumps({kind: [_plain(c) for c in candidates] for kind, candidates in found.items()}), file=terminal.out
        )
        return DONE
    for kind, candidates in found.items():
        print(f"{kind.upper()}", file=terminal.out)
        for candidate in candidates:
            reachable = "" if getattr(candidate, "reachable", True) else "  (cannot be loaded from here)"
            print(f"  {candidate.score:8.3f}  {clean(candidate.id)}{reachable}", file=terminal.out)
            if candidate.why:
                print(f"            {clean(candidate.why)[:160]}", file=terminal.out)
        if not candidates:
            print("  nothing fits", file=terminal.out)
    if models.excluded:
        print(f"\n{len(models.excluded)} models were left out, for example:", file=terminal.out)
        for excluded in models.excluded[:3]:
            print(f"  {clean(excluded.id)}: {clean(excluded.reason)}", file=terminal.out)
    return DONE


def _plain(candidate: Any) -> dict[str, Any]:
    return {"id": candidate.id, "score": candidate.score, "why": candidate.why}
