"""Several runs at once over services that are processes of their own: a short one of `bench.load`."""

from __future__ import annotations

from pathlib import Path

from bench.load import Wanted, is_flat, load
from bench.load_processes import Growth
from bench.soak import soak


async def test_runs_at_once_all_end_well_and_every_process_is_looked_at(tmp_path: Path) -> None:
    """More runs than there are slots, over six services and an orchestrator: all succeed, and each part is measured."""
    figures = await load(Wanted(tmp_path, runs=4, concurrent=4, rows=32, light=True))
    assert (figures["runs"], figures["succeeded"]) == (4, 4)
    assert figures["parts"].keys() == {
        "parser", "dataset_retriever", "generator", "model_retriever", "trainer", "evaluator", "orchestrator-1",
    }  # fmt: skip
    assert all(part["mb"] > 10 and part["cpu_s"] > 0 for part in figures["parts"].values())
    # Their children did the work.
    assert figures["parts"]["trainer"]["children_cpu_s"] > 0
    assert figures["parts"]["evaluator"]["children_cpu_s"] > 0


def test_a_part_that_grows_is_not_flat() -> None:
    """What is gained counts with its interval's upper end: 8 MB, or a twentieth of what a large part has."""

    def part(mb: float, at_most_mb: float) -> Growth:
        return Growth(mb, mb, at_most_mb, at_most_mb, 10, 1.0, 1.0)

    assert is_flat(part(100, 7.9)) and not is_flat(part(100, 8.1))
    assert is_flat(part(400, 19)) and not is_flat(part(400, 21))


async def test_runs_one_after_another_over_one_orchestrator(tmp_path: Path) -> None:
    """A short one of `bench.soak`: all succeed, and the orchestrator's memory was looked at."""
    figures = await soak(tmp_path, runs=20, concurrent=4)
    assert figures["succeeded"] == 20
    assert figures["mb"] > 10 and figures["open_files"] > 0
