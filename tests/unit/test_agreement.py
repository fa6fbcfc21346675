"""Whether generated rows rank contestants as real ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from bench.agreement import ranked
from services.evaluator.agreement import agreement, tau
from services.evaluator.intervals import Floats
from tests.support import models


def answers(shares: dict[str, float], rows: int, seed: int) -> dict[str, Floats]:
    """Arrays (rows, 1) of 0 and 100: each contestant is right on so many rows."""
    rng = np.random.default_rng(seed)
    return {name: 100.0 * (rng.random((rows, 1)) < share) for name, share in shares.items()}


def mean(sums: Floats, number: int) -> Floats:
    return np.asarray(sums[..., 0] / number)


def test_tau_is_scipys_with_and_without_ties() -> None:
    """For random rankings of 3 to 8 contestants, ties included, tau is scipy's tau-b."""
    rng = np.random.default_rng(0)
    for size in range(3, 9):
        for _ in range(20):
            one, other = rng.integers(5, size=(2, size)).astype(float)
            wanted = kendalltau(one, other).statistic
            assert float(tau(one, other)) == pytest.approx(0.0 if np.isnan(wanted) else wanted)


def test_the_same_order_is_one_and_the_reverse_is_minus_one() -> None:
    """Four contestants that lie far apart are ranked alike with certainty, or the other way round."""
    shares = {"student": 0.9, "teacher": 0.7, "base": 0.4, "nearest_neighbour": 0.1}
    reverse = dict(zip(shares, reversed(shares.values()), strict=True))
    real = answers(shares, 200, 1)
    same = agreement("exact_match", answers(shares, 200, 2), real, mean, 0)
    other = agreement("exact_match", answers(reverse, 200, 3), real, mean, 0)
    assert same is not None and other is not None
    assert (same.tau.value, same.tau.low, same.contestants) == (1, 1, 4)
    assert (other.tau.value, other.tau.high) == (-1, -1)


def test_contestants_that_lie_close_leave_doubt() -> None:
    """Rankings by 30 rows of contestants that are nearly equal: the interval is wide."""
    shares = {"student": 0.52, "base": 0.5, "nearest_neighbour": 0.48}
    found = agreement("exact_match", answers(shares, 30, 1), answers(shares, 30, 2), mean, 0)
    assert found is not None
    assert found.tau.low < 0 < found.tau.high
    assert (found.generated_rows, found.real_rows) == (30, 30)


@pytest.mark.parametrize(("contestants", "generated", "real"), [(2, 50, 50), (3, 19, 50), (3, 50, 19)])
def test_too_few_contestants_or_rows_are_not_ranked(contestants: int, generated: int, real: int) -> None:
    """Two contestants, or 19 rows of a kind, give no tau."""
    shares = {f"model{n}": 0.2 * (n + 1) for n in range(contestants)}
    assert agreement("chrf", answers(shares, generated, 1), answers(shares, real, 2), mean, 0) is None


def test_the_bench_ranks_model_folders(tmp_path: Path) -> None:
    """Three models of unlike quality answer both files; scores and a tau for each metric come out."""
    import torch
    from transformers import T5ForConditionalGeneration

    folders = []
    for number in range(3):
        folder = models.tiny_t5(tmp_path / str(number))
        model = T5ForConditionalGeneration.from_pretrained(folder)
        torch.manual_seed(number)
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(0.3 * torch.randn_like(weights))
        model.generation_config.update(max_new_tokens=3)
        model.save_pretrained(folder)
        folders.append(folder)
    rows = models.copy_rows(50)
    found = ranked(folders, rows[:25], rows[25:], "")
    assert (found["models"], found["generated_rows"], found["real_rows"]) == (3, 25, 25)
    assert set(found["scores"]) == {str(folder) for folder in folders}
    assert set(found["tau"]) == {"exact_match", "token_f1", "chrf"}
    value, low, high = found["tau"]["chrf"]
    assert -1 <= low <= value <= high <= 1
