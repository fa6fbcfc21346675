"""How fast the trainer's step is: one JSON line.

    python -m bench.training --model DIR --data FILE [--limit N] --epochs E --batch-size B --max-length L [--out DIR]
                             [--bound]

seconds           of tokenising and training; imports, loading, validation and saving are not in it
items_per_second  rows times epochs, by seconds
padding_share     of the tokens in the batches, in percent
final_loss        mean loss per output token over the last epoch
bound_share       with --bound: the time that the same machine needs for the matrix products of the unpadded rows alone,
                  at the rate of one large product, in percent of `seconds`; null without

The data are rows of input and output. An encoder alone becomes an encoder-decoder, as in a run. Inputs and outputs are
cut to L tokens, and to what the model can take.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.kit.rows import read_files
from services.kit.settings import Settings
from services.kit.values import PromptSpec


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="a folder with safetensors")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="JSON lines of input and output")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N rows")
    parser.add_argument("--epochs", required=True, type=int, metavar="E")
    parser.add_argument("--batch-size", required=True, type=int, metavar="B", help="rows in a step")
    parser.add_argument("--max-length", required=True, type=int, metavar="L", help="most tokens of an input")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the trained model here")
    parser.add_argument("--bound", action="store_true", help="measure the machine's own limit too")
    args = parser.parse_args()

    # These import torch, which would slow down --help.
    from services.trainer import pretrained
    from services.trainer.train import prepare_torch

    rows = read_files(args.data)[: args.limit]
    prepare_torch(Settings().threads)
    student = pretrained.load(args.model, 0, args.max_length, args.max_length)
    measured, data = _train(student, rows, args.epochs, args.batch_size)
    bound = _bound_seconds(student, data) * args.epochs if args.bound else None
    measured["bound_share"] = None if bound is None else round(100 * bound / measured["seconds"], 2)
    if args.out:
        pretrained.save(student, args.out)
    print(json.dumps(measured))
    return 0


def _train(student: Any, rows: Sequence[Any], epochs: int, batch_size: int) -> tuple[dict[str, Any], Any]:
    """The figures, and the tokens of the rows."""
    from services.trainer.batches import batches, padding_share
    from services.trainer.train import adamw, set_learning_rate, step

    started = time.perf_counter()
    data = student.encode(PromptSpec(), [row.input for row in rows], [row.output for row in rows])
    lengths = [(len(read), len(written)) for read, written in data]
    by_epoch = [batches(lengths, 1 << 60, 0, epoch, batch_size) for epoch in range(epochs)]
    plan = [batch for epoch in by_epoch for batch in epoch]
    optimizer = adamw(student.model, 5e-5)
    losses = []
    for number, batch in enumerate(plan):
        set_learning_rate(optimizer, number, len(plan))
        losses.append(step(student, [data[row] for row in batch], optimizer))
        print(f"\rstep {number + 1} of {len(plan)}", end="", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - started
    print(file=sys.stderr)
    last = losses[-len(by_epoch[-1]) :]
    figures = {
        "seconds": round(seconds, 3),
        "items_per_second": round(len(rows) * epochs / seconds, 3),
        "padding_share": round(100 * padding_share(lengths, plan), 2),
        "final_loss": round(sum(loss for loss, _ in last) / sum(tokens for _, tokens in last), 4),
    }
    return figures, data


def _bound_seconds(student: Any, data: Sequence[tuple[list[int], list[int]]]) -> float:
    """Seconds for one epoch's matrix products over the unpadded rows, at the machine's rate."""
    flops = _flops_by_length(student)
    return float(sum(flops(len(read), len(written)) for read, written in data) / _flops_per_second())


def _flops_by_length(student: Any) -> Any:
    """The operations of one row's forward and backward pass as a function of what it reads and writes.

    They are a polynomial of degree two in both lengths, so that a few counted rows give it exactly.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from services.trainer.train import loss_of

    student.model.set_attn_implementation("eager")  # the counter does not know every fused kernel
    counted = {}
    for read in (8, 16, 32):
        for written in (4, 8, 12):
            with FlopCounterMode(display=False) as counter:
                loss_of(student, [([student.eos] * read, [student.eos] * written)])[0].backward()
            counted[read, written] = counter.get_total_flops()
    student.model.zero_grad(set_to_none=True)

    def terms(read: int, written: int) -> list[float]:
        return [1, read, written, read * read, written * written, read * written]

    points = torch.tensor([terms(*lengths) for lengths in counted], dtype=torch.float64)
    values = torch.tensor(list(counted.values()), dtype=torch.float64)
    weights = torch.linalg.lstsq(points, values).solution
    return lambda read, written: float(torch.tensor(terms(read, written), dtype=torch.float64) @ weights)


def _flops_per_second(size: int = 2048, repeats: int = 10) -> float:
    """Operations a second in the best of some square matrix products in 32 bits, on the device of the training."""
    import torch

    from services.trainer.train import device

    a, b = (torch.rand(size, size, device=device()) for _ in range(2))
    best = 0.0
    for _ in range(repeats):
        started = time.perf_counter()
        product = a @ b
        float(product[0, 0])  # waits for a device that works in the background
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    sys.exit(main())
