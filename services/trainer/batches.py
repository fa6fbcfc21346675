"""Batches of rows of like length, so that little is padded.

Rows are shuffled, sorted by length within pools of many batches, packed until a batch would have more than so many
tokens with its padding, and the batches are shuffled again. The order is a pure function of the seed and the epoch: a
resumed training goes on in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

# Rows that are sorted together: more pads less, fewer shuffles better.
_POOL_ROWS = 1024

Lengths = Sequence[tuple[int, int]]


def batches(lengths: Lengths, batch_tokens: int, seed: int, epoch: int, max_rows: int = 1 << 30) -> list[list[int]]:
    """The rows' indices, batch by batch, each once.

    `lengths` are the tokens that each row reads and writes. A batch's rows times the longest of both is at most
    `batch_tokens`, except for a row that is longer alone.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    packed: list[list[int]] = []
    for start in range(0, len(order), _POOL_ROWS):
        pool = sorted(order[start : start + _POOL_ROWS], key=lambda row: lengths[row])
        packed.extend(_pack(pool, lengths, batch_tokens, max_rows))
    rng.shuffle(packed)
    return packed


def padding_share(lengths: Lengths, packed: Sequence[Sequence[int]]) -> float:
    """The share of the batches' tokens that is padding, 0 to 1."""
    computed = sum(_padded(batch, lengths) for batch in packed)
    wanted = sum(sum(lengths[row]) for batch in packed for row in batch)
    return 1 - wanted / computed if computed else 0.0


def _pack(pool: Sequence[int], lengths: Lengths, batch_tokens: int, max_rows: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for row in pool:
        if batch and (len(batch) == max_rows or _padded([*batch, row], lengths) > batch_tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _padded(batch: Sequence[int], lengths: Lengths) -> int:
    return len(batch) * (max(lengths[row][0] for row in batch) + max(lengths[row][1] for row in batch))
