"""Slices of errors as tasks for the generator: shares, and what the LLM is told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from p2m.common.v1 import common_pb2

from orchestrator import report
from orchestrator.aiming import aimed, shares
from orchestrator.improve import next_name, slices
from services.kit.values import Row
from tests.support.record import sample_record

LONG = "a very long letter " * 40
VALIDATION = [Row("what now ?", "now"), Row(LONG, "letter")]
SPEC = common_pb2.PromptSpec(
    instruction="Say it.", original_instruction="Sag es.", demonstrations=[{"input": "one", "output": "two"}]
)


def one(
    name: str = "inputs that are questions", kind: str = "format", rows: int = 10, gap: float = 50.0, **more: Any
) -> Any:
    example = {"input": "what now ?", "output": "now", "prediction": "what"}
    return {"name": name, "kind": kind, "rows": rows, "difference": {"value": gap}, "examples": [example], **more}


@given(st.lists(st.tuples(st.integers(10, 2000), st.floats(0.1, 100)), min_size=1, max_size=6), st.integers(1, 5000))
def test_every_example_goes_to_a_slice(sizes: list[tuple[int, float]], number: int) -> None:
    """The shares add up to the number; each is at least 1, and a slice with more surplus errors gets no fewer."""
    found = shares([one(rows=rows, gap=gap) for rows, gap in sizes], number)
    counts = [count for _, count in found]
    assert sum(counts) == number and len(found) == min(number, len(sizes)) and min(counts) >= 1
    surplus = [of["rows"] * of["difference"]["value"] for of, _ in found]
    ordered = [count for _, count in sorted(zip(surplus, counts, strict=True))]
    assert ordered == sorted(ordered)


def test_the_llm_is_told_the_kind_and_shown_the_errors() -> None:
    """Both instructions name the kind and what was answered; the errors, whole, come before the prompt's examples."""
    cut = {"input": LONG[:299] + "…", "output": "letter", "prediction": ""}
    told = aimed(SPEC, one(examples=[*one()["examples"], cut]), VALIDATION)
    assert told.instruction.startswith("Say it.\n\n") and told.original_instruction.startswith("Sag es.\n\n")
    for instruction in (told.instruction, told.original_instruction):
        assert "fails: inputs that are questions." in instruction
        assert instruction.endswith('It answered "what" where "now" is right.')
    assert [shown.input for shown in told.demonstrations] == ["what now ?", LONG, "one"]


def test_a_row_that_is_none_of_validation_is_not_shown() -> None:
    """An example that the validation split does not hold, such as a test row, is neither shown nor told of."""
    told = aimed(SPEC, one(), [Row("something else", "now")])
    assert [shown.input for shown in told.demonstrations] == ["one"]
    assert "what" not in told.instruction.split("fails:")[1]


def test_a_source_is_not_named() -> None:
    """What a dataset is called tells the LLM nothing; outputs are told as examples."""
    assert "hub/data" not in aimed(SPEC, one("rows from hub/data", "source"), VALIDATION).instruction
    assert (
        'fails: examples whose output is "no".'
        in aimed(SPEC, one('rows whose output is "no"', "output"), []).instruction
    )


def test_slices_of_test_rows_are_none_to_aim_at() -> None:
    """Only slices that were found on validation rows count."""
    measured = {"slices": [one()], "slices_split": "validation"}
    assert slices({"evaluate": measured}) == [one()]
    assert slices({"evaluate": {**measured, "slices_split": "test"}}) == slices({}) == []


def test_names() -> None:
    """RUN, RUN.2, RUN.3; a name that ends in another way gets a number of its own."""
    assert [next_name(name) for name in ("a", "a.2", "v1.b", "a.9")] == ["a.2", "a.3", "v1.b.2", "a.10"]


def test_the_report_tells_the_change() -> None:
    """Better, worse, or no clear change, by the paired interval; each slice with its rows; nothing for other runs."""
    record = sample_record()
    assert report.change(record) == "" and 'id="improvement"' not in report.render(record)
    comparison = {
        "against": "before",
        "metric": "exact_match",
        "rows": 280,
        "difference": {"value": 3.0, "low": 1.0, "high": 5.0},
    }
    record["evaluation"]["comparisons"].append(comparison)
    record["improvement"] = {
        "of": "dates", "added": 90, "removed": {"in_test": 4},
        "slices": [
            {"name": "inputs about <b>rent</b>", "kind": "topic", "rows": 48, "asked": 60, "generated": 58,
             "error_rate": {"value": 31.2, "low": 20.0, "high": 45.3}, "rest_error_rate": {"value": 2.1},
             "change": {"student": 90.0, "other": 72.5, "rows": 51,
                        "difference": {"value": 17.5, "low": 4.1, "high": 29.9}}},
            {"name": "outputs with digits among words", "kind": "format", "rows": 20, "asked": 30, "generated": 30,
             "error_rate": {"value": 50.0, "low": 30.0, "high": 70.0}, "rest_error_rate": {"value": 3.0},
             "change": None},
        ],
    }  # fmt: skip
    assert report.change(record) == (
        "Better than dates: +3.0 points of exact match (95 % interval +1.0 to +5.0, 280 test rows)."
    )
    page = report.render(record)
    assert "Since dates" in page and "90 new rows joined" in page and "4 more were left out" in page
    assert "+17.5" in page and "+4.1 to +29.9" in page and "31 % of 48" in page and "&lt;b&gt;rent" in page
    assert "less student before" in page
    for low, high, said in ((-1.0, 5.0, "No clear change since dates"), (-6.0, -1.0, "Worse than dates")):
        comparison["difference"] = {"value": (low + high) / 2, "low": low, "high": high}
        assert report.change(record).startswith(said)
