"""The model card: the Hub can read it, its snippet is code, and it hides nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import model_card
from tests.support.record import sample_record


def _front(card: str) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return front


def _snippet(card: str) -> str:
    match = re.search(r"(`{3,})python\n(.*?)\n\1", card, re.DOTALL)
    assert match is not None
    return match[2]


def test_the_hub_can_read_it(tmp_path: Path) -> None:
    """The front matter is the Hub's own format, with the student's results on the rows that the verdict rests on."""
    from huggingface_hub import ModelCard

    path = model_card.write(tmp_path, sample_record())
    assert path == tmp_path / "model_card.md"
    data = ModelCard.load(path).data
    assert data.language == ["en"] and data.library_name == "transformers"
    assert data.pipeline_tag == "text2text-generation"
    assert data.datasets == ["p2m/normalise-dates"]
    assert {(r.metric_type, r.metric_value) for r in data.eval_results} >= {("exact_match", 96.4), ("chrf", 96.9)}


def test_a_base_model_of_the_hub_is_named() -> None:
    """A model that came from the Hub is linked to; one that did not is not."""
    record = sample_record()
    assert "base_model" not in _front(model_card.render(record))
    record["chosen"]["model"]["location"] = "hub:google/flan-t5-small@0fc9ddf"
    assert _front(model_card.render(record))["base_model"] == "google/flan-t5-small"


@pytest.mark.parametrize("architecture", ["encoder", "encoder-decoder", "decoder-only"])
def test_the_snippet_is_code_with_the_instruction_before_the_input(architecture: str) -> None:
    """It parses, loads with transformers alone, and has the instruction as training had it."""
    record = sample_record()
    record["chosen"]["model"]["architecture"] = architecture
    record["spec"]["original_instruction"] = 'Schreibe "das Datum"\nmit \\ und ```.'
    code = _snippet(model_card.render(record))
    tree = ast.parse(code)
    assigned = {n.targets[0].id: n.value for n in tree.body if isinstance(n, ast.Assign)}  # type: ignore[attr-defined]
    assert ast.literal_eval(assigned["INSTRUCTION"]) == record["spec"]["original_instruction"]
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported == ["transformers"]
    assert ("AutoModelForCausalLM" in code) == (architecture == "decoder-only")
    assert 'f"{INSTRUCTION}\\n{text}' in code


def test_a_classifier_is_called_one() -> None:
    """With a head for labels the card's task, snippet and title are a classifier's, and the snippet parses."""
    record = sample_record()
    record["training"]["labels"] = ["no", "yes"]
    card = model_card.render(record)
    assert _front(card)["pipeline_tag"] == "text-classification"
    assert "A small classifier for one task" in card
    assert "INSTRUCTION" not in _snippet(card) and ast.parse(_snippet(card)).body


def test_it_says_what_it_cannot_do() -> None:
    """The limits have the run's own notes, the ceiling, and whether it was tested on real rows at all."""
    record = sample_record()
    card = model_card.render(record)
    assert "its quality is poor" in card and "at most 99.1 %" in card and "Verdict: ship" in card
    assert "generated rows alone" not in card
    record["evaluation"]["scores"] = [
        s for s in record["evaluation"]["scores"] if s["slice"] not in ("real", "p2m/normalise-dates")
    ]
    assert "generated rows alone" in model_card.render(record)


def test_an_unknown_licence_is_said() -> None:
    """Where the dataset's licence is not known the card says to look it up."""
    record = sample_record()
    record["chosen"]["dataset"]["licence"] = ""
    assert "look it up" in model_card.render(record)


def test_hostile_names_stay_in_their_place() -> None:
    """A name with YAML, HTML or a table's bars in it changes neither the front matter nor the page."""
    record = sample_record()
    hostile = 'x"\n---\nlicense: mit\n<script>alert(1)</script> | a | b'
    record["name"] = hostile
    record["chosen"]["dataset"]["id"] = hostile
    record["training"]["notes"] = [hostile]
    card = model_card.render(record)
    front = _front(card)
    assert front["license"] == "other" and front["datasets"] == [hostile]
    body = card.split("---\n", 2)[2]
    outside_of_code = re.sub(r"```.*?```|`[^`\n]*`|^    .*$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert "script>alert" in outside_of_code and "<script" not in outside_of_code
    table = [line for line in body.splitlines() if line.startswith("| ")]
    assert all(line.count("|") - line.count("\\|") in (6, 7, 10) for line in table)


@pytest.mark.parametrize("absent", ["evaluation", "training", "generation", "data_by_source", "chosen", "prepare"])
def test_a_record_without_a_part_still_makes_a_card(absent: str) -> None:
    """A stage that did not run leaves its section out."""
    card = model_card.render(sample_record() | {absent: None})
    assert "## Limits" in card and _front(card)["library_name"] == "transformers"


def test_where_it_fails_is_in_the_card() -> None:
    """Each slice of errors stands in the card with its figures; a run without any has no such section."""
    record = sample_record()
    text = model_card.render(record)
    assert "## Where it fails" in text
    assert "**Inputs about invoice, due, payment**: 31 % of 48 rows are wrong" in text
    record["evaluation"]["slices"] = []
    assert "## Where it fails" not in model_card.render(record)
