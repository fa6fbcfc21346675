"""Embeddings of length 1 and the nearest of them, by FAISS: exact, or in a large index quantised and in lists.

    exact          vectors.faiss        every vector as it is; a query reads them all
    approximate    vectors.faiss        8 bits a dimension, in lists around centroids; a query reads the nearest lists
                   vectors.f16.npy      16 bits a dimension, in the entries' order: the first that the lists gave are
                                        compared anew by them, since 8 bits change places among neighbours
    both           moments.npy          the vectors' mean and covariance

The lists are mapped and become resident; of the 16-bit vectors only the rows that a query needs are read.
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

# From here on reading every vector takes longer (6 ms) than all else of a search. Among fewer the lists find less, too:
# where neighbours are far apart they lie in many lists.
APPROXIMATE_FROM = 100_000

_FILE, _ROWS, _MOMENTS = "vectors.faiss", "vectors.f16.npy", "moments.npy"
_SAMPLES_A_LIST, _TRAINING_ROUNDS = 40, 8
_PROBES = 96
_SPREAD = 4
_COMPARED = 64
_BLOCK = 100_000


def write(folder: Path, vectors: npt.NDArray[np.float32], approximate: bool, trained: Any | None = None) -> None:
    """Writes the vectors [entries, dimension]; with the centroids of `trained` (from `Vectors.trained`) if they fit."""
    faiss = _faiss()
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    number, dimension = vectors.shape
    index = _lists_of(faiss, vectors, trained) if approximate else faiss.IndexFlatIP(dimension)
    rows = np.lib.format.open_memmap(folder / _ROWS, "w+", np.float16, vectors.shape) if approximate else None
    total, products = np.zeros(dimension), np.zeros((dimension, dimension))
    for start in range(0, number, _BLOCK):
        block = np.ascontiguousarray(vectors[start : start + _BLOCK], np.float32)
        index.add(block)
        if rows is not None:
            rows[start : start + _BLOCK] = block
        total += block.sum(axis=0, dtype=np.float64)
        products += block.T @ block
    if approximate:
        index.make_direct_map(True)
    mean = total / max(1, number)
    np.save(folder / _MOMENTS, np.vstack([mean, products / max(1, number) - np.outer(mean, mean)]))
    faiss.write_index(index, str(folder / _FILE))


class Vectors:
    """The vectors of an index's folder."""

    def __init__(self, folder: Path, approximate: bool) -> None:
        self._faiss = _faiss()
        self._path = str(folder / _FILE)
        self._index = self._faiss.read_index(self._path, self._faiss.IO_FLAG_MMAP_IFC)
        self._moments = np.load(folder / _MOMENTS)
        self._rows = _Rows(folder / _ROWS) if approximate else None

    def nearest(self, vector: Sequence[float], n: int, among: npt.NDArray[np.bool_] | None) -> tuple[Numbers, Scores]:
        """At most `n` numbers and cosines, best first, of those alone where `among` is true."""
        allowed = self._index.ntotal if among is None else int(among.sum())
        if (n := min(n, allowed)) <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        # The selector only points at the bits.
        bits = None if among is None else np.packbits(among, bitorder="little")
        only = None if bits is None else self._faiss.IDSelectorBitmap(bits)
        # Each caller its own core: FAISS would start as many threads for every query as there are cores.
        self._faiss.omp_set_num_threads(1)
        query = self._query(vector)
        if self._rows is None:
            parameters = self._faiss.SearchParameters(sel=only)
            cosines, numbers = self._index.search(query, n, params=parameters)
            return numbers[0], cosines[0]
        # The fewer entries count and the more are wanted, the more lists hold them.
        lists = self._index.nlist
        probes = min(lists, max(_PROBES * self._index.ntotal // allowed, _SPREAD * n * lists // allowed))
        parameters = self._faiss.SearchParametersIVF(sel=only, nprobe=probes)
        found = self._index.search(query, min(allowed, max(n, _COMPARED)), params=parameters)
        numbers, cosines = found[1][0], found[0][0].copy()
        numbers, cosines = numbers[numbers >= 0], cosines[numbers >= 0]
        cosines[:_COMPARED] = _products(self._rows.read(numbers[:_COMPARED]), query[0])
        best = np.argsort(-cosines, kind="stable")[:n]
        return numbers[best], cosines[best]

    def cosines(self, vector: Sequence[float], numbers: Numbers) -> Scores:
        """The cosine of each of these entries."""
        # Of an approximate index by 8 bits, which are in memory; the third decimal is the first that may differ.
        rows = self._index.reconstruct_batch(np.ascontiguousarray(numbers, np.int64))
        return _products(rows, self._query(vector)[0])

    def rows(self, numbers: Numbers) -> Scores:
        """The vectors of these entries, [numbers, dimension]."""
        if self._rows is not None:
            return self._rows.read(numbers)
        found: Scores = self._index.reconstruct_batch(np.ascontiguousarray(numbers, np.int64))
        return found

    def moments(self, vector: Sequence[float]) -> tuple[float, float]:
        """Mean and standard deviation of the cosine with all entries."""
        query = self._query(vector)[0].astype(np.float64)
        products = _products(self._moments, query)
        return float(products[0]), float(max(0.0, (products[1:] * query).sum())) ** 0.5

    def trained(self) -> Any | None:
        """The lists and their centroids without the vectors, for other entries by the same encoder; None of an exact
        index."""
        if self._rows is None:
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


class _Rows:
    """Rows of an .npy file, read when they are asked for and never mapped."""

    def __init__(self, path: Path) -> None:
        array = np.load(path, mmap_mode="r")
        self._kind, self._width, self._start = array.dtype, array.shape[1], array.offset
        self._file = path.open("rb", buffering=0)

    def read(self, numbers: Numbers) -> Scores:
        size = self._width * self._kind.itemsize
        handle, start = self._file.fileno(), self._start
        read = b"".join([os.pread(handle, size, start + size * number) for number in numbers.tolist()])
        return np.frombuffer(read, self._kind).reshape(len(numbers), self._width).astype(np.float32)


def _products(rows: npt.NDArray[Any], query: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Each row's inner product. By einsum: BLAS would share so little work out to threads, and wait for them."""
    found: npt.NDArray[Any] = np.einsum("nd,d->n", rows, query)
    return found


def _lists_of(faiss: Any, vectors: npt.NDArray[np.float32], trained: Any | None) -> Any:
    """Empty lists around centroids: those of `trained`, unless there are many more or fewer entries now."""
    number, dimension = vectors.shape
    lists = _lists(number)
    if trained is not None and (trained.d, trained.nlist) == (dimension, lists):
        return trained
    index = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.min_points_per_centroid = _TRAINING_ROUNDS, 1
    index.cp.max_points_per_centroid = _SAMPLES_A_LIST
    sample = np.random.default_rng(0).choice(number, min(number, lists * _SAMPLES_A_LIST), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(sample)], np.float32))
    return index


def _lists(entries: int) -> int:
    """How many lists: a power of two near 3 times the root of the number of entries."""
    return int(2 ** max(0, round(np.log2(3 * max(1, entries) ** 0.5))))


def _faiss() -> Any:
    import faiss

    return faiss
