"""Repeats and near duplicates."""

from __future__ import annotations

import random
import time

import pytest

from services.kit.dedup import NearDuplicates, same_text

LONG = (
    "The lighthouse was lit for the first time in 1811. Its lamps burned whale oil, and behind each of them stood a "
    "parabolic reflector of silvered copper, which threw the light almost thirty kilometres out to sea. Later the "
    "reflectors were replaced by a rotating glass lens."
)


def _near(one: str, other: str) -> bool:
    near = NearDuplicates()
    near.add(one)
    return other in near


@pytest.mark.parametrize(
    "other",
    [
        LONG,
        LONG.upper(),
        LONG.replace(",", "").replace(".", ""),
        LONG.replace("threw", "cast"),
        LONG.replace("Later", "Much later"),
    ],
)
def test_near(other: str) -> None:
    """Case, sentence punctuation and a word in forty do not make another text."""
    assert _near(LONG, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (LONG, LONG.replace("1811", "1812")),
        ("Pay 35 euros.", "Pay 3.5 euros."),
        ("I love this film", "I hate this film"),
        ("the dog bit the man", "the man bit the dog"),
        ("1 + 2", "1 - 2"),
        ("You came", "You came?"),
        ("", "x"),
    ],
)
def test_not_near(one: str, other: str) -> None:
    """Another number is another text however long it is; in a short text so is any other word, order or sign."""
    assert not _near(one, other)


def test_groups_do_not_depend_on_the_order() -> None:
    """Any order of the same texts gives the same groups, chains of near duplicates among them."""
    chain = LONG.split()
    texts = ["x y z", LONG, LONG.lower()]
    for number in range(12):
        # Each differs from the one before by one word; the ends differ by far more than a tenth.
        chain[number * 3 + 1] = f"word{'abcdefghijkl'[number]}"
        texts.append(" ".join(chain))
    first = NearDuplicates()
    for text in texts:
        first.add(text)
    assert first.groups == 2
    for seed in range(20):
        shuffled = NearDuplicates()
        for text in random.Random(seed).sample(texts, len(texts)):
            shuffled.add(text)
        assert shuffled.groups == first.groups
        assert shuffled.members() == first.members()


def test_add_tells_whether_there_is_a_group_more() -> None:
    """A new text makes a group, a repeat and a near one do not, and one that joins two makes one less."""
    near = NearDuplicates()
    words = [f"w{letter}" for letter in "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"]
    left, middle, right = list(words), list(words), list(words)
    left[10:12] = ["one", "two"]
    right[30:32] = ["three", "four"]
    assert near.add(" ".join(left))
    assert near.add(" ".join(right))
    assert near.groups == 2
    assert not near.add(" ".join(middle))
    assert not near.add(" ".join(middle))
    assert (near.groups, len(near)) == (1, 3)


def test_many_texts_are_fast() -> None:
    """5,000 texts, half of them in one group, take under ten seconds: work grows with the texts, not their pairs."""
    near = NearDuplicates()
    rng = random.Random(0)
    vocabulary = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]
    started = time.perf_counter()
    for number in range(2_500):
        near.add(" ".join(rng.choices(vocabulary, k=30)))
        near.add(f"{LONG} {vocabulary[number % 100]}")
    assert near.groups > 2_400
    assert time.perf_counter() - started < 10


def test_same_text() -> None:
    """Spaces and Unicode's way of composing letters do not make another text; case does."""
    assert same_text(" caf\u0065\u0301 \n au  lait") == same_text("caf\u00e9 au lait")
    assert same_text("Polish") != same_text("polish")
