"""What of a dataset is searched."""

from __future__ import annotations

import pytest

from catalogue.dataset_cards import dataset_text, spelled_out


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("squad", "squad"),
        ("wikiSQL_v2", "wikiSQL_v2 wiki SQL v 2"),
        ("CIFAR-10", "CIFAR-10 CIFAR 10"),
        ("e2e_nlg", "e2e_nlg e 2e nlg"),
        ("日本語", "日本語"),
    ],
)
def test_a_name_is_spelled_out(name: str, spelled: str) -> None:
    """Its words stand beside it, so that somebody who writes them apart finds it."""
    assert spelled_out(name) == spelled


def test_all_that_tells_what_a_dataset_holds_is_searched() -> None:
    """Name without its owner, description without links' addresses, columns, labels, tasks, other languages, tags."""
    entry = {
        "id": "owner/MailSort",
        "description": "Messages by [department](https://example.org/secret).",
        "configs": [
            {"name": "a", "features": {"message": "string", "unit": "class_label"}, "class_names": {"unit": ["IT", 7]}},
            {"name": "b", "features": {"other": "string"}},
        ],
        "tasks": ["text-classification"],
        "languages": ["en", "de", "xx-unknown"],
        "tags": ["support"],
    }
    assert dataset_text(entry).split("\n") == [
        "MailSort Mail Sort",
        "Messages by department.",
        "Columns: message, unit. Labels: IT, 7.",
        "text classification, German, support",
    ]


def test_an_entry_of_nothing_but_a_name_has_a_text() -> None:
    """What is not known is left out, not written as empty."""
    assert dataset_text({"id": "plain", "description": ""}) == "plain"


def test_a_thousand_columns_do_not_drown_the_description() -> None:
    """Twelve columns and twelve labels are enough to tell what a row is."""
    config = {
        "features": {f"c{number}": "string" for number in range(1000)},
        "class_names": {"c0": [f"l{number}" for number in range(1000)]},
    }
    text = dataset_text({"id": "wide", "description": "Wide.", "configs": [config]})
    assert "c11" in text and "c12" not in text and "l11" in text and "l12" not in text
