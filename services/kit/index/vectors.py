"""Embeddings of length 1 and the nearest of them, by FAISS: exact, or in a large index quantised and in lists.

    exact          every vector as it is; a query reads them all
    approximate    8 bits a dimension, in lists around centroids; a query reads the lists whose centroids are nearest

docs/retrieval.md has the measurements behind the numbers here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.kit.errors import FailedPrecondition
from services.kit.index.scores import Numbers, Scores

# Above this a query of the exact index takes longer than one of the lists, at a recall of 0.97 or more.
APPROXIMATE_FROM = 50_000

_FILE = "vectors.faiss"
_SAMPLES_A_LIST = 64
_TRAINING_ROUNDS = 8
_PROBES = 64
_SPREAD = 4
_BLOCK = 100_000


def write(folder: Path, vectors: npt.NDArray[np.float32], approximate: bool, trained: Any | None = None) -> None:
    """Writes the vectors [entries, dimension]; with the centroids of `trained` (from `Vectors.trained`) if it fits."""
    faiss = _faiss()
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    if not approximate:
        index = faiss.IndexFlatIP(vectors.shape[1])
    elif trained is not None and trained.d == vectors.shape[1] and trained.nlist == _lists(len(vectors)):
        index = trained
    else:
        index = _trained(faiss, vectors)
    for start in range(0, len(vectors), _BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + _BLOCK], np.float32))
    if approximate:
        index.make_direct_map(True)
    faiss.write_index(index, str(folder / _FILE))


class Vectors:
    """The vectors of an index's folder, mapped."""

    def __init__(self, folder: Path, approximate: bool) -> None:
        self._faiss = _faiss()
        self._path = str(folder / _FILE)
        self._index = self._faiss.read_index(self._path, self._faiss.IO_FLAG_MMAP_IFC)
        self._approximate = approximate

    def nearest(self, vector: Sequence[float], n: int, among: npt.NDArray[np.bool_] | None) -> tuple[Numbers, Scores]:
        """At most `n` numbers and cosines, best first, of those alone where `among` is true."""
        allowed = self._index.ntotal if among is None else int(among.sum())
        if (n := min(n, allowed)) <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        only = None
        if among is not None:
            bits = np.packbits(among, bitorder="little")
            only = self._faiss.IDSelectorBitmap(bits)
        if self._approximate:
            # The fewer entries count and the more are wanted, the more lists hold them.
            lists = self._index.nlist
            probes = min(lists, max(_PROBES * self._index.ntotal // allowed, _SPREAD * n * lists // allowed))
            parameters = self._faiss.SearchParametersIVF(sel=only, nprobe=probes)
        else:
            parameters = self._faiss.SearchParameters(sel=only)
        # Each caller its own core: FAISS would start as many threads for every query as there are cores.
        self._faiss.omp_set_num_threads(1)
        cosines, numbers = self._index.search(self._query(vector), n, params=parameters)
        found = numbers[0] >= 0
        return numbers[0][found], cosines[0][found]

    def cosines(self, vector: Sequence[float], numbers: Numbers) -> Scores:
        """The cosine of each of these entries."""
        found: Scores = self.rows(numbers) @ self._query(vector)[0]
        return found

    def rows(self, numbers: Numbers) -> Scores:
        """The vectors of these entries, [numbers, dimension]."""
        found: Scores = self._index.reconstruct_batch(np.ascontiguousarray(numbers, np.int64))
        return found

    def trained(self) -> Any | None:
        """The lists and their centroids without the vectors, for an index of other entries by the same encoder."""
        if not self._approximate:
            return None
        index = self._faiss.read_index(self._path)
        index.reset()
        return index

    def _query(self, vector: Sequence[float]) -> Scores:
        query = np.asarray([vector], np.float32)
        if query.shape[1] != self._index.d:
            raise FailedPrecondition(
                "OTHER_ENCODER",
                f"The query has {query.shape[1]} dimensions and the index {self._index.d}: another encoder "
                "built it. Run p2m catalogue build.",
            )
        return query


def _trained(faiss: Any, vectors: npt.NDArray[np.float32]) -> Any:
    lists = _lists(len(vectors))
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.min_points_per_centroid = _TRAINING_ROUNDS, 1
    index.cp.max_points_per_centroid = _SAMPLES_A_LIST
    number = min(len(vectors), lists * _SAMPLES_A_LIST)
    sample = np.sort(np.random.default_rng(0).choice(len(vectors), number, replace=False))
    index.train(np.ascontiguousarray(vectors[sample], np.float32))
    return index


def _lists(entries: int) -> int:
    """How many lists: a power of two near 3 times the root of the number of entries."""
    return int(2 ** max(0, round(np.log2(3 * max(1, entries) ** 0.5))))


def _faiss() -> Any:
    import faiss

    return faiss
