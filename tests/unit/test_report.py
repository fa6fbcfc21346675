"""The report: everything is in it, nothing hostile runs in it, and it needs no other file."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orchestrator import report
from orchestrator.report import charts
from orchestrator.report.generation import REASONS
from tests.support.record import sample_record

PROTO = Path(__file__).parents[2] / "proto/p2m/generator/v1/generator.proto"
DROPPED = "// Examples left out, by reason:"
HOSTILE = '<script>document.title="owned"</script><img src=x onerror=alert(1)>"\'{{ 7*7 }}{% raw %}'


class Page(HTMLParser):
    """The tags, attributes and text of a page; asserts that every tag is closed."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _poisoned(value: Any) -> Any:
    """The record with hostile text in the place of every text that comes from outside."""
    ours = {
        "created",
        "ended",
        "state",
        "verdict",
        "metric",
        "slice",
        "contestant",
        "kind",
        "by",
        "architecture",
        "stop_reason",
    }
    if isinstance(value, dict):
        return {key: child if key in ours else _poisoned(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_poisoned(child) for child in value]
    return value + HOSTILE if isinstance(value, str) else value


def test_it_says_all_that_came_out(tmp_path: Path) -> None:
    """Verdict, scores, intervals, losses, sources, samples, errors, ledger, choices, notes and digests are there."""
    path = report.write(tmp_path, sample_record())
    assert path == tmp_path / "report.html"
    page = Page(path.read_text())
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {
        "verdict", "scores", "comparisons", "slices", "training", "data", "examples", "choice-dataset", "choice-model",
        "cost", "notes", "reproduce", "generation",
    } <= ids  # fmt: skip
    for text in (
        "Ship", "96.4", "94.3 to 98.5", "Nearest neighbour", "+65.2", "kept: step 360", "went on from step 180",
        "840 / 280 / 280", "near duplicate", "loading the dataset", "no output",
        "Sample 9: the meeting", "timex/tempeval", "cannot be loaded from here",
        "google/flan-t5-base", "$0.0082", "gpt-4o-mini", "in the test split and were taken out", "--seed 7",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "Apache-2.0", "at most 99.1 %",
        "Asked for: at most 300 MB, permissive licence.", "Left out 12 of 49 datasets: 12 not permissive.",
        "Left out, of those that rank high: 1 (it is on the hub, which is out of reach).",
        "its input had been written before", "63.9 %", "invoices; diaries", "25 more were left out",
        "asked for, perhaps charged", "24,000", "held 3 to be wrong",
        "hate/speech", "cc-by-nc-4.0", "apache-2.0; en; 120 kB", "It is gated",
    ):  # fmt: skip
        assert text in page.text, text


def test_it_needs_nothing_from_elsewhere() -> None:
    """No script, no link, no import: the page is whole without a network, and its policy forbids the rest."""
    html = report.render(sample_record())
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert not any(name in ("src", "href", "xlink:href") for _, attributes in page.tags for name in attributes)
    assert not re.search(r"url\(|@import|https?://", html)
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_hostile_text_is_text() -> None:
    """Whatever a dataset, a model or a person wrote is shown as it is: no tag, attribute or template comes of it."""
    clean, poisoned = sample_record(), _poisoned(sample_record())
    poisoned["data_by_source"] = {HOSTILE + name: counts for name, counts in clean["data_by_source"].items()}
    page = Page(report.render(poisoned))
    assert [tag for tag, _ in page.tags if tag in ("script", "img")] == []
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert HOSTILE in page.text


@pytest.mark.parametrize(
    "absent",
    [
        ("evaluation",), ("training",), ("generation",), ("prepare",), ("spec",), ("chosen",), ("alternatives",),
        ("ledger",), ("samples",), ("evaluation", "training", "generation", "chosen", "samples", "data_by_source"),
    ],
    ids=lambda names: "+".join(names)[:40],
)  # fmt: skip
def test_a_stage_that_did_not_run_leaves_its_section_out(absent: tuple[str, ...]) -> None:
    """A record without a part still makes a whole page."""
    record = sample_record() | dict.fromkeys(absent)
    page = Page(report.render(record))
    assert record["name"] in page.text
    if "evaluation" in absent:
        assert "Not measured" in page.text


def test_no_dataset_was_taken() -> None:
    """Where none fitted, the ones that were considered are still listed."""
    record = sample_record()
    record["chosen"]["dataset"] = None
    text = Page(report.render(record)).text
    assert "None was taken" in text and "timex/tempeval" in text


def test_the_scores_are_those_of_the_real_rows() -> None:
    """The chart shows the rows that the verdict rests on: real ones where there are any, else all."""
    record = sample_record()
    for score in record["evaluation"]["scores"]:
        if score["slice"] != "real":
            score["estimate"] = {"value": 11.1, "low": 10.0, "high": 12.0}
    (first, *_) = report.score_panels(record)
    assert [row["value"] for row in first["rows"]] == ["96.4", "2.0", "31.2", "58.0"]
    record["evaluation"]["scores"] = [s for s in record["evaluation"]["scores"] if s["slice"] != "real"]
    assert {row["value"] for row in report.score_panels(record)[0]["rows"]} == {"11.1"}


def test_the_command_is_the_runs_own() -> None:
    """The command line in the report has every option that was set, in the form that the CLI takes."""
    record = sample_record()
    record["options"] = {
        "number": 50, "skip_datasets": True, "model": "a b", "max_model_bytes": 300_000_000, "learning_rate": 2e-5,
        "lora": True, "licence": "permissive", "languages": ["ja", "en"], "max_cpu_latency_ms": 12_500_000.0,
        "include_gated": True,
    }  # fmt: skip
    assert report.command(record) == (
        "p2m run PROMPT_FILE --name normalise-dates --model 'a b' --number 50 --max-size 300000000 --learning-rate "
        "2e-05 --licence permissive --cpu-latency 12500000ms --languages ja,en --skip datasets --lora --include-gated"
    )


def test_long_texts_are_cut() -> None:
    """An input of a megabyte does not make a page of a megabyte."""
    record = sample_record()
    record["samples"] = [copy.deepcopy(record["samples"][0]) | {"input": "x" * 1_000_000} for _ in range(60)]
    assert len(report.render(record)) < 300_000


# -- charts


def test_an_interval_stands_where_it_should() -> None:
    """Its ends and its value lie on the axis in proportion."""
    svg = str(charts.interval(50.0, 25.0, 75.0, (0, 100), "student", "t"))
    low, high = re.search(r'class="whisker" x1="([\d.]+)%" x2="([\d.]+)%"', svg).groups()  # type: ignore[union-attr]
    dot = re.search(r'class="dot" cx="([\d.]+)%"', svg)[1]  # type: ignore[index]
    assert float(dot) - float(low) == pytest.approx(float(high) - float(dot)) == pytest.approx(24.25)
    assert 'class="zero"' in svg


@pytest.mark.parametrize(
    ("begin", "end", "ticks"),
    [(0, 100, [0, 20, 40, 60, 80, 100]), (-10, 100, [0, 25, 50, 75, 100]), (0, 0.37, [0, 0.1, 0.2, 0.3]), (5, 5, [5])],
)
def test_ticks_are_round(begin: float, end: float, ticks: list[float]) -> None:
    """Axes are marked at round numbers within their range."""
    assert charts.axis_ticks(begin, end) == ticks


def test_a_loss_that_is_no_number_does_not_break_the_curve() -> None:
    """NaN, infinity and absent losses are left out; too few points make no chart."""
    points = [
        charts.Loss(1, 2.0),
        charts.Loss(2, float("nan")),
        charts.Loss(3, float("inf"), 1.0),
        charts.Loss(4, 1.0, None),
    ]
    svg = str(charts.losses(points, best_step=3))
    assert "nan" not in svg.lower() and "inf" not in svg.lower().replace("infinity", "")
    assert svg.count("<circle") == 3
    assert charts.losses([charts.Loss(1, 2.0)]) == ""
    assert charts.losses([charts.Loss(0, None), charts.Loss(0, None)]) == ""
    assert "nan" not in str(charts.losses([charts.Loss(0, 0.0), charts.Loss(0, 0.0)]))


def test_every_reason_for_which_an_example_is_left_out_is_told_in_words() -> None:
    """Each reason of the generator has a line that a person understands; one that is not known is shown as it is."""
    record = sample_record()
    reasons = re.findall(r'"(\w+)"', PROTO.read_text().partition(DROPPED)[2])
    known = reasons[: reasons.index("surplus") + 1]
    assert {"duplicate", "judged", "other_label", "other_language", "truncated", "surplus"} <= set(known)
    record["generation"]["dropped"] = dict.fromkeys([*known, "gone_missing"], 3)
    text = Page(report.render(record)).text
    assert all(REASONS[reason] in text for reason in known)
    assert "gone missing" in text


def test_repeats_are_drawn_over_the_run() -> None:
    """Each stretch stands where it was read, as high as its share; one stretch alone makes no chart."""
    svg = str(charts.repeats([(10, 0, 0), (20, 10, 0), (30, 20, 20)]))
    exact, near = re.findall(r'd="M([^"]+) Z"', svg)
    top = 100 / (40 * 1.04)
    assert [float(place.split()[1]) for place in exact.split(" L")[:3]] == pytest.approx(
        [100, 100 - 10 * top, 100 - 20 * top], abs=0.01
    )
    assert float(near.split(" L")[2].split()[1]) == pytest.approx(100 - 40 * top, abs=0.01)
    assert [place.split()[0] for place in exact.split(" L")[:3]] == ["0.00", "50.00", "100.00"]
    assert charts.repeats([(10, 0, 0)]) == "" == charts.repeats([])


def test_a_stack_is_as_long_as_its_share() -> None:
    """Parts lie end to end, and an empty part has no mark."""
    svg = str(charts.stack([("train", 60), ("validation", 0), ("test", 40)], 200))
    places = re.findall(r'<rect class="(\w+)" x="([\d.]+)%" y="0" width="([\d.]+)%"', svg)
    assert [(name, float(x)) for name, x, _ in places] == [("train", 0.0), ("test", 30.0)]
    assert float(places[0][2]) == pytest.approx(30, abs=0.5) and float(places[1][2]) == pytest.approx(20, abs=0.5)


def test_where_it_fails_has_both_rates_and_the_errors() -> None:
    """A slice's name, its error rate beside the others', the same on test rows, and its errors are shown; a run without
    slices has no such section; what an LLM or a person wrote in them stays text."""
    html = report.render(sample_record())
    page = Page(html)
    assert "Inputs about invoice, due, payment" in page.text
    assert "31 % of 48 rows are wrong (95 % interval 20 to 45), against 2 % of the others" in page.text
    assert "Of 51 such test rows 28 % are" in page.text
    assert "Payment is due on the first of May." in page.text
    record = sample_record()
    record["evaluation"]["slices"] = []
    assert 'id="failures"' not in report.render(record)
    assert "<script" not in report.render(_poisoned(sample_record()))
