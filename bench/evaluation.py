"""How fast a model is measured, and its scores: one JSON line.

    python -m bench.evaluation --model DIR --data FILE [--limit N] --batch-size B [--encoder DIR] [--prompt-spec FILE]
        [--like-prompt2model] [--out FILE]

seconds           of answering and scoring; imports and loading are not in it
items             rows
items_per_second
exact_match, chrf, bertscore     percentages, over all answers of a row

The data are rows of input and output, with answers where several are right. The encoder of BERTScore is the settings'
where none is given. A prompt spec's instruction stands before each input, as in training. For a comparison of speed
`--like-prompt2model` reads and writes by the rules of that program (`bench.evaluation_peer`), so that both give the
same outputs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from services.kit.locations import resolve
from services.kit.rows import read_files
from services.kit.settings import Settings
from services.kit.values import PromptSpec

# prompt2model 0.1.0: model_executor and dataset_processor, by default.
_INPUT_TOKENS = 256
_OUTPUT_TOKENS = 512
_REPETITION_PENALTY = 2.0


def main() -> int:
    """Prints the figures; returns the exit status."""
    args = _arguments()
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
    inputs, references = tuple(row.input for row in rows), [right_answers(row) for row in rows]
    if args.like_prompt2model:
        inputs, references = _like_prompt2model(model, instruction, inputs), [(row.output,) for row in rows]
        instruction = ""

    def after_batch(done: int) -> None:
        print(f"\r{done} of {len(rows)} rows", end="", file=sys.stderr, flush=True)

    started = time.perf_counter()
    predictions = model.answer(PromptSpec(instruction), inputs, args.batch_size, after_batch)
    scores = {
        name: float(measure.compute(predictions=predictions, references=references)["score"])
        for name, measure in measures.items()
    }
    seconds = time.perf_counter() - started
    print(file=sys.stderr)
    if args.out:
        args.out.write_text("".join(json.dumps({"prediction": text}) + "\n" for text in predictions))
    figures = {
        "seconds": round(seconds, 3),
        "items": len(rows),
        "items_per_second": round(len(rows) / seconds, 3),
    }
    print(json.dumps(figures | {name: round(value, 5) for name, value in scores.items()}))
    return 0


def _like_prompt2model(model: Any, instruction: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """The inputs as that program writes them; the model is told its limits and how it decodes."""
    model.max_input_tokens = min(model.max_input_tokens, _INPUT_TOKENS)
    # Its limit counts the token that the decoder begins with.
    model.model.generation_config.update(max_new_tokens=_OUTPUT_TOKENS - 1, repetition_penalty=_REPETITION_PENALTY)
    return tuple(f"<task 0>{instruction}\nExample:\n{text}\nLabel:\n" for text in inputs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="a folder that transformers loads")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="JSON lines of input and output")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N rows")
    parser.add_argument("--batch-size", required=True, type=int, metavar="B", help="rows answered at once")
    parser.add_argument("--encoder", type=Path, metavar="DIR", help="of BERTScore")
    parser.add_argument("--prompt-spec", type=Path, metavar="FILE", help="JSON with an instruction")
    parser.add_argument("--like-prompt2model", action="store_true", help="by its template, limits and decoding")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the predictions go, as JSON lines")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
