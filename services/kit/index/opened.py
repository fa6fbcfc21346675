"""A version of an index, opened: entries, facts, words and vectors."""

from __future__ import annotations

import fcntl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.kit.errors import FailedPrecondition, NotFound
from services.kit.index import lexical
from services.kit.index.folder import FORMAT, Manifest, check, current, damaged, locked, read_manifest
from services.kit.index.lines import Lines, Names, mapped
from services.kit.index.scores import Numbers, Scores
from services.kit.index.vectors import Vectors

_BUFFER = 4 << 20
_READ_BY_ALL = ("bm25/*.npy", "facts/*.npy", "*.faiss")


class Index:
    """A loaded index. Entries are numbered from 0 in the order in which they were saved."""

    def __init__(self, version: Path, manifest: Manifest, library: str) -> None:
        self.manifest = manifest
        self.version = version
        self.ids = Names(version, "ids")
        self.texts = Names(version, "texts")
        self._entries = Lines(version, "entries")
        self._facts: dict[str, npt.NDArray[Any]] = {path.stem: mapped(path) for path in (version / "facts").iterdir()}
        self._bm25 = lexical.serve(version / "bm25", self.texts, library, manifest.k1, manifest.b)
        self._vectors = Vectors(version, manifest.approximate) if manifest.dimension else None

    @classmethod
    def load(cls, folder: Path, *, library: str = "bm25s") -> Index:
        """Opens the version that counts of the index at `folder`, BM25 by "bm25s" or "rank_bm25".

        NotFound where there is none, FailedPrecondition where it has another format, DataLoss where a file is not what
        was written (`check`).
        """
        with locked(folder, fcntl.LOCK_SH):
            manifest = read_manifest(folder)
            if manifest is None:
                raise NotFound("NO_INDEX", f"There is no index at {folder}: run p2m catalogue build.")
            version = current(folder)
            if manifest.format != FORMAT or version is None:
                raise FailedPrecondition(
                    "OTHER_FORMAT", f"The index at {folder} was built by another version: run p2m catalogue build."
                )
            check(version, manifest)
            try:
                return cls(version, manifest, library)
            except (OSError, ValueError, RuntimeError) as error:  # RuntimeError is what FAISS says of a damaged file
                raise damaged(folder) from error

    def __len__(self) -> int:
        return self.manifest.entries

    def warm(self) -> None:
        """Reads what every query reads, so that none waits for the disk."""
        buffer = bytearray(_BUFFER)
        for path in (path for pattern in _READ_BY_ALL for path in self.version.glob(pattern)):
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def id(self, number: int) -> str:
        """The id of the entry with this number."""
        return self.ids[number]  # type: ignore[no-any-return]

    def entry(self, number: int) -> dict[str, Any]:
        """The entry with this number."""
        return self._entries[number]  # type: ignore[no-any-return]

    def number(self, id: str) -> int | None:
        """The number of the entry with this id."""
        number = int(self.ids.numbers([id])[0])
        return None if number < 0 else number

    def find(self, id: str) -> dict[str, Any] | None:
        """The entry with this id."""
        number = self.number(id)
        return None if number is None else self.entry(number)

    def fact(self, name: str) -> npt.NDArray[Any]:
        """What the entries' numbers are called `name` (catalogue/facts.py): [entries]. NotFound for another name."""
        if name not in self._facts:
            raise NotFound("NO_FACT", f"This index keeps no {name!r} of its entries: run p2m catalogue build.")
        return self._facts[name]

    def bm25(self, text: str) -> Scores:
        """BM25 of every entry for `text`; 0 where they share no word but "the" and its like."""
        return self._bm25(lexical.terms(text))

    def nearest(
        self, vector: Sequence[float], n: int, among: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Numbers, Scores]:
        """The `n` entries of the highest cosine with `vector` (of length 1), best first: numbers and cosines.

        Of those alone where `among`, [entries], is true. Where the index is approximate one of them may be missing.
        FailedPrecondition where nothing was encoded, and for a vector of another encoder.
        """
        if not len(self):
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return self._encoded().nearest(vector, n, among)

    def cosines(self, vector: Sequence[float], numbers: Numbers) -> Scores:
        """The cosine of these entries with `vector`, in their order. Errors as in `nearest`."""
        return self._encoded().cosines(vector, numbers) if len(numbers) else np.zeros(0, np.float32)

    def vectors(self, numbers: Numbers) -> Scores:
        """The embeddings of these entries, [numbers, dimension]. FailedPrecondition where nothing was encoded."""
        return self._encoded().rows(numbers)

    def moments(self, vector: Sequence[float]) -> tuple[float, float]:
        """Mean and standard deviation of the cosine of all entries with `vector`. Errors as in `nearest`."""
        return self._encoded().moments(vector)

    def cosine(self, vector: Sequence[float]) -> Scores:
        """The cosine of every entry with `vector` (of length 1). FailedPrecondition where nothing was encoded."""
        scores = np.zeros(len(self), np.float32)
        numbers, found = self.nearest(vector, len(self))
        scores[numbers] = found
        return scores

    def trained(self) -> Any | None:
        """What a next version need not learn anew: the centroids of an approximate index, None of another."""
        return self._vectors.trained() if self._vectors else None

    def _encoded(self) -> Vectors:
        if self._vectors is None:
            raise FailedPrecondition("NOT_ENCODED", "This index holds no embeddings: run p2m catalogue build.")
        return self._vectors
