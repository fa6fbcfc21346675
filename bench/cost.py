"""What so many runs a day need and cost: python -m bench.cost [--runs 1 100 10000] [--set NAME=VALUE ...]

Arithmetic, nothing is measured: `Assumed` has what one run takes and what things are priced; --set puts your own in
its place, as in --set rows=2000 --set price_gpu_hour=0. A table on standard error, one JSON line on standard output.
docs/scaling.md explains it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass, fields, replace

_DAY_S = 86_400.0
_GB = 1e9


@dataclass(frozen=True)
class Assumed:
    """One run, the machines, and prices in dollars. Change what is not so with you."""

    rows: float = 1_000
    """Examples that the LLM writes for a run."""
    tokens_prompt_per_row: float = 150
    """Prompt tokens for each of them; several are written by one request."""
    tokens_completion_per_row: float = 60
    teacher_rows: float = 200
    """Test rows that the LLM answers for the comparison, at 200 + 30 tokens each."""
    other_tokens: float = 30_000
    """Parsing, choosing datasets and columns, hypothetical model card: about ten requests."""
    price_prompt: float = 0.15
    """Per million tokens; look at your provider's list."""
    price_completion: float = 0.60

    train_gpu_s: float = 600
    """A model of 250 million parameters, 3,000 rows, 3 epochs on one data-centre GPU: minutes, with its loading."""
    evaluate_gpu_s: float = 180
    small_cpu_s: float = 30
    """Cores' seconds of parser, retrievers, generator and orchestrator: a run of 40 rows takes about 2 (bench.load)."""
    busy: float = 0.5
    """Share of the day that a GPU is to be busy: the rest is for peaks and the queue's length."""
    price_gpu_hour: float = 1.50
    price_core_hour: float = 0.04
    price_idle_cores: float = 8
    """Cores of the smallest installation, which are there day and night: two replicas of the small services."""

    model_gb: float = 1.0
    """A trained model in half precision, with its base and an export."""
    data_gb: float = 0.01
    """Rows, predictions and paid answers."""
    kept_days: float = 30
    """How long a run's artifacts are kept."""
    price_gb_month: float = 0.023

    database_rows: float = 45
    """Rows of the database for a run: 9 stages, about 20 events, 9 steps, the run, its workflow (bench.load)."""
    database_mb: float = 0.05
    """On disk; the results, not the data, are in it."""
    objects: float = 36
    """Objects in the store for a run; a larger model has more."""


@dataclass(frozen=True)
class Needed:
    """For so many runs a day."""

    runs_a_day: float
    tokens_millions: float
    gpus: int
    cores: int
    store_gb: float
    store_objects: float
    database_gb: float
    database_rows: float
    llm_dollars: float
    gpu_dollars: float
    core_dollars: float
    store_dollars: float
    dollars_a_day: float
    dollars_a_run: float


def needed(runs: float, assumed: Assumed) -> Needed:
    """The formula of docs/scaling.md."""
    a = assumed
    prompt = a.rows * a.tokens_prompt_per_row + a.teacher_rows * 200 + a.other_tokens * 0.8
    completion = a.rows * a.tokens_completion_per_row + a.teacher_rows * 30 + a.other_tokens * 0.2
    llm = runs * (prompt * a.price_prompt + completion * a.price_completion) / 1e6
    gpu_s = runs * (a.train_gpu_s + a.evaluate_gpu_s)
    # One GPU that is there on demand is paid by the second; several are kept.
    gpus = math.ceil(gpu_s / _DAY_S / a.busy)
    gpu = a.price_gpu_hour * (gpu_s / 3600 if gpus == 1 else gpus * 24)
    cores = a.price_idle_cores + math.ceil(runs * a.small_cpu_s / _DAY_S / a.busy)
    store_gb = runs * a.kept_days * (a.model_gb + a.data_gb)
    store = store_gb * a.price_gb_month / 30
    total = llm + gpu + cores * 24 * a.price_core_hour + store
    return Needed(
        runs, runs * (prompt + completion) / 1e6, gpus, int(cores), store_gb, runs * a.kept_days * a.objects,
        runs * a.kept_days * a.database_mb / 1000, runs * a.kept_days * a.database_rows,
        llm, gpu, cores * 24 * a.price_core_hour, store, total, total / runs,
    )  # fmt: skip


def changed(assumed: Assumed, assignments: list[str]) -> Assumed:
    """With "name=value" put in. ValueError for a name that is none."""
    names = {field.name for field in fields(Assumed)}
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        if name not in names:
            raise ValueError(f"{name!r} is no assumption; wanted one of {', '.join(sorted(names))}")
        assumed = replace(assumed, **{name: float(value)})
    return assumed


def main() -> int:
    """Prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=float, nargs="+", default=[1, 100, 10_000], help="a day")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args()
    try:
        assumed = changed(Assumed(), args.set)
    except ValueError as error:
        parser.error(str(error))
    columns = [asdict(needed(runs, assumed)) for runs in args.runs]
    for name in columns[0]:
        print(f"{name:<18}" + "".join(f"{column[name]:>16,.2f}" for column in columns), file=sys.stderr)
    print(json.dumps({"assumed": asdict(assumed), "needed": columns}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
