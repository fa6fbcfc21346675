"""Evaluation beside prompt2model's, on the same checkpoint and rows, in one run: one JSON line.

    python -m bench.evaluation_peer --peer-python PYTHON --peer-runner FILE --model DIR --data FILE --encoder DIR
        [--prompt-spec FILE] [--limit N] [--rounds R] [--batch-size B] [--peer-batch-size B]

ratio                  its seconds over ours, the median of the rounds; a round runs both, in turns, in fresh processes
ratios                 of each round
items                  rows
items_per_second, peer_items_per_second      of the median round
same_outputs           rows that both answer alike, in percent
largest_difference     between the scores of both by exact match, chrF++ (percent) and BERTScore (0 to 1)

Seconds are of answering and scoring, without imports and loading, on both sides. PYTHON is the interpreter of an
environment with prompt2model, FILE a runner that measures its stages (`RUNNER evaluate --model ...`, a JSON line with
seconds and metrics). Both read inputs of up to 256 tokens by its template and write by its rules.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_TIMEOUT_S = 1800


def main() -> int:
    """Prints the figures; returns the exit status."""
    args = _arguments()
    shared = ["--model", str(args.model), "--data", str(args.data), "--encoder", str(args.encoder)]
    shared += ["--limit", str(args.limit)] if args.limit else []
    shared += ["--prompt-spec", str(args.prompt_spec)] if args.prompt_spec else []
    ours = [sys.executable, "-m", "bench.evaluation", *shared, "--batch-size", str(args.batch_size)]
    theirs = [args.peer_python, args.peer_runner, "evaluate", *shared, "--batch-size", str(args.peer_batch_size)]
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        written, peers = Path(folder) / "ours.jsonl", Path(folder) / "theirs.jsonl"
        for number in range(args.rounds):
            one = _run([*ours, "--like-prompt2model", "--out", str(written)])
            other = _run([*theirs, "--out", str(peers)])
            rounds.append((other["seconds"] / one["seconds"], one, other))
            print(f"round {number + 1}: {rounds[-1][0]:.2f}", file=sys.stderr)
        pairs = list(zip(_predictions(written), _predictions(peers), strict=True))
    _, one, other = rounds[-1]
    middle = sorted(rounds, key=lambda found: found[0])[len(rounds) // 2]
    scores = other["metrics"]
    print(
        json.dumps(
            {
                "ratio": round(statistics.median(ratio for ratio, _, _ in rounds), 3),
                "ratios": [round(ratio, 3) for ratio, _, _ in rounds],
                "items": len(pairs),
                "items_per_second": middle[1]["items_per_second"],
                "peer_items_per_second": middle[2]["items_per_second"],
                "same_outputs": round(100 * sum(a == b for a, b in pairs) / len(pairs), 2),
                "largest_difference": {
                    "exact_match": round(abs(one["exact_match"] - 100 * scores["exact_match"]), 6),
                    "chrf": round(abs(one["chrf"] - scores["chr_f++"]), 6),
                    "bertscore": round(abs(one["bertscore"] / 100 - scores["average_bert_score"]), 6),
                },
            }
        )
    )
    return 0


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=_TIMEOUT_S, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _predictions(path: Path) -> list[str]:
    return [json.loads(line)["prediction"].strip() for line in path.read_text(encoding="utf-8").splitlines()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, metavar="PYTHON", help="of prompt2model's environment")
    parser.add_argument("--peer-runner", required=True, metavar="FILE", help="measures a stage of prompt2model")
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="a checkpoint that both load")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="JSON lines of input and output")
    parser.add_argument("--encoder", required=True, type=Path, metavar="DIR", help="of BERTScore")
    parser.add_argument("--prompt-spec", type=Path, metavar="FILE", help="JSON with an instruction")
    parser.add_argument("--limit", type=int, metavar="N", help="take the first N rows")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="default 3")
    parser.add_argument("--batch-size", type=int, default=32, metavar="B", help="ours; default 32")
    parser.add_argument("--peer-batch-size", type=int, default=10, metavar="B", help="default 10, as it comes")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
