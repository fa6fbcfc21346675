"""The stage "export": which formats, at what cost, and which one is recommended."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from orchestrator import exports
from services.kit.errors import InvalidArgument
from tests.support.record import sample_record


def _exports() -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(sample_record()["exports"])
    return found


@pytest.mark.parametrize(
    "asked, architecture, expected",
    [
        ([], "encoder", (["onnx-int8"], True)),
        ([], "encoder-decoder", (["ctranslate2-int8", "onnx-int8"], True)),
        ([], "decoder-only", (["ctranslate2-int8", "onnx-int8"], True)),
        (["none"], "encoder", ([], False)),
        (["onnx", "onnx", "onnx-int8"], "encoder", (["onnx", "onnx-int8"], False)),
    ],
)
def test_the_formats(asked: list[str], architecture: str, expected: tuple[list[str], bool]) -> None:
    """What is asked for, each once; by default the first that the architecture allows."""
    assert exports.wanted(asked, architecture) == expected


@pytest.mark.parametrize("asked", [["onxx"], ["none", "onnx"]])
def test_a_format_that_cannot_be_is_refused(asked: list[str]) -> None:
    """A format that there is not, and none beside one, are refused."""
    with pytest.raises(InvalidArgument):
        exports.check(asked)


def test_costs() -> None:
    """1,000 answers of 22.5 ms on 2 cores at $0.36 an hour cost 0.45 cents; the teacher's cost what it was paid."""
    record = sample_record()
    record["ledger"]["stages"]["evaluate"] = {
        "requests": 100, "prompt_tokens": 40_000, "completion_tokens": 2_000, "dollars": 0.5, "replayed": 0,
        "invalid": 0,
    }  # fmt: skip
    found = exports.costs(record, 0.36)
    assert found["per_1000"]["onnx-int8"] == pytest.approx(22.5 * 2 / 3600 * 0.36)
    assert found["teacher"] == {"dollars": 5.0, "tokens": 420_000.0, "requests": 100}
    record["ledger"]["stages"] = {}
    assert exports.costs(record, 0.36)["teacher"] is None


def test_the_fastest_that_is_hardly_worse_is_recommended() -> None:
    """A fast export is recommended; not where its interval reaches below the margin, and not where it is slower."""
    found = _exports()
    assert exports.recommended(found) == "onnx-int8"
    worse = _exports()
    worse["formats"][1]["measured"]["comparisons"][0]["difference"]["low"] = -5.1
    assert exports.recommended(worse) == ""
    slower = _exports()
    slower["formats"][1]["measured"]["latency"]["p50_ms"] = 62.0
    assert exports.recommended(slower) == ""


def test_the_record_of_no_export() -> None:
    """A run that exported nothing has no such part."""
    assert exports.of_record({}, sample_record(), 0.05) is None
