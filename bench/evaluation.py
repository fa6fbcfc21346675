"""How fast a model is measured, and its scores: one JSON line.

    python -m bench.evaluation --model DIR --data FILE [--limit N] --batch-size B [--encoder DIR] [--prompt-spec FILE]

seconds           of answering and scoring; imports and loading are not in it
items             rows
items_per_second
exact_match, chrf, bertscore     percentages, over all answers of a row

The data are rows of input and output, with answers where several are right. The encoder of BERTScore is the settings'
where none is given. A prompt spec's instruction stands before each input, as in training.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from services.kit.locations import resolve
from services.kit.rows import read_files
from services.kit.settings import Settings
from services.kit.values import PromptSpec


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="a folder that transformers loads")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="JSON lines of input and output")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N rows")
    parser.add_argument("--batch-size", required=True, type=int, metavar="B", help="rows answered at once")
    parser.add_argument("--encoder", type=Path, metavar="DIR", help="of BERTScore")
    parser.add_argument("--prompt-spec", type=Path, metavar="FILE", help="JSON with an instruction")
    args = parser.parse_args()
    settings = Settings()

    # These import torch, which would slow down --help.
    from services.evaluator.metrics import BERTScore, ChrF, ExactMatch
    from services.evaluator.predict import Model
    from services.evaluator.score import right_answers

    rows = read_files(args.data)[: args.limit]
    instruction = json.loads(args.prompt_spec.read_text(encoding="utf-8"))["instruction"] if args.prompt_spec else ""
    model = Model(args.model, settings)
    encoder = args.encoder or resolve(settings.bertscore_encoder, settings)
    measures = {"exact_match": ExactMatch(), "chrf": ChrF(), "bertscore": BERTScore(encoder, encoder.name)}

    def after_batch(done: int) -> None:
        print(f"\r{done} of {len(rows)} rows", end="", file=sys.stderr, flush=True)

    started = time.perf_counter()
    inputs = tuple(row.input for row in rows)
    predictions = model.answer(PromptSpec(instruction), inputs, args.batch_size, after_batch)
    references = [right_answers(row) for row in rows]
    scores = {
        name: round(measure.compute(predictions=predictions, references=references)["score"], 3)
        for name, measure in measures.items()
    }
    seconds = time.perf_counter() - started
    print(file=sys.stderr)
    figures = {
        "seconds": round(seconds, 3),
        "items": len(rows),
        "items_per_second": round(len(rows) / seconds, 3),
    }
    print(json.dumps(figures | scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
