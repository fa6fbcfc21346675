"""What the demonstrations say an example must be: its parts, its label, its language."""

from __future__ import annotations

import time

import pytest

from services.generator import form
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

QUESTIONS = [
    Demonstration("Question: Where do eels spawn? Context: Eels (Latin: Anguilla) spawn in the sea.", "in the sea"),
    Demonstration("Question: When was it lit? Context: It was lit at 10:30 in 1811.", "1811"),
]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Question: Who lit it? Context: Its keeper did.", ""),
        ("context: Its keeper lit it.\nquestion : Who did?", ""),
        ("Question: Who lit it?", "lacks_part"),
        ("Its keeper lit it. Context: at sea", "lacks_part"),
        ("Question:Who lit it? Context:Its keeper did.", ""),
    ],
)
def test_parts(text: str, fault: str) -> None:
    """An input has all the named parts that every demonstration has, in any order and case."""
    assert Validity(QUESTIONS).judge({"input": text, "output": "x"})[2] == fault


def test_parts_of_a_long_word() -> None:
    """A word as long as an input may be is looked through once."""
    began = time.process_time()
    assert form.parts(["a" * 200_000 + " b: c d: e"] * 2) == ("b", "d")
    assert not form.has("a" * 200_000, ["b"])
    assert time.process_time() - began < 5


def test_parts_of_outputs() -> None:
    """An output's parts count as an input's do."""
    shown = [Demonstration("a lamp", "name: lamp, price: 3"), Demonstration("a chair", "name: chair, price: 8")]
    assert Validity(shown).judge({"input": "a bed", "output": "name: bed"})[2] == "lacks_part"
    assert Validity(shown).judge({"input": "a bed", "output": "price: 9, name: bed"})[2] == ""


@pytest.mark.parametrize(
    ("texts", "parts"),
    [
        (["Question: a Context: b", "question: c context: d"], ("Question", "Context")),
        (["问题：一 背景： 二", "问题：三 背景：四"], ("问题", "背景")),
        (["See http://a.b or ftp://c.d", "See http://e.f or ftp://g.h"], ()),
        (["Note: at 10: 30", "Note: at 11: 15"], ()),
        (["Question: a Context: b"], ()),
        (["Question: a Context: b", "Question: c"], ()),
        ([], ()),
    ],
)
def test_a_form_is_what_all_texts_have(texts: list[str], parts: tuple[str, ...]) -> None:
    """Two names or more, in two texts or more; digits before a colon are no name."""
    assert form.parts(texts) == parts


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
