"""Catalogue files to indexes.

    build      the indexes of given files, each joined with the starter catalogue
    ready      an index as a service needs it at its start: the starter's is built where it is missing or outdated

The starter catalogue names what is on this machine; joined to every other, it keeps that in reach. Of two entries with
one id the given one counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catalogue.cards import dataset_text, model_text
from catalogue.facts import facts
from catalogue.read import read, starter
from services.kit import embed, index, worker
from services.kit.errors import DataLoss, FailedPrecondition
from services.kit.settings import Settings
from services.kit.values import Progress

log = logging.getLogger(__name__)

_FEW = 32

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Built:
    """Entries in each index that was built; 0 where it was left as it was."""

    models: int = 0
    datasets: int = 0


def build(
    models: Sequence[Path], datasets: Sequence[Path], out: Path, settings: Settings, report: Report = lambda _: None
) -> Built:
    """Builds the indexes of the given files into `out`/models and `out`/datasets; of no files at all, the starter's.

    A kind of which no file is given keeps the index it has. Services that run read a new index when they start anew.
    Raises InvalidArgument for a line that is no entry, and NotFound.
    """

    async def both() -> Built:
        neither = not models and not datasets
        counts = {
            kind: (await build_one(kind, files, out, settings, report)).entries
            for kind, files in (("models", models), ("datasets", datasets))
            if files or neither
        }
        return Built(**counts)

    return asyncio.run(both())


async def build_one(
    kind: str,
    files: Sequence[Path],
    out: Path,
    settings: Settings,
    report: Report = lambda _: None,
    encoder: worker.Resident | None = None,
) -> index.Manifest:
    """Builds one index, "models" or "datasets". Datasets are encoded too: by `encoder`, else in a child process."""
    report(Progress(message=f"Reading the {kind}"))
    entries = await asyncio.to_thread(read, [*files, starter(kind)])
    texts = [(model_text if kind == "models" else dataset_text)(entry) for entry in entries]
    vectors, digest = None, ""
    if kind == "datasets":
        encoding = _encode(texts, settings, report) if encoder is None else _encode_by(encoder, texts)
        vectors, digest = await encoding
    report(Progress(message=f"Indexing {len(entries):,} {kind}"))
    source = f"{'given' if files else 'starter'}:{_digest(entries)}"
    return await asyncio.to_thread(
        index.save, out / kind, entries, texts, vectors, facts=facts(kind, entries), source=source, encoder=digest
    )


async def ready(kind: str, settings: Settings, encoder: worker.Resident | None = None) -> index.Index:
    """The index in the catalogue's folder, made from the starter catalogue where that is all it was ever made from.

    `encoder` hosts `embed.Encoder`; the datasets' index must have been made with it, or is made again.
    An index of given files is not ours to make again: then DataLoss where it is damaged, FailedPrecondition
    (OTHER_ENCODER, OTHER_FORMAT) where it does not fit.
    """
    folder = settings.catalogue_folder / kind
    digest = (await encoder.ask(embed.Texts(), embed.Vectors)).encoder if encoder else ""
    manifest = index.read_manifest(folder)
    starters = manifest is None or manifest.source.startswith("starter:")
    wanted = (f"starter:{_digest(read([starter(kind)]))}", digest, index.FORMAT)
    if starters and (manifest is None or (manifest.source, manifest.encoder, manifest.format) != wanted):
        await build_one(kind, (), settings.catalogue_folder, settings, encoder=encoder)
    try:
        loaded = await asyncio.to_thread(index.Index.load, folder, library=settings.bm25)
    except DataLoss:
        if not starters:
            raise
        log.warning("the index at %s is damaged and is built again", folder)
        await build_one(kind, (), settings.catalogue_folder, settings, encoder=encoder)
        loaded = await asyncio.to_thread(index.Index.load, folder, library=settings.bm25)
    if loaded.manifest.encoder != digest:
        raise FailedPrecondition(
            "OTHER_ENCODER",
            f"The index at {folder} was built with another encoder than {settings.encoder}: "
            "run p2m catalogue build with the files that it was built of, or set P2M_ENCODER.",
        )
    return loaded


async def _encode(texts: Sequence[str], settings: Settings, report: Report) -> tuple[Any, str]:
    with tempfile.TemporaryDirectory(prefix="p2m-catalogue-") as folder:
        request = embed.TextFile(f"{folder}/texts.jsonl", f"{folder}/vectors.npy")
        lines = "".join(json.dumps(text) + "\n" for text in texts)
        await asyncio.to_thread(Path(request.texts).write_text, lines)
        done = await worker.run("services.kit.embed:encode_file", request, embed.Vectors, settings, report)
        return np.load(request.vectors), done.encoder


async def _encode_by(encoder: worker.Resident, texts: Sequence[str]) -> tuple[Any, str]:
    """A few texts by an encoder that is loaded already."""
    parts = [
        await encoder.ask(embed.Texts(tuple(texts[start : start + _FEW])), embed.Vectors)
        for start in range(0, len(texts), _FEW)
    ]
    return np.concatenate([np.asarray(part.vectors, np.float32) for part in parts]), parts[0].encoder


def _digest(entries: Sequence[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
