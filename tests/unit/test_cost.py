"""The model of cost: docs/scaling.md says what bench/cost.py reckons."""

from __future__ import annotations

import re

import pytest

from bench.cost import Assumed, changed, needed
from tests.conftest import ROOT


def test_the_page_has_the_figures_that_are_reckoned() -> None:
    """The table's tokens, GPUs, cores, store and cost of one run are those of the defaults."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    rows = {cells[0].strip("* "): cells[1:] for line in page.splitlines() if len(cells := cells_of(line)) == 4}
    columns = [needed(runs, Assumed()) for runs in (1, 100, 10_000)]
    for said, one in zip(rows["GPUs"], columns, strict=True):
        assert int(number(said)) == one.gpus
    for said, one in zip(rows["cores for the small services"], columns, strict=True):
        assert int(number(said)) == one.cores
    for said, one in zip(rows["tokens a day"], columns, strict=True):
        assert number(said) == pytest.approx(one.tokens_millions, rel=0.03)
    for said, one in zip(rows["store, with 30 days kept"], columns, strict=True):
        assert number(said) * (1000 if "TB" in said else 1) == pytest.approx(one.store_gb, rel=0.03)
    for said, one in zip(rows["together, for one run"], columns, strict=True):
        assert number(said.strip("*")) == pytest.approx(one.dollars_a_run, abs=0.005)


def test_an_assumption_of_ones_own_takes_the_place() -> None:
    """Twice the examples cost about twice the tokens; a name that is none is refused with those that are."""
    twice = needed(100, changed(Assumed(), ["rows=2000"]))
    assert 1.6 < twice.tokens_millions / needed(100, Assumed()).tokens_millions < 2
    with pytest.raises(ValueError, match="price_gpu_hour"):
        changed(Assumed(), ["price_gpu=1"])


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []


def number(text: str) -> float:
    found = re.search(r"[\d,]+(?:\.\d+)?", text)
    assert found, text
    return float(found[0].replace(",", ""))
