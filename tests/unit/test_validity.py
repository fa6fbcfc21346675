"""What the demonstrations say an example must be: its label, its language."""

from __future__ import annotations

import pytest

from services.generator.consensus import Collection
from services.generator.validity import Validity
from services.kit.values import Demonstration

RATED = [Demonstration(f"film {n} was fine", "good" if n % 2 else "bad") for n in range(4)]
ENGLISH = [
    Demonstration(
        "The lighthouse was lit for the first time in 1811, and its lamps burned whale oil for eighty years.", "1811"
    ),
    Demonstration("Freshwater eels spawn far out in the ocean, and their larvae drift towards the coasts.", "eels"),
]
GERMAN = "Der kleine Hund lief gestern durch den dunklen Wald und suchte dort vergeblich nach seinem roten Ball."
RUSSIAN = "Маленькая собака вчера бежала через тёмный лес и напрасно искала там свой красный мяч у реки."


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("good", ("good", "")),
        ("Bad.", ("bad", "")),
        ("neutral", ("neutral", "")),
        ("excellent", ("", "other_label")),
        ("it is good", ("", "other_label")),
    ],
)
def test_labels(output: str, expected: tuple[str, str]) -> None:
    """Where the demonstrations show few labels, an output is one of them, or one that the instruction names."""
    validity = Validity(RATED, "Say good, bad or neutral.")
    given, wanted, fault = validity.judge({"input": "film nine was dull", "output": output})
    assert (wanted, fault) == expected
    assert bool(given) == (not fault)


def test_no_labels_no_fault() -> None:
    """Where outputs may be anything, any is taken."""
    assert Validity(RATED[:3]).judge({"input": "a", "output": "excellent"}) == ("a", "excellent", "")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (GERMAN, "other_language"),
        (RUSSIAN, "other_language"),
        ("Bees dance when they come home, so that others learn where flowers with much nectar can be found.", ""),
        ("Der Hund lief.", ""),
        ("Kartoffelpuffer Xanthippe Quarktasche", ""),
        ("TCP SYN ACK RST FIN PSH URG ECE CWR NS 0x1f 0x2e; kernel panic: init killed, exitcode 139, CPU 3", ""),
    ],
)
def test_language(text: str, fault: str) -> None:
    """A long text that is clearly in another language is dropped; a short one, or one full of terms, is not."""
    assert Validity(ENGLISH).judge({"input": text, "output": "x"})[2] == fault


def test_no_language_without_enough_demonstrations() -> None:
    """Where the demonstrations are too short to tell their language, or are in several, none is wrong."""
    assert Validity([Demonstration("lamp", "x")]).judge({"input": GERMAN, "output": "x"})[2] == ""
    mixed = [*ENGLISH, Demonstration(GERMAN.replace("Hund", "Kater"), "x")]
    assert Validity(mixed).judge({"input": GERMAN, "output": "x"})[2] == ""


def test_every_drop_is_counted() -> None:
    """Another label and another language are counted each by its reason."""
    collection = Collection(RATED, (), "Rate the film.")
    assert not collection.add({"input": "film nine", "output": "excellent"})
    assert collection.dropped(10) == {"other_label": 1}
    collection = Collection(ENGLISH)
    assert not collection.add({"input": RUSSIAN, "output": "1811"})
    assert collection.dropped(10) == {"other_language": 1}
