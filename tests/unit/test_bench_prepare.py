"""The bench of splitting: what it plants is found, and nothing else is lost."""

from __future__ import annotations

import argparse

from bench.prepare import measure


def test_what_is_planted_is_found() -> None:
    """One run's figures: every row is accounted for, all exact repeats and nearly all near ones are removed."""
    found = measure(argparse.Namespace(rows=3_000, sources=2, words=25, seed=1, folder=None))
    removed, planted = found["removed"], found["planted"]
    assert found["rows"] == 3_000
    assert found["train"] + found["validation"] + found["test"] + sum(removed.values()) == 3_000
    assert planted == {"exact": 300, "near": 300}
    # A text may be planted twice.
    assert 300 <= removed["duplicate"] <= 330
    near = removed["near_duplicate"] + removed["in_test"] + removed["in_validation"]
    assert 270 <= near <= 300
    assert found["seconds"] > 0 and found["rss_mb"] > 50
