"""The tokens of a split, in files that are mapped into memory: a million rows take no room in Python.

    tokenise(student, spec, rows, folder) ── Tokens      each row once, thousands at a time, by the tokenizer's threads
    tokens[row]                                          what is read, what is to be written
    tokens.lengths                                       [rows, 2]

A list of a row's tokens would take 36 bytes a token; here it is 4, and the system may drop what is not being used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from services.kit.values import PromptSpec, Row
from services.trainer.pretrained import Student

Numbers = npt.NDArray[np.int32]

_ROWS_AT_ONCE = 4096
_NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class Tokens:
    """Rows as numbers. `inputs_cut` and `outputs_cut` count the rows that were longer than the student's limits."""

    flat: Numbers
    lengths: npt.NDArray[np.int64]
    inputs_cut: int = 0
    outputs_cut: int = 0

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum(self.lengths.sum(axis=1))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> tuple[Numbers, Numbers]:
        read, written = self.lengths[row]
        end = self._ends[row]
        return self.flat[end - written - read : end - written], self.flat[end - written : end]


def tokenise(student: Student, spec: PromptSpec, rows: Sequence[Row], path: Path) -> Tokens:
    """The rows' tokens, at most as many as the student takes, written to the file `path`."""
    lengths = np.zeros((len(rows), 2), np.int64)
    cut = np.zeros(2, np.int64)
    with path.open("wb") as file:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = rows[start : start + _ROWS_AT_ONCE]
            lengths[start : start + len(chunk)], longer = _write(student, spec, chunk, file)
            cut += longer
    flat = np.memmap(path, np.int32, "r") if lengths.any() else np.zeros(0, np.int32)
    return Tokens(flat, lengths, int(cut[0]), int(cut[1]))


def _write(
    student: Student, spec: PromptSpec, rows: Sequence[Row], file: BinaryIO
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Appends the rows' tokens to the file; their lengths, and how many inputs and outputs were cut."""
    limits = np.array([student.max_input_tokens, student.max_output_tokens])
    whole = replace(student, max_input_tokens=_NO_LIMIT, max_output_tokens=_NO_LIMIT)
    encoded = whole.encode(spec, [row.input for row in rows], [row.output for row in rows])
    longer = np.array([[len(read), len(written)] for read, written in encoded]) > limits
    over = [int(row) for row in np.flatnonzero(longer.any(axis=1))]
    if over:
        shorter = student.encode(spec, [rows[row].input for row in over], [rows[row].output for row in over])
        for row, tokens in zip(over, shorter, strict=True):
            encoded[row] = tokens
    np.fromiter(chain.from_iterable(chain.from_iterable(encoded)), np.int32).tofile(file)
    return np.array([[len(read), len(written)] for read, written in encoded]), longer.sum(axis=0)
