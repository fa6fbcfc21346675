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
import numpy.typing as npt

from catalogue import stored
from catalogue.cards import model_text
from catalogue.dataset_cards import dataset_text
from catalogue.facts import facts
from catalogue.read import read, starter
from services.kit import embed, index, locations, worker
from services.kit.errors import DataLoss, FailedPrecondition, P2MError
from services.kit.settings import Settings
from services.kit.values import Progress

log = logging.getLogger(__name__)

_FEW, _MANY = 32, 100_000

Vectors = npt.NDArray[np.float32]

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

    A kind of which no file is given keeps the index it has. Services that run take a new index up by themselves; for
    those on other machines it is stored, where the store is a bucket (catalogue/stored.py).
    Raises InvalidArgument for a line that is no entry, and NotFound.
    """

    async def both() -> Built:
        neither = not models and not datasets
        counts = {
            kind: (await build_one(kind, files, out, settings, report)).entries
            for kind, files in (("models", models), ("datasets", datasets))
            if files or neither
        }
        for kind in counts:
            await asyncio.to_thread(stored.publish, kind, out / kind, settings)
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
    """Builds one index, "models" or "datasets". Datasets are encoded too, and models where the settings say so: by
    `encoder`, else in a child process."""
    report(Progress(message=f"Reading the {kind}"))
    entries = await asyncio.to_thread(read, [*files, starter(kind)])
    texts = [(model_text if kind == "models" else dataset_text)(entry) for entry in entries]
    vectors, digest, before = None, "", None
    if kind == "datasets" or settings.encode_models:
        digest = embed.digest(locations.resolve(settings.encoder, settings))
        before = await asyncio.to_thread(_before, out / kind, digest)
        vectors = await _vectors(texts, before, settings, report, encoder)
    report(Progress(message=f"Indexing {len(entries):,} {kind}"))
    source = f"{'given' if files else 'starter'}:{_digest(entries)}"
    return await asyncio.to_thread(
        index.save, out / kind, entries, texts, vectors, facts=facts(kind, entries), source=source, encoder=digest,
        before=before,
    )  # fmt: skip


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
        return await opened(kind, settings, encoder)
    except DataLoss:
        if not starters:
            raise
        log.warning("the index at %s is damaged and is built again", folder)
        await build_one(kind, (), settings.catalogue_folder, settings, encoder=encoder)
        return await opened(kind, settings, encoder)


async def opened(kind: str, settings: Settings, encoder: worker.Resident | None = None) -> index.Index:
    """The index in the catalogue's folder as it is; raises what `ready` raises."""
    folder = settings.catalogue_folder / kind
    loaded = await asyncio.to_thread(index.Index.load, folder, library=settings.bm25)
    digest = (await encoder.ask(embed.Texts(), embed.Vectors)).encoder if encoder else ""
    if loaded.manifest.encoder != digest:
        raise FailedPrecondition(
            "OTHER_ENCODER",
            f"The index at {folder} was built with another encoder than {settings.encoder}: "
            "run p2m catalogue build with the files that it was built of, or set P2M_ENCODER.",
        )
    return loaded


def _before(folder: Path, encoder: str) -> index.Index | None:
    """The index that is there, if its vectors can be used again."""
    try:
        there = index.Index.load(folder)
    except P2MError:
        return None
    return there if there.manifest.encoder == encoder else None


async def _vectors(
    texts: Sequence[str],
    before: index.Index | None,
    settings: Settings,
    report: Report,
    encoder: worker.Resident | None,
) -> Vectors:
    """The texts' embeddings, [texts, dimension]: of a text that was there `before` the one from there."""
    if before is None:
        return await _encoded(texts, settings, report, encoder)
    known = await asyncio.to_thread(before.texts.numbers, texts)
    new = np.flatnonzero(known < 0)
    vectors = np.empty((len(texts), before.manifest.dimension), np.float32)
    if len(new):
        vectors[new] = await _encoded([texts[number] for number in new.tolist()], settings, report, encoder)
    for part in np.array_split(np.flatnonzero(known >= 0), 1 + len(texts) // _MANY):
        vectors[part] = before.vectors(known[part])
    return vectors


async def _encoded(
    texts: Sequence[str], settings: Settings, report: Report, encoder: worker.Resident | None
) -> Vectors:
    """By `encoder`, which is loaded already and asked a few at a time; without it in a child process."""
    if encoder is not None:
        # Texts of one length together: a long one among short ones makes all of them as long.
        order = np.argsort([len(text) for text in texts], kind="stable")
        asked = [
            await encoder.ask(embed.Texts(tuple(texts[number] for number in few)), embed.Vectors)
            for few in np.array_split(order, max(1, len(texts) // _FEW))
        ]
        found = np.concatenate([np.asarray(part.vectors, np.float32) for part in asked])
        in_place: Vectors = found[np.argsort(order)]
        return in_place
    with tempfile.TemporaryDirectory(prefix="p2m-catalogue-") as folder:
        request = embed.TextFile(f"{folder}/texts.jsonl", f"{folder}/vectors.npy")
        await asyncio.to_thread(_write_lines, Path(request.texts), texts)
        await worker.run("services.kit.embed:encode_file", request, embed.Vectors, settings, report)
        vectors: Vectors = np.load(request.vectors, mmap_mode="r")  # outlives the file's name
        return vectors


def _write_lines(path: Path, texts: Sequence[str]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)


def _digest(entries: Sequence[dict[str, Any]]) -> str:
    whole = hashlib.sha256()
    for entry in entries:
        whole.update(json.dumps(entry, sort_keys=True).encode() + b"\n")
    return whole.hexdigest()
