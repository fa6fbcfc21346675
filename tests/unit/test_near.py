"""Near duplicates in batches: the same as one by one, and fast where rows are alike."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from services.kit.dedup import NearDuplicates, are_near
from services.trainer import near


def _texts(seed: int) -> list[str]:
    """Texts of 1 to 120 words in families: other words, longer and shorter ones, other writings, other numbers."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghij", k=3)) for _ in range(60)] + ["12", "7", "straße", "日本語", "?"]
    texts = {"", "...", "!", "?", "1", "Ⅷ", "A"}
    for _ in range(50):
        base = rng.choices(words, k=rng.randrange(1, 120))
        for _ in range(6):
            text = list(base)
            for _ in range(rng.randrange(5)):
                place = rng.randrange(len(text))
                change = rng.randrange(4)
                text[place : place + 1] = (
                    [rng.choice(words)], [text[place], rng.choice(words)], [], [text[place].upper() + "."]
                )[change] or text[:1]  # fmt: skip
            texts.add(" ".join(text))
    return sorted(texts)


def _pairs(texts: Sequence[str], found: near.Found) -> set[tuple[int, int]]:
    """The pairs that are near by what was found: of one set, or candidates that are near."""
    close = {
        (one, other)
        for one, other in zip(found.later.tolist(), found.earlier.tolist(), strict=True)
        if are_near(texts[one], texts[other])
    }
    first = found.first.tolist()
    return {
        (one, other)
        for one, other in combinations(range(len(texts)), 2)
        if first[one] == first[other] or (first[one], first[other]) in close or (first[other], first[one]) in close
    }


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_comparison_of_all(seed: int) -> None:
    """The pairs that are found are exactly those that are near, in however many batches the texts come."""
    texts = _texts(seed)
    rank = np.random.default_rng(seed).permutation(len(texts))
    found = near.find([texts[:70], texts[70:71], texts[71:]], rank, asked=len(texts))
    truth = {pair for pair in combinations(range(len(texts)), 2) if are_near(texts[pair[0]], texts[pair[1]])}
    assert len(truth) > 100
    assert _pairs(texts, found) == truth
    assert found.complete


def test_agrees_with_the_stream() -> None:
    """What is found in batches makes the same groups as the detector that takes one text after another."""
    texts = _texts(9)
    stream = NearDuplicates()
    for text in texts:
        stream.add(text)
    group = list(range(len(texts)))
    for one, other in _pairs(texts, near.find([texts], np.arange(len(texts)), asked=len(texts))):
        old, new = group[one], group[other]
        group = [new if number == old else number for number in group]
    made: dict[int, list[str]] = {}
    for text, number in zip(texts, group, strict=True):
        made.setdefault(number, []).append(text)
    assert sorted(map(sorted, made.values())) == sorted(stream.members())


def test_candidates_are_earlier_by_rank() -> None:
    """The first of a set is the first by rank, and a candidate's other text comes before it, in the order of ranks."""
    texts = _texts(2)
    rank = np.random.default_rng(0).permutation(len(texts))
    found = near.find([texts], rank)
    assert (rank[found.first] <= rank).all() and (rank[found.earlier] < rank[found.later]).all()
    order = list(zip(rank[found.later].tolist(), rank[found.earlier].tolist(), strict=True))
    assert order == sorted(order)


def test_a_crowd_is_fast() -> None:
    """20,000 texts that are all near to each other, one word of 60 differing, are compared in seconds, and each has a
    candidate; 200 million comparisons would be all of them."""
    rng = random.Random(1)
    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrst"]
    base = rng.choices(words, k=60)
    texts = []
    for number in range(20_000):
        text = list(base)
        text[30] = f"{words[number % 150]}{words[number // 150]}"
        texts.append(" ".join(text))
    started = time.perf_counter()
    found = near.find([texts], np.arange(len(texts)))
    assert time.perf_counter() - started < 10
    assert len(set(found.later.tolist())) == len(texts) - 1


def test_too_many_comparisons_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the most comparisons the search ends and says that it did, having compared each text with some."""
    monkeypatch.setattr(near, "MOST_COMPARED", 1_000)
    rng = random.Random(3)
    words = [f"w{letter}" for letter in "abcdefghijkl"]
    shared = [f"s{letter}" for letter in "abcdefghijklmnopqrst"]
    texts = list({" ".join([*shared, *rng.choices(words, k=12)]) for _ in range(600)})
    found = near.find([texts], np.arange(len(texts)))
    assert not found.complete


def test_no_texts() -> None:
    """Nothing has no near duplicates."""
    found = near.find([], np.zeros(0, np.int64))
    assert len(found.first) == len(found.later) == 0 and found.complete
