"""Whether generated test rows rank models, or the checkpoints of one training, as real rows do: one JSON line.

    python -m bench.agreement --models DIR DIR DIR ... --generated FILE --real FILE [--limit N] [--prompt-spec FILE]

models, generated_rows, real_rows      how many
scores        by model and metric: [on generated rows, on real rows], percentages
tau           by metric: Kendall's tau-b of both rankings, and its 95 % interval by resampling rows: [tau, low, high]

A folder is what transformers loads, such as the `model/` of runs of the same data with 1, 2, 3, ... epochs. The first N
rows of each file are taken.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from services.kit.rows import read_files
from services.kit.settings import Settings
from services.kit.values import PromptSpec, Row


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", required=True, nargs="+", type=Path, metavar="DIR", help="3 or more model folders")
    parser.add_argument("--generated", required=True, type=Path, metavar="FILE", help="rows that an LLM wrote")
    parser.add_argument("--real", required=True, type=Path, metavar="FILE", help="real rows of the same task")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N rows of each")
    parser.add_argument("--prompt-spec", type=Path, metavar="FILE", help="JSON with an instruction")
    args = parser.parse_args()
    instruction = json.loads(args.prompt_spec.read_text(encoding="utf-8"))["instruction"] if args.prompt_spec else ""
    kinds = [read_files(path)[: args.limit] for path in (args.generated, args.real)]
    print(json.dumps(ranked(args.models, kinds[0], kinds[1], instruction)))
    return 0


def ranked(folders: list[Path], generated: list[Row], real: list[Row], instruction: str) -> dict[str, Any]:
    """The figures."""
    from services.evaluator.agreement import agreement
    from services.evaluator.metrics import ChrF, ExactMatch, TokenF1
    from services.evaluator.predict import Model
    from services.evaluator.score import right_answers

    measures = {"exact_match": ExactMatch(), "token_f1": TokenF1(), "chrf": ChrF()}
    counts: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {metric: ({}, {}) for metric in measures}
    scores: dict[str, dict[str, list[float]]] = {}
    references = [right_answers(row) for row in (*generated, *real)]
    inputs = tuple(row.input for row in (*generated, *real))
    for folder in folders:
        print(folder, file=sys.stderr)
        said = Model(folder, Settings()).answer(PromptSpec(instruction), inputs)
        for metric, measure in measures.items():
            rows = measure.compute(predictions=said, references=references)["rows"]
            parts = rows[: len(generated)], rows[len(generated) :]
            for kind, part in zip(counts[metric], parts, strict=True):
                kind[str(folder)] = part
            totals = [round(float(measure.total(part.sum(axis=0), len(part))), 2) for part in parts]
            scores.setdefault(str(folder), {})[metric] = totals
    found = {metric: agreement(metric, *counts[metric], measures[metric].total, 0) for metric in measures}
    return {
        "models": len(folders),
        "generated_rows": len(generated),
        "real_rows": len(real),
        "scores": scores,
        "tau": {
            metric: [round(end, 3) for end in (one.tau.value, one.tau.low, one.tau.high)] if one else None
            for metric, one in found.items()
        },
    }


if __name__ == "__main__":
    sys.exit(main())
