"""What `p2m catalogue` does: builds the search indexes, and searches them as a run would.

build      catalogue files, and what the hub has, to indexes in <home>/catalogue
search     the retrievers' own Search, with nothing to spend on an LLM
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2m.common.v1 import common_pb2
from p2m.dataset_retriever.v1 import dataset_retriever_pb2, dataset_retriever_pb2_grpc
from p2m.model_retriever.v1 import model_retriever_pb2, model_retriever_pb2_grpc
from p2m.run.v1 import run_pb2

from catalogue import build as builder
from catalogue import hub
from orchestrator import constraints
from orchestrator.display import clean
from orchestrator.session import services, with_hub
from orchestrator.terminal import DONE, Terminal
from services.kit.channel import dial, unary
from services.kit.errors import Cancelled, NotFound
from services.kit.settings import Settings
from services.kit.values import Progress

_KINDS = ("datasets", "models")
_UNPAID = "allowance of 0 requests"


async def build(
    terminal: Terminal,
    settings: Settings,
    models: Sequence[Path],
    datasets: Sequence[Path],
    from_hub: str = "",
    wanted: Mapping[str, Any] | None = None,
) -> int:
    """Builds the indexes of the files and of what the hub has ("models", "datasets" or "both"), each with the starter
    catalogue; without either, of that alone. `wanted`: the options of the hub, as click gives them."""
    for path in (*models, *datasets):
        if not path.is_file():
            raise NotFound("NO_SUCH_FILE", f"There is no catalogue file {path}.")
    files = {"models": [*models], "datasets": [*datasets]}
    for kind in _KINDS if from_hub == "both" else (from_hub,) if from_hub else ():
        # What was fetched from the hub is newer than a file's.
        files[kind].insert(0, await _fetch(terminal, settings, kind, wanted or {}))
    shown = ""

    def report(progress: Progress) -> None:
        nonlocal shown
        tenth = int(10 * progress.done / progress.total) if progress.total else 0
        line = f"{progress.message}: {tenth * 10} %" if progress.total else progress.message
        if line != shown:
            shown = line
            terminal.say(line)

    built = await asyncio.to_thread(
        builder.build, files["models"], files["datasets"], settings.catalogue_folder, settings, report
    )
    for kind in _KINDS:
        if count := getattr(built, kind):
            terminal.say(f"{count:,} {kind} are in {settings.catalogue_folder / kind}")
    terminal.say("Services that run take it up by themselves.")
    return DONE


async def _fetch(terminal: Terminal, settings: Settings, kind: str, wanted: Mapping[str, Any]) -> Path:
    """The catalogue file of what the hub has; a cancel ends the fetching at its next request."""
    result = settings.catalogue_folder / "hub" / f"{kind}.jsonl.gz"
    asked = hub.Wanted(
        limit=wanted.get("limit") or 0,
        min_downloads=wanted.get("min_downloads") or 0,
        tasks=_each_once(wanted.get("task")),
        languages=_each_once(wanted.get("language")),
        cards=hub.DEFAULT_CARDS if wanted.get("cards") is None else wanted["cards"],
        per_second=wanted.get("rate") or 0.0,
        anew=bool(wanted.get("anew")),
    )
    stop = threading.Event()
    fetching = asyncio.ensure_future(
        asyncio.to_thread(hub.collect, kind, asked, result, settings, lambda one: terminal.say(one.message), stop)
    )
    try:
        done = await asyncio.shield(fetching)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Cancelled):
            await fetching
        raise
    terminal.say(f"{done.entries:,} {kind} of the hub are in {result}")
    changed = f" of what changed since {done.since} UTC" if done.since else ""
    parts = [f"fetched now: {done.pages:,} pages{changed}, {done.cards:,} cards"]
    if done.pages_kept or done.cards_kept:
        parts.append(f"there already: {done.pages_kept:,} pages, {done.cards_kept:,} cards")
    if done.left_out:
        parts.append(f"left out: {done.left_out:,} that are no text")
    terminal.say(f"  {'; '.join(parts)}")
    return result


def _each_once(words: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip().lower() for word in words or () if word.strip()))


async def search(
    terminal: Terminal,
    settings: Settings,
    words: str,
    number: int,
    as_json: bool,
    options: run_pb2.RunOptions | None = None,
) -> int:
    """Prints the best datasets and models for a description, and why they are there. Of `options` only what constrains
    the model and the dataset counts."""
    options = options or run_pb2.RunOptions()
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
                dataset_retriever_pb2.SearchRequest(
                    request_id=identity,
                    allowance=nothing,
                    spec=spec,
                    k=number,
                    filters=constraints.of_datasets(options),
                ),
            ),
            unary(
                model_retriever_pb2_grpc.ModelRetrieverServiceStub(channels[1]).Search,
                model_retriever_pb2.SearchRequest(
                    request_id=identity,
                    allowance=nothing,
                    spec=spec,
                    k=number,
                    constraints=constraints.of_models(options),
                ),
            ),
        )
    found = {"datasets": datasets.candidates, "models": models.candidates}
    # That an LLM was not paid for is how this search is meant.
    notes = {
        kind: [note for note in answer.notes if _UNPAID not in note]
        for kind, answer in (("datasets", datasets), ("models", models))
    }
    if as_json:
        plain = {kind: [_plain(c) for c in candidates] for kind, candidates in found.items()}
        print(json.dumps(plain | {"notes": notes}), file=terminal.out)
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
        for note in notes[kind]:
            print(f"  {clean(note)}", file=terminal.out)
    if models.excluded:
        print(f"\n{len(models.excluded)} models were left out, for example:", file=terminal.out)
        for excluded in models.excluded[:3]:
            print(f"  {clean(excluded.id)}: {clean(excluded.reason)}", file=terminal.out)
    return DONE


def _plain(candidate: Any) -> dict[str, Any]:
    return {"id": candidate.id, "score": candidate.score, "why": candidate.why}
