"""Caps and weights as people type them, and what the report shows of the split that they made."""

from __future__ import annotations

from typing import Any

import pytest
from p2m.run.v1 import run_pb2

from orchestrator import mixing
from orchestrator.report.leakage import leakage
from orchestrator.report.reproduce import command
from services.kit.errors import InvalidArgument


def test_what_is_typed_is_read() -> None:
    """Sources and numbers, joined by commas or given one by one; a name may hold an equals sign."""
    assert mixing.weights(["retrieved=1, generated=0.5", "my=file.jsonl=0"]) == {
        "retrieved": 1.0, "generated": 0.5, "my=file.jsonl": 0.0,
    }  # fmt: skip
    assert mixing.caps(["user=20_000", "squad=1e3"]) == {"user": 20_000, "squad": 1_000}
    assert mixing.weights([]) == {}


@pytest.mark.parametrize(
    "given", ["generated", "=1", "a=", "a=b", "a=-1", "a=11", "a=nan", "a=inf", "a=1,a=2", "", "a=1,"]
)
def test_a_weight_that_is_none_is_refused(given: str) -> None:
    """What is no source and no number from 0 to 10 is INVALID_ARGUMENT, and says what was given."""
    with pytest.raises(InvalidArgument):
        mixing.weights([given])


@pytest.mark.parametrize("given", ["a=0", "a=1.5", "a=-3", "a=1e12", "a=x"])
def test_a_cap_that_is_none_is_refused(given: str) -> None:
    """A cap is a whole number of rows, at least one."""
    with pytest.raises(InvalidArgument) as caught:
        mixing.caps([given])
    assert "cap of 'a'" in caught.value.message


@pytest.mark.parametrize(
    "options",
    [{"mix": {"a": float("nan")}}, {"mix": {"a": 11}}, {"mix": {" ": 1}}, {"caps": {"a": 0}}, {"caps": {"": 1}}],
)
def test_what_comes_by_the_wire_is_checked_too(options: dict[str, Any]) -> None:
    """A caller without the command line gets the same refusals."""
    with pytest.raises(InvalidArgument):
        mixing.check(run_pb2.RunOptions(**options))
    mixing.check(run_pb2.RunOptions(mix={"a": 0.5}, caps={"b": 5}))


def test_a_higher_cap_loads_more() -> None:
    """As many rows are loaded of a dataset as its cap lets be trained on: by its name, its kind, or the common one."""
    options = run_pb2.RunOptions(max_rows_per_source=100, caps={"squad": 5_000, "retrieved": 2_000})
    assert [mixing.rows_to_load(options, name) for name in ("squad", "glue")] == [5_000, 2_000]
    assert mixing.rows_to_load(run_pb2.RunOptions(max_rows_per_source=100), "squad") == 100


def test_the_report_shows_what_would_have_leaked() -> None:
    """The section names source, split, what was repeated and how, with examples in full, escaped; and the labels."""
    leak = {
        "source": "squad", "kind": "retrieved", "split": "train", "repeats": "test", "near": True, "rows": 1_234,
        "examples": [{"input": "<b>one</b>", "other": "One!"}],
    }  # fmt: skip
    labels = [{"label": "yes", "train": 60, "validation": 20, "test": 21}]
    html = leakage({"prepare": {"leaks": [leak], "labels": labels}})
    for part in ("1,234", "squad", "a test row, nearly", "&lt;b&gt;one&lt;/b&gt;", "One!", ">yes<", ">21<"):
        assert part in html
    assert not leakage({"prepare": {"leaks": [], "labels": []}}).strip()
    assert not leakage({}).strip()


def test_the_command_of_the_report_has_caps_and_weights() -> None:
    """The report's command line says again what was capped and weighed."""
    options = {"caps": {"user": 20_000}, "mix": {"my file.jsonl": 0.5}, "keep_near_duplicates": True}
    words = command({"name": "r", "options": options})
    assert "--cap user=20000" in words and "--mix 'my file.jsonl=0.5'" in words and "--keep-near-duplicates" in words
