"""A catalogue's index: BM25 and, where the entries are encoded, FAISS, over the same entries. Saved and loaded whole.

    <folder>/manifest.json      what it was made with, how many entries, the digest of every file
             entries.jsonl      one entry a line;  offsets.npy: where each line begins
             texts.jsonl        what was indexed of each entry, one JSON string a line
             bm25/              bm25s's sparse arrays, absent where no entry holds a word
             facts/<name>.npy   a number of each entry: its downloads, its size
             vectors.faiss      inner product over normalised embeddings, absent where nothing was encoded

    save(folder, entries, texts, ...)     writes it beside `folder`, then puts it in its place
    Index.load(folder, ...)               maps it into memory; nothing but the vocabulary is read into it

Entries are dicts with a unique "id". Scores come as arrays over all entries, in the entries' order, so that a caller
may combine them; `ranked` makes a list of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from services.kit.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from services.kit.text import words
from services.kit.wire import from_json, to_json

Scores: TypeAlias = npt.NDArray[np.float32]
Numbers: TypeAlias = npt.NDArray[np.int64]

FORMAT = 2
# Anserini's defaults. On DataFinder they beat Okapi's 1.5 and 0.75: cards differ in length for no good reason.
K1, B = 0.9, 0.4


# In a question they mean nothing, and in a small catalogue their rarity is chance.
_FUNCTION_WORDS = frozenset(
    words(
        """a an and are as at be by do for from has have i if in into is it its of on or so that the their them there
        these they this to was we were what which who whose will with you your"""
    )
)


@dataclass(frozen=True)
class Manifest:
    """What an index says of itself."""

    format: int = FORMAT
    entries: int = 0
    source: str = ""
    """Digest of what the entries came from; who builds an index chooses it."""
    encoder: str = ""
    """Digest of the encoder's weights; "" where nothing was encoded."""
    dimension: int = 0
    k1: float = K1
    b: float = B
    versions: dict[str, str] | None = None
    files: dict[str, str] | None = None
    """SHA-256 of each file, by its path in the folder."""


@dataclass(frozen=True)
class Hit:
    """One ranked entry: its number in the index, its score."""

    number: int
    score: float


def save(
    folder: Path,
    entries: Sequence[dict[str, Any]],
    texts: Sequence[str],
    vectors: npt.NDArray[np.float32] | None = None,
    *,
    facts: Mapping[str, npt.NDArray[Any]] | None = None,
    source: str = "",
    encoder: str = "",
    k1: float = K1,
    b: float = B,
) -> Manifest:
    """Writes the index and puts it at `folder`, in place of what is there; a reader sees the old or the new one.

    `vectors`: [entries, dimension], rows of length 1; each of `facts`: [entries].
    InvalidArgument where two entries share an id.
    """
    seen: set[str] = set()
    for entry in entries:
        if entry["id"] in seen:
            raise InvalidArgument(
                "DUPLICATE_ENTRY", f"The catalogue has two entries {entry['id']!r}; ids must be unique."
            )
        seen.add(entry["id"])
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_entries(staging, entries, texts)
        _write_facts(staging, facts or {})
        _write_bm25(staging, texts, k1, b)
        if vectors is not None:
            _write_vectors(staging, vectors)
        manifest = Manifest(
            FORMAT, len(entries), source, encoder, 0 if vectors is None else int(vectors.shape[1]), k1, b,
            {name: importlib.metadata.version(name) for name in ("bm25s", "faiss-cpu", "numpy")}, _digests(staging),
        )  # fmt: skip
        (staging / "manifest.json").write_text(to_json(manifest))
        staging.chmod(0o755)
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of the index at `folder`; None where there is no index. DataLoss where it is no manifest."""
    try:
        return from_json((folder / "manifest.json").read_bytes(), Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise _damaged(folder) from error


class Index:
    """A loaded index. Entries are numbered from 0 in the order in which they were saved."""

    def __init__(self, folder: Path, manifest: Manifest, library: str) -> None:
        self.manifest = manifest
        self._offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        self._lines = _map(folder / "entries.jsonl")
        self.ids: list[str] = json.loads((folder / "ids.json").read_text())
        self._numbers = {id: number for number, id in enumerate(self.ids)}
        self._facts: dict[str, npt.NDArray[Any]] = {
            path.stem: np.load(path, mmap_mode="r") for path in (folder / "facts").glob("*.npy")
        }
        self._bm25 = _load_bm25(folder, manifest, library)
        self._vectors = _load_vectors(folder) if manifest.dimension else None

    @classmethod
    def load(cls, folder: Path, *, library: str = "bm25s") -> Index:
        """Opens the index at `folder`, BM25 by "bm25s" or "rank_bm25".

        NotFound where there is none, FailedPrecondition where it has another format, DataLoss where a file is not what
        was written.
        """
        with _locked(folder, fcntl.LOCK_SH):
            manifest = read_manifest(folder)
            if manifest is None:
                raise NotFound("NO_INDEX", f"There is no index at {folder}: run p2m catalogue build.")
            if manifest.format != FORMAT:
                raise FailedPrecondition(
                    "OTHER_FORMAT", f"The index at {folder} was built by another version: run p2m catalogue build."
                )
            if _digests(folder) != manifest.files:
                raise _damaged(folder)
            return cls(folder, manifest, library)

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, number: int) -> str:
        """The id of the entry with this number."""
        return self.ids[number]

    def fact(self, name: str) -> npt.NDArray[Any]:
        """What the entries' numbers are called `name` (catalogue/facts.py): [entries]. NotFound for another name."""
        if name not in self._facts:
            raise NotFound("NO_FACT", f"This index keeps no {name!r} of its entries: run p2m catalogue build.")
        return self._facts[name]

    def entry(self, number: int) -> dict[str, Any]:
        """The entry with this number."""
        start, end = int(self._offsets[number]), int(self._offsets[number + 1])
        return json.loads(self._lines[start:end])  # type: ignore[no-any-return]

    def number(self, id: str) -> int | None:
        """The number of the entry with this id."""
        return self._numbers.get(id)

    def find(self, id: str) -> dict[str, Any] | None:
        """The entry with this id."""
        number = self._numbers.get(id)
        return None if number is None else self.entry(number)

    def bm25(self, text: str) -> Scores:
        """BM25 of every entry for `text`; 0 where they share no word but "the" and its like."""
        return self._bm25([word for word in words(text) if word not in _FUNCTION_WORDS])

    def nearest(
        self, vector: Sequence[float], n: int, among: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Numbers, Scores]:
        """The `n` entries of the highest cosine with `vector` (of length 1), best first: numbers and cosines.

        Of those alone where `among`, [entries], is true. FailedPrecondition where nothing was encoded, and for a vector
        of another encoder.
        """
        import faiss as typed

        faiss: Any = typed  # its stubs know no SWIG constructor
        n = min(n, len(self) if among is None else int(among.sum()))
        if n <= 0:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        store, query = self._encoded(vector)
        only = None if among is None else faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))
        cosines, numbers = store.search(query, n, params=faiss.SearchParameters(sel=only))
        return numbers[0], cosines[0]

    def cosines(self, vector: Sequence[float], numbers: Numbers) -> Scores:
        """The cosine of these entries with `vector`, in their order. Errors as in `nearest`."""
        if not len(numbers):
            return np.zeros(0, np.float32)
        _, query = self._encoded(vector)
        found: Scores = self.vectors(numbers) @ query[0]
        return found

    def vectors(self, numbers: Numbers) -> Scores:
        """The embeddings of these entries, [numbers, dimension]. FailedPrecondition where nothing was encoded."""
        if self._vectors is None:
            raise _not_encoded()
        found: Scores = self._vectors.reconstruct_batch(np.asarray(numbers, np.int64))
        return found

    def cosine(self, vector: Sequence[float]) -> Scores:
        """The cosine of every entry with `vector` (of length 1). FailedPrecondition where nothing was encoded."""
        scores = np.zeros(len(self), np.float32)
        if len(self):
            numbers, found = self.nearest(vector, len(self))
            scores[numbers] = found
        return scores

    def _encoded(self, vector: Sequence[float]) -> tuple[Any, Scores]:
        """The stored vectors, and the query as FAISS takes it."""
        if self._vectors is None:
            raise _not_encoded()
        query = np.asarray([vector], np.float32)
        if query.shape[1] != self.manifest.dimension:
            raise FailedPrecondition(
                "OTHER_ENCODER",
                f"The query has {query.shape[1]} dimensions and the index {self.manifest.dimension}: another encoder "
                "built it. Run p2m catalogue build.",
            )
        return self._vectors, query


def ranked(scores: Scores, k: int, matches: npt.NDArray[np.bool_] | None = None) -> list[Hit]:
    """The `k` best entries, best first, ties in the entries' order: of those in `matches`, or with a score above 0."""
    kept = np.flatnonzero(scores > 0 if matches is None else matches)
    if k <= 0:
        return []
    found = scores[kept]
    if len(kept) > k:
        worst = np.partition(found, len(found) - k)[len(found) - k]
        better, equal = found > worst, np.flatnonzero(found == worst)
        better[equal[: k - int(better.sum())]] = True
        kept, found = kept[better], found[better]
    order = np.argsort(-found, kind="stable")
    return [Hit(int(number), float(score)) for number, score in zip(kept[order], found[order], strict=True)]


def standardised(scores: Scores) -> Scores:
    """Scores with mean 0 and deviation 1 over all entries; all 0 where they are all the same."""
    deviation = float(scores.std()) if len(scores) else 0.0
    return np.zeros_like(scores) if deviation == 0 else (scores - scores.mean()) / deviation


def _not_encoded() -> FailedPrecondition:
    return FailedPrecondition("NOT_ENCODED", "This index holds no embeddings: run p2m catalogue build.")


def _damaged(folder: Path) -> DataLoss:
    return DataLoss(
        "INDEX_DAMAGED",
        f"The index at {folder} is not what was built: delete that folder, or run p2m catalogue build again.",
    )


# -- writing


def _write_entries(folder: Path, entries: Sequence[dict[str, Any]], texts: Sequence[str]) -> None:
    offsets = [0]
    with (folder / "entries.jsonl").open("wb") as file:
        for entry in entries:
            offsets.append(offsets[-1] + file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n"))
    np.save(folder / "offsets.npy", np.asarray(offsets, np.int64))
    (folder / "ids.json").write_text(json.dumps([entry["id"] for entry in entries]))
    with (folder / "texts.jsonl").open("w") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)


def _write_facts(folder: Path, facts: Mapping[str, npt.NDArray[Any]]) -> None:
    (folder / "facts").mkdir()
    for name, values in facts.items():
        np.save(folder / "facts" / f"{name}.npy", values)


def _write_bm25(folder: Path, texts: Sequence[str], k1: float, b: float) -> None:
    import bm25s

    tokens = [words(text) for text in texts]
    if not any(tokens):
        return
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    index.index(tokens, show_progress=False)
    index.save(folder / "bm25", show_progress=False)


def _write_vectors(folder: Path, vectors: npt.NDArray[np.float32]) -> None:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, np.float32))
    faiss.write_index(index, str(folder / "vectors.faiss"))


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"):
        with path.open("rb") as file:
            digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _put_in_place(staging: Path, folder: Path) -> None:
    with _locked(folder, fcntl.LOCK_EX):
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            folder.rename(old / "old")
            staging.rename(folder)
            # Who has the old one mapped keeps it: its blocks are freed with the last mapping.
            shutil.rmtree(old, ignore_errors=True)
        else:
            staging.rename(folder)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Keeps a reader from opening files of two indexes while one takes the other's place."""
    try:
        lock = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:  # a folder that is only to be read is nobody's to replace
        yield
        return
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)


# -- reading


def _map(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def _load_bm25(folder: Path, manifest: Manifest, library: str) -> Callable[[list[str]], Scores]:
    zeros = np.zeros(manifest.entries, np.float32)
    if not (folder / "bm25").is_dir():
        return lambda _: zeros.copy()
    if library == "rank_bm25":
        return _rank_bm25(folder, manifest)
    import bm25s

    index = bm25s.BM25.load(folder / "bm25", mmap=True, show_progress=False)

    def scores(tokens: list[str]) -> Scores:
        known = [token for token in tokens if token in index.vocab_dict]
        return index.get_scores(known) if known else zeros.copy()

    return scores


def _rank_bm25(folder: Path, manifest: Manifest) -> Callable[[list[str]], Scores]:
    """Okapi BM25 by rank_bm25, made anew from the texts: that library keeps no files."""
    from rank_bm25 import BM25Okapi

    with (folder / "texts.jsonl").open() as file:
        index = BM25Okapi([words(json.loads(line)) for line in file], k1=manifest.k1, b=manifest.b)
    return lambda tokens: np.asarray(index.get_scores(tokens), np.float32)


def _load_vectors(folder: Path) -> Any:
    import faiss

    return faiss.read_index(str(folder / "vectors.faiss"), faiss.IO_FLAG_MMAP_IFC)
