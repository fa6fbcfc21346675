"""Writes an index, in one pass over its entries."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.kit.errors import InvalidArgument
from services.kit.index import lexical
from services.kit.index import vectors as embeddings
from services.kit.index.folder import FORMAT, Manifest, described, place, staging, write_manifest
from services.kit.index.lexical import K1, B
from services.kit.index.lines import Lines, write_lines, write_names
from services.kit.index.opened import Index


def save(
    folder: Path,
    entries: Iterable[dict[str, Any]],
    texts: Iterable[str],
    vectors: npt.NDArray[np.float32] | None = None,
    *,
    facts: Mapping[str, npt.NDArray[Any]] | None = None,
    source: str = "",
    encoder: str = "",
    k1: float = K1,
    b: float = B,
    approximate: bool | None = None,
    before: Index | None = None,
) -> Manifest:
    """Writes a version of the index at `folder` and makes it the one that counts; a reader sees the old or the new one.

    `vectors`: [entries, dimension], rows of length 1; each of `facts`: [entries]. `approximate`: None where the number
    of entries decides. `before`: an older version, whose centroids are taken over where the encoder is the same.
    InvalidArgument where two entries share an id.
    """
    ids: list[str] = []

    def noted() -> Iterator[dict[str, Any]]:
        for entry in entries:
            ids.append(entry["id"])
            yield entry

    with staging(folder) as filled:
        write_lines(filled, "entries", noted())
        if (twice := write_names(filled, "ids", ids)) is not None:
            raise InvalidArgument("DUPLICATE_ENTRY", f"The catalogue has two entries {twice!r}; ids must be unique.")
        number = len(ids)
        ids.clear()
        write_names(filled, "texts", texts)
        (filled / "facts").mkdir()
        for name, values in (facts or {}).items():
            np.save(filled / "facts" / f"{name}.npy", values)
        lexical.write(filled / "bm25", Lines(filled, "texts"), k1, b)
        if vectors is not None:
            if approximate is None:
                approximate = number >= embeddings.APPROXIMATE_FROM
            trained = before.trained() if before and before.manifest.encoder == encoder else None
            embeddings.write(filled, vectors, approximate, trained)
        manifest = Manifest(
            FORMAT, number, source, encoder, 0 if vectors is None else int(vectors.shape[1]),
            vectors is not None and bool(approximate), k1, b,
            {name: importlib.metadata.version(name) for name in ("bm25s", "faiss-cpu", "numpy")}, *described(filled),
        )  # fmt: skip
        write_manifest(filled, manifest)
        place(filled, folder)
    return manifest
