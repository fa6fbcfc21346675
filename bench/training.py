"""How fast the trainer's step is: one JSON line.

    python -m bench.training --model DIR --data FILE [--limit N] --epochs E --batch-size B --max-length L [--out DIR]
                             [--bound] [--batch-tokens T] [--learning-rate R] [--plain-outputs]

seconds                 of tokenising and training; imports, loading, validation and saving are not in it
items_per_second        rows times epochs, by seconds
tokens_per_second       tokens read and written, padding not counted, by seconds
padding_share           of the tokens in the batches, in percent
final_loss              mean loss per output token over the last epoch
bare_tokens_per_second  with --bound: tokens a second of a bare loop: the same model, rows of L tokens each, tokenised
                        before, as many tokens in a batch as above; nothing is padded, sorted, clipped, logged, saved
bound_share             with --bound: tokens_per_second in percent of bare_tokens_per_second; null without

The bare loop's steps are taken in turn with the others, so that a busy machine slows down both. The data are rows of
input and output. An encoder alone becomes an encoder-decoder, as in a run. Inputs and outputs are cut to L tokens, and
to what the model can take. Rows are as in a run, copied words of an encoder's replaced. Batches are as well, by their
tokens: T, or those of B rows on average. With --plain-outputs a WordPiece student does not learn where no space is: it
has fewer tokens to write, and writes "n / a".
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
    parser.add_argument("--batch-size", required=True, type=int, metavar="B", help="rows in a step, on average")
    parser.add_argument("--max-length", required=True, type=int, metavar="L", help="most tokens of an input")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the trained model here")
    parser.add_argument("--bound", action="store_true", help="measure a bare loop too")
    parser.add_argument("--batch-tokens", type=int, metavar="T", help="tokens in a step, instead of B rows' mean")
    parser.add_argument("--plain-outputs", action="store_true", help="spell outputs as the model's own tokenizer does")
    parser.add_argument("--learning-rate", type=float, default=5e-5, metavar="R")
    args = parser.parse_args()

    # These import torch, which would slow down --help.
    from transformers import AutoTokenizer

    from services.trainer import pretrained
    from services.trainer.loop import prepare_torch

    rows = read_files(args.data)[: args.limit]
    prepare_torch(Settings().threads)
    student = pretrained.load(args.model, 0, args.max_length, args.max_length)
    if args.plain_outputs:
        student.tokenizer = AutoTokenizer.from_pretrained(args.model)
    print(json.dumps(_train(student, rows, args)))
    if args.out:
        pretrained.save(student, args.out)
    return 0


def _train(student: Any, rows: Sequence[Any], args: argparse.Namespace) -> dict[str, Any]:
    from services.trainer.batches import Plan, padding_share
    from services.trainer.calls import HyperParameters
    from services.trainer.loop import adamw, in_passes, set_learning_rate, step
    from services.trainer.losses import OutputLoss
    from services.trainer.parallel import Team
    from services.trainer.replacement import mentions_of
    from services.trainer.tokens import tokenise

    team = Team()
    bare_student = copy.deepcopy(student) if args.bound else None
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as folder:
        started = time.perf_counter()
        tokens = tokenise(student, PromptSpec(), rows, Path(folder) / "tokens")
        # Batches of as many rows would give the few long outputs as little weight as the many short ones.
        batch_tokens = args.batch_tokens or round(args.batch_size * float(tokens.lengths.sum(axis=1).mean()))
        plan = Plan(tokens.lengths, batch_tokens, 0, args.epochs)
        mentions = mentions_of(student, tokens, HyperParameters())
        seconds = time.perf_counter() - started
        module = team.join(OutputLoss(student))
        optimizer = adamw(student.model, args.learning_rate)
        trained = int(tokens.lengths.sum()) * args.epochs
        bare = (
            _bare_steps(bare_student, tokens, trained / plan.steps, args) if args.bound else itertools.repeat((0, 0.0))
        )
        bare_tokens, bare_seconds, losses = 0, 0.0, []
        for number, batch in enumerate(plan.from_step(0)):
            started = time.perf_counter()
            set_learning_rate(optimizer, number / plan.steps, plan.steps)
            loss, written = step(module, mentions.at(number, tokens, 0), batch, optimizer, None, team)
            losses.append((loss.item(), written))
            seconds += time.perf_counter() - started
            done, took = next(bare)
            bare_tokens, bare_seconds = bare_tokens + done, bare_seconds + took
            print(f"\rstep {number + 1} of {plan.steps}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    computed = [part for batch in plan.from_step(0) for part in in_passes(batch, tokens, None, team.device)]
    last = losses[-plan.epoch_steps :]
    per_second = trained / seconds
    bound = bare_tokens / bare_seconds if args.bound else None
    return {
        "seconds": round(seconds, 3),
        "items_per_second": round(len(rows) * args.epochs / seconds, 3),
        "tokens_per_second": round(per_second, 1),
        "padding_share": round(100 * padding_share(tokens.lengths, computed), 2),
        "final_loss": round(sum(loss for loss, _ in last) / sum(written for _, written in last), 4),
        "bare_tokens_per_second": bound and round(bound, 1),
        "bound_share": bound and round(100 * per_second / bound, 2),
    }


def _bare_steps(
    student: Any, tokens: Any, batch_tokens: float, args: argparse.Namespace
) -> Iterator[tuple[int, float]]:
    """Steps of a bare loop, for ever: their tokens and seconds.

    A row reads L tokens and writes as many for each read as the data's rows do, so that both loops do the same work for
    a token.
    """
    import torch

    from services.trainer.losses import half_precision

    read, written = (int(total) for total in tokens.lengths.sum(axis=0))
    reads = min(args.max_length, student.max_input_tokens)
    writes = max(1, round(reads * written / read))
    rows = max(1, round(batch_tokens / (reads + writes)))
    on = next(student.model.parameters()).device
    words = torch.randint(5, len(student.tokenizer), (rows, reads), device=on)
    answers = torch.randint(5, len(student.tokenizer), (rows, writes), device=on)
    if student.decoder_only:
        words = torch.cat((words, answers), dim=1)
        answers = torch.cat((torch.full((rows, reads), -100, device=on), answers), dim=1)
    optimizer = torch.optim.AdamW(student.model.parameters(), lr=1e-5, fused=True)
    finished: Callable[[], None] = torch.cuda.synchronize if on.type == "cuda" else lambda: None
    while True:
        started = time.perf_counter()
        with half_precision(on):
            loss = student.model(input_ids=words, labels=answers).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        finished()
        yield rows * (reads + writes), time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
