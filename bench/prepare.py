"""Splitting many rows: how long it takes and how much memory, from datasets in the store to splits in the store.

    python -m bench.prepare [--rows 1000000] [--sources 2] [--words 25] [--seed 0] [--folder DIR]

The rows are synthetic: texts of 8 to 2 * words - 8 words, drawn from 50,000 by Zipf's law, one in five with a number in
it; a tenth of the rows repeat another exactly, a tenth are near duplicates: half of them another row in other letter
case and with a comma more, half with one word added at the end where the row is long enough to stay near. Caps are out
of the way, so that every row is looked at and most are stored.

The work is done in a process of its own, as in the trainer; making the rows is not measured.

seconds      from the call to its result: reading, splitting, near duplicates, writing
cpu_seconds  the same of all its threads, whatever else the machine does
rss_mb       that process's peak
rows         that were given; `megabytes`: their inputs
removed      by reason; `planted`: the exact and the near duplicates that were put in
train, validation, test    rows stored
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from services.kit.artifacts import Artifacts
from services.kit.settings import Settings
from services.kit.values import Artifact, Demonstration, PromptSpec
from services.kit.wire import from_json, to_json
from services.kit.worker import WorkerContext
from services.trainer.calls import DatasetKind, PrepareRequest, TrainingSource

EXACT = NEAR = 0.1
VOCABULARY = 50_000
# A set of so many pairs stays near (9 of 10 in common) with a word more.
LONG = 28


def main() -> int:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description="Splitting many rows; one JSON line.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sources", type=int, default=2)
    parser.add_argument("--words", type=int, default=25, help="Words of a row, on average.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Where the files lie meanwhile.")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    print(json.dumps(_work(arguments.work) if arguments.work else measure(arguments)))
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures, by their keys."""
    with tempfile.TemporaryDirectory(prefix="p2m-bench-", dir=arguments.folder) as name:
        home = Path(name)
        artifacts = Artifacts.open(Settings(home=home), "bench")
        texts, planted = rows(arguments.rows, arguments.words, arguments.seed)
        size = sum(map(len, texts))
        stored = tuple(
            TrainingSource(_put(artifacts, texts[number :: arguments.sources]), kind)
            for number, kind in zip(range(arguments.sources), _kinds(), strict=False)
        )
        del texts
        spec = PromptSpec("Do it.", (Demonstration("a demonstration of some words", "an output"),))
        request = PrepareRequest("bench/prepare", stored, spec=spec, max_rows_per_source=1_000_000_000)
        (home / "request.json").write_text(to_json(request))
        command = [sys.executable, "-m", "bench.prepare", "--work", str(home)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return {**json.loads(done.stdout), "megabytes": round(size / 1e6, 1), "planted": planted}


def rows(count: int, words: int, seed: int) -> tuple[list[str], dict[str, int]]:
    """`count` inputs, shuffled, and how many repeat another exactly and nearly."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("bcdfghklmnprstvw" + "aeiou" * 3))
    vocabulary = np.array(["".join(rng.choice(letters, size)) for size in rng.integers(2, 10, VOCABULARY)])
    weights = 1 / (np.arange(VOCABULARY) + 10)
    exact, near = int(count * EXACT), int(count * NEAR)
    fresh = count - exact - near
    lengths = rng.integers(8, max(9, 2 * words - 7), fresh)
    drawn = vocabulary[rng.choice(VOCABULARY, int(lengths.sum()), p=weights / weights.sum())].tolist()
    ends = np.cumsum(lengths)
    texts = [" ".join(drawn[end - size : end]) for end, size in zip(ends.tolist(), lengths.tolist(), strict=True)]
    for place in np.flatnonzero(rng.random(fresh) < 0.2).tolist():
        texts[place] += f" {rng.integers(10_000)}"
    texts += [texts[place] for place in rng.integers(0, fresh, exact).tolist()]
    long = np.flatnonzero(lengths >= LONG)
    for number, place in enumerate(rng.integers(0, fresh, near).tolist()):
        if number % 2 and len(long):
            texts.append(f"{texts[long[place % len(long)]]} {vocabulary[number % VOCABULARY]}")
        else:
            texts.append(texts[place].capitalize().replace(" ", ", ", 1) + ".")
    rng.shuffle(texts)
    return texts, {"exact": exact, "near": near}


def _put(artifacts: Artifacts, inputs: Sequence[str]) -> Artifact:
    # The second word, which a row and its near duplicate share.
    outputs = [text.split(maxsplit=2)[1] for text in inputs]
    return artifacts.put_table(pa.table({"input": inputs, "output": outputs}))


def _kinds() -> list[DatasetKind]:
    return [DatasetKind.RETRIEVED, DatasetKind.GENERATED, DatasetKind.USER, DatasetKind.ADAPTED]


def _work(home: Path) -> dict[str, Any]:
    from services.trainer.prepare import prepare

    request = from_json((home / "request.json").read_bytes(), PrepareRequest)
    context = WorkerContext(Settings(home=home), lambda message: None)
    started, cpu_started = time.perf_counter(), time.process_time()
    result = prepare(request, context)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    stored = {
        split: sum(c.rows for c in result.counts if c.split == split) for split in ("train", "validation", "test")
    }
    print([asdict(leak) | {"examples": ()} for leak in result.leaks], result.notes, file=sys.stderr)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "rss_mb": round(_peak_mb(), 1),
        "rows": sum(stored.values()) + sum(result.removed.values()),
        "removed": result.removed,
        **stored,
    }


def _peak_mb() -> float:
    """Not getrusage: what it says of a child begins with its parent's memory."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    sys.exit(main())
