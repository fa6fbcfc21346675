"""The starter catalogue's own entries: what each says, and that it says it in its own words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from catalogue.architectures import KINDS as ARCHITECTURES
from catalogue.read import read, starter
from services.kit.errors import InvalidArgument
from services.kit.rows import records

TASKS = {
    "fill-mask", "multiple-choice", "question-answering", "sentence-similarity", "summarization",
    "table-question-answering", "text-classification", "text-generation", "text2text-generation",
    "token-classification", "translation", "conversational",
}  # fmt: skip
MODEL_TYPES = {
    "bart", "bert", "bigbird_pegasus", "blenderbot", "blenderbot-small", "bloom", "camembert", "codegen", "electra",
    "encoder-decoder", "fsmt", "gemma3_text", "gpt2", "gpt_neo", "gpt_neox", "led", "llama", "longt5", "m2m_100",
    "marian", "mbart", "mt5", "opt", "pegasus", "phi", "prophetnet", "qwen2", "qwen3", "roberta", "t5", "xlm-roberta",
}  # fmt: skip
KINDS = ("models", "datasets")
BOTH = {"id", "description", "tasks", "languages", "licence", "downloads", "gated", "location"}
KEYS = {
    "models": BOTH
    | {"architecture", "model_type", "parameters", "size_bytes", "safetensors"}
    | {"learning_rate", "epochs", "batch_tokens", "by_name"},
    "datasets": BOTH | {"configs", "script"},
}
TYPE = re.compile(
    r"(string|bool_?|u?int(8|16|32|64)|float(16|32|64)|timestamp\[\w+\]|class_label|image|translation<.*>)$"
)


def entries(kind: str) -> list[dict[str, Any]]:
    return read([starter(kind)])


@pytest.mark.parametrize("kind", KINDS)
def test_there_are_enough_and_no_two_alike(kind: str) -> None:
    """At least 150 of each kind; no id stands twice, and no two descriptions are the same."""
    ids = [record["id"] for _, record in records(starter(kind))]
    assert len(ids) >= 150 and len(set(ids)) == len(ids) and ids == sorted(ids)
    assert len({entry["description"] for entry in entries(kind)}) == len(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_each_entry_says_facts_in_the_agreed_words(kind: str) -> None:
    """Known keys alone; a description of one line; tasks, languages and licences by the Hub's names."""
    for entry in entries(kind):
        id = entry["id"]
        assert set(entry) <= KEYS[kind], id
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", id), id
        assert 5 <= len(entry["description"].split()) <= 60 and "\n" not in entry["description"], id
        assert entry["description"].rstrip().endswith((".", ")")), id
        assert entry["tasks"] and set(entry["tasks"]) <= TASKS, id
        assert entry["languages"], id
        assert all(one == "multilingual" or re.fullmatch("[a-z]{2}", one) for one in entry["languages"]), id
        assert re.fullmatch(r"([a-z0-9][a-z0-9.+-]*)?", entry.get("licence", "")), id
        assert None not in entry.values(), f"{id}: what is not known is left out"


def test_each_model_says_what_it_is() -> None:
    """An architecture that the trainer takes, with its model type; sizes and parameters that go together."""
    for entry in entries("models"):
        assert entry["architecture"] in ARCHITECTURES and entry["model_type"] in MODEL_TYPES, entry["id"]
        assert isinstance(entry.get("parameters", 1), int) and isinstance(entry.get("size_bytes", 1), int)
        if "parameters" in entry and "size_bytes" in entry and "location" not in entry:
            # Weights have 2 or 4 bytes each; some files hold an embedding twice, or buffers.
            assert 1.5 < entry["size_bytes"] / entry["parameters"] < 6.2, entry["id"]


def test_each_dataset_has_columns_of_known_types() -> None:
    """Every configuration has columns of known types, class names only of columns that it has, and split sizes."""
    for entry in entries("datasets"):
        for config in entry.get("configs", ()):
            assert config["features"], entry["id"]
            for type in config["features"].values():
                inner = re.sub(r"^(?:(?:sequence|list)<)+", "", type)
                assert inner.startswith("struct<") or TYPE.match(inner.split(">")[0] if inner != type else inner), type
            for column, names in config.get("class_names", {}).items():
                assert column.split(".")[0] in config["features"] and 2 <= len(names) <= 200, (entry["id"], column)
            assert all(isinstance(rows, int) and rows > 0 for rows in config.get("splits", {}).values()), entry["id"]


def test_many_languages_and_tasks_are_there() -> None:
    """Each of eight languages and of the main tasks has models and datasets."""
    for kind in KINDS:
        languages = [language for entry in entries(kind) for language in entry["languages"]]
        tasks = [task for entry in entries(kind) for task in entry["tasks"]]
        assert all(
            languages.count(one) >= 2 for one in ("en", "de", "fr", "es", "ja", "zh", "hi", "ar", "multilingual")
        )
        for task in ("summarization", "translation", "question-answering", "text2text-generation"):
            assert tasks.count(task) >= 5, (kind, task)


@pytest.mark.parametrize("kind", KINDS)
def test_no_description_is_a_card_s(kind: str, shared: Path) -> None:
    """No description repeats a line or a sentence of the cards that the facts stood beside."""
    plain = re.compile(r"\W+")
    cards: set[str] = set()
    for _, card in records(shared / "data" / "catalogue" / f"{kind}.jsonl.gz"):
        sentences = re.split(r"(?<=[.!?])\s+|\n+", card.get("description") or "")
        cards.update(plain.sub(" ", one).strip().lower() for one in sentences)
    for entry in entries(kind):
        for sentence in re.split(r"(?<=[.!?])\s+", entry["description"]):
            words = plain.sub(" ", sentence).strip().lower()
            assert len(words.split()) < 5 or words not in cards, (entry["id"], sentence)


@pytest.mark.parametrize(
    ("fact", "says"),
    [
        ('"languages": "en"', "languages of b is 'en'; wanted a list of texts"),
        ('"tasks": [1]', "tasks of b"),
        ('"safetensors": "yes"', "safetensors of b is 'yes'; wanted true or false"),
        ('"licence": ["mit"]', "licence of b"),
        ('"parameters": -5', "parameters of b is -5; wanted a number of 0 or more"),
        ('"configs": "x"', "configs of b is 'x'"),
        ('"configs": [{"name": "a", "features": ["x"]}]', "configs of b is not a list"),
        ('"location": 5', "location of b is 5; wanted a text"),
    ],
)
def test_a_fact_of_another_kind_is_named(tmp_path: Path, fact: str, says: str) -> None:
    """A fact of a wrong type is INVALID_ARGUMENT that says which, what was wanted and what was given; null is none."""
    (tmp_path / "mine.jsonl").write_text(f'{{"id": "a", "licence": null, "tasks": null}}\n{{"id": "b", {fact}}}\n')
    with pytest.raises(InvalidArgument, match=re.escape(says)) as caught:
        read([tmp_path / "mine.jsonl"])
    assert "line 2" in str(caught.value)
