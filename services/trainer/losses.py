"""What a student is trained on: the cross entropy of its outputs' tokens, never of its inputs'.

    OutputLoss(student)(rows) ── loss          the sum over the rows' output tokens, with a gradient
    score(student, rows) ── Score              the same without, and how many rows come out right

Greedy generation writes a row's output exactly when at each of its places, given what stands before it, the likeliest
token is the output's. One pass therefore tells the exact match that generation token by token would have.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from services.trainer.pretrained import Student

IGNORED = -100

Rows = Sequence[tuple[Sequence[int], Sequence[int]]]


class OutputLoss(torch.nn.Module):  # type: ignore[misc]
    """The loss as a module, so that it can be trained by several processes. `label_smoothing`: 0 to below 1."""

    def __init__(self, student: Student, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model = student.model
        self._student = student
        self._label_smoothing = label_smoothing

    def forward(self, rows: Rows) -> torch.Tensor:
        """The sum of the cross entropies of the rows' output tokens."""
        logits, targets = _logits(self._student, self.model, rows)
        return _loss(logits, targets, self._label_smoothing)


@dataclass(frozen=True)
class Score:
    """Sums over rows: loss, output tokens, rows whose every token is the likeliest, rows."""

    loss: float
    tokens: int
    right: int
    rows: int


@torch.inference_mode()  # type: ignore[untyped-decorator]
def score(student: Student, rows: Rows) -> Score:
    """How the student does on these rows. Its model must be in evaluation mode."""
    logits, targets = _logits(student, student.model, rows)
    right = ((logits.argmax(-1) == targets) | (targets == IGNORED)).all(-1).sum()
    return Score(_loss(logits, targets).item(), output_tokens(rows), int(right), len(rows))


def output_tokens(rows: Rows) -> int:
    """How many tokens a loss is the sum of."""
    return sum(len(written) for _, written in rows)


def half_precision(on: torch.device) -> contextlib.AbstractContextManager[Any]:
    """On a GPU, matrix products in bfloat16 where it has them; the weights stay in 32 bits.

    Not on a CPU: there even the sums between layers would be rounded, and a tiny model learnt visibly less.
    """
    able = on.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast("cuda", torch.bfloat16) if able else contextlib.nullcontext()


def _loss(logits: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    return cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(),
        ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing,
    )  # fmt: skip


def _logits(student: Student, model: Any, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [rows, places, vocabulary or labels] and targets [rows, places], IGNORED where there is none."""
    on = next(model.parameters()).device
    reads, writes = [read for read, _ in rows], [written for _, written in rows]
    with half_precision(on):
        if student.labels:
            ids, mask = _padded(reads, student.pad, on)
            logits = model(input_ids=ids, attention_mask=mask).logits
            return logits[:, None], torch.tensor([[int(written[0])] for written in writes], device=on)
        if not student.decoder_only:
            ids, mask = _padded(reads, student.pad, on)
            before, _ = _padded([[student.start, *written[:-1]] for written in writes], student.pad, on)
            logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=before).logits
            return logits, _padded(writes, IGNORED, on)[0]
        ids, mask = _padded([np.concatenate(row) for row in rows], student.pad, on)
        targets, _ = _padded([np.concatenate(([IGNORED] * len(read), written)) for read, written in rows], IGNORED, on)
        # What is before all outputs is not asked for: a large vocabulary's logits cost as much as many layers.
        first = min(len(read) for read in reads) - 1
        places = torch.arange(first, ids.shape[1] - 1, device=on)
        if _takes_places(model):
            logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=places).logits
        else:
            logits = model(input_ids=ids, attention_mask=mask).logits[:, first:-1]
        return logits, targets[:, first + 1 :]


def _takes_places(model: Any) -> bool:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters


def _padded(rows: Sequence[Any], value: int, on: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tensors [rows, longest]: the tokens, filled up at the right with `value`; 1 where a token is, 0 where filled."""
    lengths = np.array([len(row) for row in rows])
    ids = np.full((len(rows), lengths.max()), value, np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
    return torch.from_numpy(ids).to(on), torch.from_numpy(mask).to(on)
