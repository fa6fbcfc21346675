"""Batches of rows of like length, so that little is padded.

    batches(lengths, batch_tokens, seed, epoch)      the rows of an epoch, a list of row numbers a step
    Plan(lengths, batch_tokens, seed, epochs)        the steps of a whole training, made an epoch at a time
    passes(batch, lengths, most_tokens)              a batch in parts that each fit into memory

Rows are shuffled, sorted by length within pools of many batches, packed until a batch would have more than so many
tokens with its padding, and the batches are shuffled again. The order is a pure function of the seed and the epoch: a
resumed training goes on in it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

# Rows that are sorted together: more pads less, fewer shuffles better.
_POOL_ROWS = 4096
# The limit of batches that are limited by their rows.
ANY_TOKENS = 1 << 60

Lengths = npt.NDArray[np.int64] | Sequence[tuple[int, int]]
Batch = list[int]


def batches(lengths: Lengths, batch_tokens: int, seed: int, epoch: int, max_rows: int = 1 << 30) -> list[Batch]:
    """The rows' numbers, batch by batch, each once.

    `lengths` are the tokens that each row reads and writes. A batch's rows times the longest of both is at most
    `batch_tokens`, except for a row that is longer alone.
    """
    sizes = np.asarray(lengths, np.int64).reshape(-1, 2)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:16]))
    order = rng.permutation(len(sizes))
    packed: list[Batch] = []
    for start in range(0, len(order), _POOL_ROWS):
        pool = order[start : start + _POOL_ROWS]
        pool = pool[np.lexsort((sizes[pool, 1], sizes[pool, 0]))]
        packed.extend(_pack(pool.tolist(), sizes[pool].tolist(), batch_tokens, max_rows))
    return [packed[place] for place in rng.permutation(len(packed))]


class Plan:
    """The steps of a training: `steps` batches, as many epochs one after the other as they take.

    An epoch has `epoch_steps` batches, as the first has; another order may pack a batch more or less.
    """

    def __init__(self, lengths: Lengths, batch_tokens: int, seed: int, epochs: float, max_rows: int = 1 << 30) -> None:
        self._make = partial(batches, lengths, batch_tokens, seed, max_rows=max_rows)
        self._first = self._make(0)
        self.epoch_steps = len(self._first)
        self.steps = max(1, round(self.epoch_steps * epochs))

    def from_step(self, step: int) -> Iterator[Batch]:
        """The batches from that step on."""
        epochs = itertools.chain([self._first], (self._make(epoch) for epoch in itertools.count(1)))
        return itertools.islice(itertools.chain.from_iterable(epochs), step, self.steps)


def passes(batch: Batch, lengths: Lengths, most_tokens: int) -> list[Batch]:
    """The batch in parts of at most so many tokens, padding included; a longer row is a part by itself."""
    return list(_pack(batch, [(int(lengths[row][0]), int(lengths[row][1])) for row in batch], most_tokens, len(batch)))


def padding_share(lengths: Lengths, packed: Sequence[Batch]) -> float:
    """The share of the batches' tokens that is padding, 0 to 1."""
    sizes = np.asarray(lengths, np.int64).reshape(-1, 2)
    computed = sum(len(batch) * int(sizes[batch].max(axis=0).sum()) for batch in packed)
    wanted = sum(int(sizes[batch].sum()) for batch in packed)
    return 1 - wanted / computed if computed else 0.0


def _pack(rows: Sequence[int], sizes: Sequence[Sequence[int]], batch_tokens: int, max_rows: int) -> Iterator[Batch]:
    batch: Batch = []
    read = written = 0
    for row, (reads, writes) in zip(rows, sizes, strict=True):
        longer = max(read, reads), max(written, writes)
        if batch and (len(batch) == max_rows or (len(batch) + 1) * sum(longer) > batch_tokens):
            yield batch
            batch, longer = [], (reads, writes)
        batch.append(row)
        read, written = longer
    if batch:
        yield batch
