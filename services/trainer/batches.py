"""Batches of rows of like length, so that little is padded.

    batches(lengths, batch_tokens, seed, epoch)      the rows of an epoch, a list of row numbers a step
    Plan(lengths, batch_tokens, seed, epochs)        the steps of a whole training, made an epoch at a time
    passes(batch, lengths, most_tokens, ...)         the passes of a batch, which fit into memory and pad little

Rows are shuffled, sorted by length within pools of many batches, packed until a batch would have more than so many
tokens with its padding, and the batches are shuffled again. The order is a pure function of the seed and the epoch: a
resumed training goes on in it.

A step of nothing but short rows, and then one of nothing but long ones, learns less than two that are mixed. So a
large batch is glued of parts, rows alike in each, which go through the model one after the other (`passes`).
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
# Of a step: more mix better and pad more. Each is a pass, which costs as much as a hundred tokens: a part has ten times
# as many.
_PARTS, _PART_TOKENS = 2, 1024
# The limit of batches that are limited by their rows.
ANY_TOKENS = 1 << 60
_NEVER = np.iinfo(np.int64).max

Numbers = npt.NDArray[np.int64]
Lengths = Numbers | Sequence[tuple[int, int]]
Batch = list[int]


def batches(
    lengths: Lengths, batch_tokens: int, seed: int, epoch: int, max_rows: int = 1 << 30, parts: int = 1
) -> list[Batch]:
    """The rows' numbers, batch by batch, each once.

    `lengths` are the tokens that each row reads and writes. A batch's rows times the longest of both, added up over its
    parts, is at most `batch_tokens`, except for a row that is longer alone. A part has about 1/`parts` of that.
    """
    sizes = np.asarray(lengths, np.int64).reshape(-1, 2)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:16]))
    order = rng.permutation(len(sizes))
    pools = [order[start : start + _POOL_ROWS] for start in range(0, len(order), _POOL_ROWS)]

    def packed(pool: Numbers, band: float) -> list[Batch]:
        near = pool[_by_length(sizes[pool], band)]
        return list(_pack(near.tolist(), sizes[near].tolist(), batch_tokens // parts, max(1, max_rows // parts)))

    band = min(_BANDS, key=lambda band: padding_share(sizes, packed(pools[0], band))) if pools else 0.0
    made = [batch for pool in pools for batch in packed(pool, band)]
    shuffled = [made[place] for place in rng.permutation(len(made))]
    return shuffled if parts == 1 else list(_glue(shuffled, sizes, batch_tokens, max_rows))


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
        parts = max(1, min(_PARTS, batch_tokens // _PART_TOKENS))
        self._make = partial(batches, lengths, batch_tokens, seed, max_rows=max_rows, parts=parts)
        self._first = self._make(0)
        self.epoch_steps = len(self._first)
        self.steps = max(1, round(self.epoch_steps * epochs))

    def from_step(self, step: int) -> Iterator[Batch]:
        """The batches from that step on."""
        epochs = itertools.chain([self._first], (self._make(epoch) for epoch in itertools.count(1)))
        return itertools.islice(itertools.chain.from_iterable(epochs), step, self.steps)


def passes(batch: Batch, lengths: Lengths, most_tokens: int, pass_tokens: int) -> list[Batch]:
    """The batch in passes, neighbours together, that take the least time: padding costs, and so does each pass.

    A pass has at most `most_tokens`, padding included; a longer row is a pass by itself. `pass_tokens`: how many tokens
    could be computed in the time that a pass takes beside its tokens.
    """
    sizes = np.asarray(lengths, np.int64).reshape(-1, 2)[batch]
    # The longest rows of the pass that goes from each start to `end`.
    longest = np.zeros((len(batch), 2), np.int64)
    # least[end] is the cost of the first `end` rows, cut[end] where their last pass begins.
    least, cut = np.zeros(len(batch) + 1, np.int64), [0] * (len(batch) + 1)
    for end in range(1, len(batch) + 1):
        np.maximum(longest[:end], sizes[end - 1], out=longest[:end])
        tokens = np.arange(end, 0, -1) * longest[:end].sum(axis=1)
        cost = least[:end] + tokens + pass_tokens
        cost[:-1][tokens[:-1] > most_tokens] = _NEVER
        cut[end] = end - 1 - int(cost[::-1].argmin())
        least[end] = cost[cut[end]]
    found: list[Batch] = []
    end = len(batch)
    while end:
        found.append(batch[cut[end] : end])
        end = cut[end]
    return found[::-1]


def padding_share(lengths: Lengths, packed: Sequence[Batch]) -> float:
    """The share of the batches' tokens that is padding, 0 to 1."""
    sizes = np.asarray(lengths, np.int64).reshape(-1, 2)
    computed = sum(len(batch) * int(sizes[batch].max(axis=0).sum()) for batch in packed)
    wanted = sum(int(sizes[batch].sum()) for batch in packed)
    return 1 - wanted / computed if computed else 0.0


def _glue(parts: Sequence[Batch], sizes: Numbers, batch_tokens: int, max_rows: int) -> Iterator[Batch]:
    batch: Batch = []
    taken = 0
    for part in parts:
        tokens = len(part) * int(sizes[part].max(axis=0).sum())
        if batch and (taken + tokens > batch_tokens or len(batch) + len(part) > max_rows):
            yield batch
            batch, taken = [], 0
        batch, taken = [*batch, *part], taken + tokens
    if batch:
        yield batch


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
