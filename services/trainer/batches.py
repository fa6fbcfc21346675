"""Batches of rows of like length, so that little is padded.

    batches(lengths, batch_tokens, seed, epoch)      the rows of an epoch, a list of row numbers a step
    Plan(lengths, batch_tokens, seed, epochs)        the steps of a whole training, made an epoch at a time
    passes(batch, lengths, most_tokens, ...)         a batch in parts that each fit into memory and pad little

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
# How much a band's rows differ in what they write, as a logarithm: the one that pads least is taken.
_BANDS = (100.0, 1.4, 0.7, 0.4, 0.2, 0.1)
# The limit of batches that are limited by their rows.
ANY_TOKENS = 1 << 60

Numbers = npt.NDArray[np.int64]
Lengths = Numbers | Sequence[tuple[int, int]]
Batch = list[int]


def batches(lengths: Lengths, batch_tokens: int, seed: int, epoch: int, max_rows: int = 1 << 30) -> list[Batch]:
    """The rows' numbers, batch by batch, each once.

    `lengths` are the tokens that each row reads and writes. A batch's rows times the longest of both is at most
    `batch_tokens`, except for a row that is longer alone.
    """
    sizes = np.asarray(lengths, np.int64).reshape(-1, 2)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:16]))
    order = rng.permutation(len(sizes))
    pools = [order[start : start + _POOL_ROWS] for start in range(0, len(order), _POOL_ROWS)]

    def packed(pool: Numbers, band: float) -> list[Batch]:
        near = pool[_by_length(sizes[pool], band)]
        return list(_pack(near.tolist(), sizes[near].tolist(), batch_tokens, max_rows))

    band = min(_BANDS, key=lambda band: padding_share(sizes, packed(pools[0], band))) if pools else 0.0
    made = [batch for pool in pools for batch in packed(pool, band)]
    return [made[place] for place in rng.permutation(len(made))]


def _by_length(sizes: Numbers, band: float) -> Numbers:
    """An order in which neighbours are alike in both lengths: bands of rows that write about as much, `band` wide on a
    logarithmic scale, each sorted by what is read, up and down in turn."""
    bands = np.floor(np.log(np.maximum(1, sizes[:, 1])) / band).astype(np.int64)
    up_and_down = np.where(np.unique(bands, return_inverse=True)[1] % 2, -1, 1)
    return np.lexsort((sizes[:, 1], sizes[:, 0] * up_and_down, bands))


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


def passes(batch: Batch, lengths: Lengths, most_tokens: int, pass_tokens: int) -> list[Batch]:
    """The batch in parts, neighbours together, that take the least time: padding costs, and so does each pass.

    A part has at most `most_tokens`, padding included; a longer row is a part by itself. `pass_tokens`: how many tokens
    could be computed in the time that a pass takes beside its tokens.
    """
    sizes = [(int(lengths[row][0]), int(lengths[row][1])) for row in batch]
    # least[end] is the cost of the first `end` rows, cut[end] where their last part begins.
    least, cut = [0, *[1 << 60] * len(batch)], [0] * (len(batch) + 1)
    for end in range(1, len(batch) + 1):
        read = written = 0
        for start in range(end - 1, -1, -1):
            read, written = max(read, sizes[start][0]), max(written, sizes[start][1])
            tokens = (end - start) * (read + written)
            if tokens > most_tokens and end - start > 1:
                break
            if (cost := least[start] + tokens + pass_tokens) < least[end]:
                least[end], cut[end] = cost, start
    parts: list[Batch] = []
    end = len(batch)
    while end:
        parts.append(batch[cut[end] : end])
        end = cut[end]
    return parts[::-1]


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
