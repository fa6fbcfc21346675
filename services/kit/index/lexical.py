"""BM25 over texts: written in one pass and little memory, served by bm25s (or, slowly, by rank_bm25).

The arrays are bm25s's own (a sparse matrix of finished scores, a column for each word; its "lucene" scoring), made
here by numpy in blocks of entries: bm25s itself holds every word of every text as a Python object, gigabytes of them
for two million entries. The words that mean nothing in a question have an empty column; they count in an entry's
length.

    data.csc.index.npy      float32, the scores, column after column
    indices.csc.index.npy   int32, whose they are
    indptr.csc.index.npy    int64, where each column begins
    words.*                 the words, in the columns' order
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.kit.index.lines import Lines, Names, write_names
from services.kit.index.scores import Scores
from services.kit.text import words

# Anserini's defaults. On DataFinder they beat Okapi's 1.5 and 0.75: cards differ in length for no good reason.
K1, B = 0.9, 0.4

# In a question they mean nothing, and in a small catalogue their rarity is chance.
FUNCTION_WORDS = tuple(
    words(
        """a an and are as at be by do for from has have i if in into is it its of on or so that the their them there
        these they this to was we were what which who whose will with you your"""
    )
)
_FUNCTION_WORDS = frozenset(FUNCTION_WORDS)
_BLOCK = 50_000


def terms(text: str) -> list[str]:
    """The words of a query that are searched for."""
    return [word for word in words(text) if word not in _FUNCTION_WORDS]


def write(folder: Path, texts: Iterable[str], k1: float, b: float) -> None:
    """Writes the index of the texts into `folder`; nothing where no text holds a word."""
    columns: defaultdict[str, int] = defaultdict()
    columns.default_factory = columns.__len__
    for word in FUNCTION_WORDS:
        columns[word]
    blocks, lengths = [], array("i")
    ids = array("i")
    for text in texts:
        tokens = words(text)
        ids.extend(map(columns.__getitem__, tokens))
        lengths.append(len(tokens))
        if len(lengths) % _BLOCK == 0:
            blocks.append(_block(ids, lengths, len(lengths) - _BLOCK))
            ids = array("i")
    if len(lengths) % _BLOCK:
        blocks.append(_block(ids, lengths, len(lengths) - len(lengths) % _BLOCK))
    if not any(lengths):
        return
    folder.mkdir()
    write_names(folder, "words", columns)
    _write_matrix(folder, blocks, np.frombuffer(lengths, np.int32), len(columns), k1, b)


def serve(folder: Path, texts: Lines, library: str, k1: float, b: float) -> Callable[[Sequence[str]], Scores]:
    """A function that scores every entry for some words, by "bm25s" or "rank_bm25"."""
    if not folder.is_dir():
        return lambda _: np.zeros(len(texts), np.float32)
    if library == "rank_bm25":
        return _rank_bm25(texts, k1, b)
    import bm25s

    known = Names(folder, "words")
    index = bm25s.BM25.load(folder, mmap=True, load_vocab=False, show_progress=False)
    index.scores |= {name: index.scores[name].view(np.ndarray) for name in ("data", "indices", "indptr")}

    def scores(tokens: Sequence[str]) -> Scores:
        columns = known.numbers(tokens)
        found: Scores = index.get_scores_from_ids(columns[columns >= 0])
        return found

    return scores


def _rank_bm25(texts: Lines, k1: float, b: float) -> Callable[[Sequence[str]], Scores]:
    """Okapi BM25 by rank_bm25, made anew from the texts: that library keeps no files."""
    from rank_bm25 import BM25Okapi

    index = BM25Okapi([words(text) for text in texts], k1=k1, b=b)
    return lambda tokens: np.asarray(index.get_scores(tokens), np.float32)


_Block = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]


def _block(ids: array[int], lengths: array[int], first: int) -> _Block:
    """Words, entries and counts of some entries, sorted by word, then by entry."""
    entries = np.repeat(np.arange(len(lengths) - first), np.frombuffer(lengths, np.int32)[first:])
    pairs, counts = np.unique((np.frombuffer(ids, np.int32).astype(np.int64) << 32) | entries, return_counts=True)
    start = np.searchsorted(pairs, len(FUNCTION_WORDS) << 32)
    pairs, counts = pairs[start:], counts[start:]
    return (pairs >> 32).astype(np.int32), (pairs & 0xFFFFFFFF).astype(np.int32) + first, counts.astype(np.int32)


def _write_matrix(
    folder: Path, blocks: list[_Block], lengths: npt.NDArray[np.int32], columns: int, k1: float, b: float
) -> None:
    frequencies = np.zeros(columns, np.int64)
    for column, _, _ in blocks:
        frequencies += np.bincount(column, minlength=columns)
    starts = np.concatenate([[0], np.cumsum(frequencies)])
    np.save(folder / "indptr.csc.index.npy", starts)
    data = _array(folder / "data.csc.index.npy", np.float32, int(starts[-1]))
    indices = _array(folder / "indices.csc.index.npy", np.int32, int(starts[-1]))
    idf = np.log(1 + (len(lengths) - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
    norms = (k1 * ((1 - b) + b * lengths / lengths.mean())).astype(np.float32)
    heads = starts[:-1].copy()
    while blocks:
        column, entry, count = blocks.pop(0)
        present, first, number = np.unique(column, return_index=True, return_counts=True)
        places = np.arange(len(column)) + np.repeat(heads[present] - first, number)
        data[places] = idf[column] * (count / (count + norms[entry]))
        indices[places] = entry
        heads[present] += number
    parameters = {"k1": k1, "b": b, "method": "lucene", "num_docs": len(lengths), "backend": "numpy"}
    (folder / "params.index.json").write_text(json.dumps(parameters))


def _array(path: Path, kind: Any, length: int) -> npt.NDArray[Any]:
    if not length:  # a file of no elements cannot be mapped
        np.save(path, np.zeros(0, kind))
        return np.zeros(0, kind)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(length,))
