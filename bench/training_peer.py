"""Training beside prompt2model's, in turn, from the same checkpoint on the same texts: one JSON line.

    python -m bench.training_peer --peer-python FILE --peer-runner FILE --model DIR --data FILE --limit N --epochs E
        --batch-size B --max-length L [--prompt-spec FILE] [--full-rows K] [--held-out H] [--rounds R]

The peer's environment and runner (`peer.py train`) are given. Both read what the peer makes of the rows, so that the
inputs are the same to the letter, and ours spells outputs with the same tokens (--plain-outputs). K rows are made as
long as L tokens, spread evenly. Both train with the peer's own learning rate, 1e-4, falling to nothing.

ours, peer                    examples a second: the best of the rounds
ratio                         ours / peer
padding_share, peer_padding_share       in percent
validation_loss, peer_validation_loss   over H rows that neither saw, per token of the output and its end
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from services.kit.rows import read_files

_LEARNING_RATE = "1e-4"
_TEXTUALISE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import peer
rows = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8")]
said = sys.stdout
sys.stdout = sys.stderr
made = peer.text_to_text(rows, "train", peer.prompt_spec(sys.argv[3]).instruction)
for row in made:
    print(json.dumps({"input": row["model_input"], "output": row["model_output"]}), file=said)
"""


def main() -> int:
    """Prints the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, type=Path, metavar="FILE")
    parser.add_argument("--peer-runner", required=True, type=Path, metavar="FILE", help="the path of its peer.py")
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="as `peer.py make-student` writes it")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE")
    parser.add_argument("--limit", required=True, type=int, metavar="N", help="rows to train on")
    parser.add_argument("--epochs", required=True, type=int, metavar="E")
    parser.add_argument("--batch-size", required=True, type=int, metavar="B")
    parser.add_argument("--max-length", required=True, type=int, metavar="L")
    parser.add_argument("--prompt-spec", type=Path, metavar="FILE", help="JSON with an instruction for every row")
    parser.add_argument("--full-rows", type=int, default=0, metavar="K", help="rows of full length")
    parser.add_argument("--held-out", type=int, default=100, metavar="H", help="rows to validate on, after the first N")
    parser.add_argument("--rounds", type=int, default=1, metavar="R")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="p2m-bench-") as name:
        print(json.dumps(_compare(args, Path(name))))
    return 0


def _compare(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = [
        {"input": row.input, "output": row.output} for row in islice(read_files(args.data), args.limit + args.held_out)
    ]
    training, held_out = rows[: args.limit], rows[args.limit :]
    for place in range(args.full_rows):
        row = training[place * len(training) // args.full_rows]
        # A word has at least one token.
        row["input"] = " ".join((row["input"] + " ") * args.max_length)[: 8 * args.max_length]
    _write(folder / "rows.jsonl", training)
    _write(folder / "as_the_peer.jsonl", _textualise(args, folder, training))
    spec = ["--prompt-spec", args.prompt_spec] if args.prompt_spec else []
    own = ["--epochs", args.epochs, "--batch-size", args.batch_size, "--max-length", args.max_length]
    ours, peers = [], []
    for number in range(args.rounds):
        print(f"round {number + 1}: the peer", file=sys.stderr, flush=True)
        peers.append(
            _run(
                args.peer_python, args.peer_runner, "train", "--model", args.model, "--data", folder / "rows.jsonl",
                "--out", folder / "peer", *own, *spec,
            )
        )  # fmt: skip
        print(f"round {number + 1}: ours", file=sys.stderr, flush=True)
        ours.append(
            _run(
                sys.executable, "-m", "bench.training", "--model", args.model, "--data", folder / "as_the_peer.jsonl",
                "--out", folder / "ours", "--learning-rate", _LEARNING_RATE, "--plain-outputs", *own,
            )
        )  # fmt: skip
    held_out = _textualise(args, folder, held_out)
    fastest, peers_fastest = (max(one["items_per_second"] for one in runs) for runs in (ours, peers))
    return {
        "ours": fastest,
        "peer": peers_fastest,
        "ratio": round(fastest / peers_fastest, 3),
        "padding_share": ours[0]["padding_share"],
        "peer_padding_share": round(100 * peers[0]["padding_fraction"], 2),
        "validation_loss": _validation_loss(folder / "ours", held_out, args),
        "peer_validation_loss": _validation_loss(folder / "peer", held_out, args, start=True),
        "runs": [[one["items_per_second"] for one in pair] for pair in zip(ours, peers, strict=True)],
        "peer_other_cpu_seconds": [one["other_cpu_seconds"] for one in peers],
    }


def _textualise(args: argparse.Namespace, folder: Path, rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows as the peer's processor makes them."""
    _write(folder / "raw.jsonl", rows)
    runner = args.peer_runner.absolute().parent
    command = [args.peer_python, "-c", _TEXTUALISE, runner, folder / "raw.jsonl", args.prompt_spec or ""]
    said = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in said.splitlines()]


def _run(*command: Any) -> dict[str, Any]:
    said = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def _validation_loss(
    model: Path, rows: Sequence[dict[str, str]], args: argparse.Namespace, *, start: bool = False
) -> float:
    """The mean loss per token. `start`: outputs were learnt with a [CLS] before them, as the peer's; it counts not."""
    from transformers import AutoTokenizer

    from services.kit.values import PromptSpec
    from services.trainer import pretrained
    from services.trainer.losses import score

    student = pretrained.load(model, 0, args.max_length, args.max_length)
    student.tokenizer = AutoTokenizer.from_pretrained(args.model)
    student.model.eval()
    encoded = student.encode(PromptSpec(), [row["input"] for row in rows], [row["output"] for row in rows])
    before = [student.tokenizer.cls_token_id] if start else []
    total = sum(score(student, [(read, before + written)]).loss for read, written in encoded)
    if start:
        total -= sum(score(student, [(read, before)]).loss for read, _ in encoded)
    return float(round(total / sum(len(written) for _, written in encoded), 4))


def _write(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
