"""What parts of the way from an LLM's rows to a model are worth: a JSON line for each, after the same time.

    python -m bench.training_ablation --generated FILE --real FILE --prompt-spec FILE [--limit N] [--real-limit M]
        [--model ID] [--seconds T] [--parts whole,near,votes,bucketing,replacement,search] [--seed S]

Each takes the first N rows that an LLM wrote, splits them as a run does, trains the catalogue's model ID for T seconds
and answers the first M real rows, each with any of its right answers:

whole       near duplicates removed, outputs of the same input put to the vote, batches of like length, no search
near        without the removal of near duplicates; equal ones go in any case
votes       without votes: the first output of an input counts
bucketing   without batches of like length: as shuffled, padded to their longest row
replacement without the replacement of copied words by random ones
search      with one: half of the T seconds look for rates and epochs, the other half train

exact_match, token_f1    after SQuAD's normalisation, percentages: [value, low, high] with 95 % intervals
against_whole            the difference in token_f1 to the whole on the same rows, paired: [value, low, high]
validation_exact_match, validation_loss      the best of the training's own rounds, on rows that the LLM wrote
training_rows, epochs, padding_share         what it trained on; padding in percent
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from catalogue.read import read, starter
from services.kit.artifacts import Artifacts
from services.kit.rows import read_files
from services.kit.settings import Settings
from services.kit.values import PromptSpec, Row
from services.kit.worker import WorkerContext
from services.trainer.calls import (
    DatasetKind,
    HyperParameters,
    PrepareRequest,
    SearchCandidate,
    SearchRequest,
    TrainingSource,
    TrainRequest,
)

_PARTS = ("whole", "near", "votes", "bucketing", "replacement", "search")


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generated", required=True, type=Path, metavar="FILE", help="rows that an LLM wrote")
    parser.add_argument("--real", required=True, type=Path, metavar="FILE", help="real rows of the same task")
    parser.add_argument("--prompt-spec", required=True, type=Path, metavar="FILE", help="JSON with an instruction")
    parser.add_argument("--limit", type=int, default=5000, metavar="N")
    parser.add_argument("--real-limit", type=int, default=300, metavar="M")
    parser.add_argument("--model", default="p2m/minilm-encoder-decoder", metavar="ID")
    parser.add_argument("--seconds", type=float, default=600.0, metavar="T")
    parser.add_argument("--parts", default=",".join(_PARTS), metavar="LIST")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--in-child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_child:
        print(json.dumps(_trained(args, args.parts)))
        return 0
    whole: np.ndarray[Any, Any] | None = None
    for part in args.parts.split(","):
        if part not in _PARTS:
            parser.error(f"There is no part {part!r}; wanted some of {', '.join(_PARTS)}.")
        # A process of its own each: what one has loaded or warmed up is no gain of the next.
        command = [sys.executable, "-m", "bench.training_ablation", *sys.argv[1:], "--parts", part, "--in-child"]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        rows = np.array(found.pop("rows"), dtype=float)
        whole = rows if part == "whole" else whole
        if whole is not None and part != "whole":
            found["against_whole"] = _interval(rows[:, 1] - whole[:, 1])
        print(json.dumps({"part": part} | found), flush=True)
    return 0


def _trained(args: argparse.Namespace, part: str) -> dict[str, Any]:
    """One training: its figures, and exact match and token F1 of each real row."""
    # These import torch, which would slow down --help.
    from services.evaluator.predict import Model
    from services.trainer import batches, loop
    from services.trainer.prepare import prepare
    from services.trainer.search import search
    from services.trainer.train import train

    if part == "bucketing":
        batches._by_length = lambda sizes, band: np.arange(len(sizes))
        loop.CPU_PASS_TOKENS = 1 << 30
    spec = PromptSpec(json.loads(args.prompt_spec.read_text(encoding="utf-8"))["instruction"])
    model = next(one for one in read([starter("models")]) if one["id"] == args.model)
    usual = HyperParameters(
        learning_rate=model["learning_rate"], epochs=model["epochs"], batch_tokens=model["batch_tokens"], head="text",
        replaced_share=0.0 if part == "replacement" else None,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as name:
        settings = Settings(home=Path(name), store="", openai_base_url="", openai_api_key="")
        artifacts, context = Artifacts.open(settings, "trainer"), WorkerContext(settings)
        rows = _rows(list(islice(read_files(args.generated), args.limit)), votes=part != "votes")
        source = TrainingSource(artifacts.put_rows(rows), DatasetKind.GENERATED)
        splits = prepare(
            PrepareRequest("bench/prepare", (source,), spec=spec, seed=args.seed, max_rows_per_source=len(rows),
                           keep_near_duplicates=part == "near"), context,
        )  # fmt: skip
        began, asked = time.monotonic(), usual
        if part == "search":
            tried = search(
                SearchRequest("bench/search", splits.train, splits.validation, spec,
                              (SearchCandidate(model["location"], usual),), HyperParameters(head="text"),
                              args.seconds / 2, args.seed), context,
            )  # fmt: skip
            print([replace(one, error=one.error[:80]) for one in tried.trials], file=sys.stderr)
            asked = tried.trials[tried.best].hyper_parameters if tried.best is not None else usual
        left = args.seconds - (time.monotonic() - began)
        made = train(
            TrainRequest("bench/train", splits.train, splits.validation, spec, model["location"],
                         replace(asked, max_seconds=max(1.0, left)), args.seed), context,
        )  # fmt: skip
        real = list(islice(read_files(args.real), args.real_limit))
        said = Model(artifacts.fetch(made.model, Path(name) / "model"), settings).answer(
            spec, tuple(row.input for row in real)
        )
    return _figures(real, said) | _of_training(made, sum(one.rows for one in splits.counts if one.split == "train"))


def _rows(written: list[Row], *, votes: bool) -> list[Row]:
    """A row an input: its output by votes, or the first."""
    from services.generator.consensus import Votes
    from services.kit.dedup import same_text

    given, first = Votes(), dict[str, Row]()
    for row in written:
        given.add(same_text(row.input), row.output)
        first.setdefault(same_text(row.input), row)
    return [replace(row, output=given.best(text)) if votes else row for text, row in first.items()]


def _figures(real: list[Row], said: list[str]) -> dict[str, Any]:
    from services.evaluator.metrics import ExactMatchNormalised, TokenF1
    from services.evaluator.score import right_answers

    references = [right_answers(row) for row in real]
    scored = np.hstack([measure().rows(said, references)[:, :1] for measure in (ExactMatchNormalised, TokenF1)])
    return {
        "exact_match": _interval(scored[:, 0]),
        "token_f1": _interval(scored[:, 1]),
        "rows": scored.round(4).tolist(),
    }


def _of_training(made: Any, rows: int) -> dict[str, Any]:
    rounds = [point for point in made.history if point.validation_loss is not None]
    padding = next((found[1] for note in made.notes if (found := re.match(r"([\d.]+) % of the tokens", note))), None)
    return {
        "validation_exact_match": max((point.validation_exact_match or 0.0 for point in rounds), default=None),
        "validation_loss": min((point.validation_loss for point in rounds), default=None),
        "training_rows": rows,
        "epochs": round(made.history[-1].epoch, 2),
        "padding_share": padding and float(padding),
        "seconds": round(made.seconds, 1),
    }


def _interval(rows: np.ndarray[Any, Any]) -> list[float]:
    """The mean of percentages and its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).integers(0, len(rows), (2_000, len(rows)))
    low, high = np.percentile(rows[drawn].mean(axis=1), (2.5, 97.5))
    return [round(float(value), 2) for value in (rows.mean(), low, high)]


if __name__ == "__main__":
    sys.exit(main())
