"""How examples are made to differ: what each request is to be about, what it is shown, and how varied the result is.

    Attributes      topics, lengths, difficulties, labels: proposed by the LLM once per task, or given by a person
    steer           what one request is to write about
    far_apart       of some examples, those that have least in common
    distinct        distinct-1, distinct-2 (Li et al., 2016)
    balance         how evenly labels are given
    measured        all of these of some rows
    repeats_inputs  whether outputs must repeat their inputs
    implied_labels  the outputs that the demonstrations show to be all there are

Attributes in a prompt make an LLM's examples more varied than a request for variety does (Yu et al., 2023, AttrPrompt).
Nearness is that of words: the share of different ones that two examples have in common.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.kit.text import normalise, words
from services.kit.values import Demonstration, Metric, Row

_MOST_OF_A_KIND = 50
_MOST_CHARACTERS = 200
_MOST_LABEL_WORDS = 6
# Repeats in a list from which on it goes round in circles.
_FEW_REPEATS, _MOST_REPEATS = 2, 0.2
# Words in a row that an output has from its input where it repeats it, and does not just name a thing in it.
_LONG_RUN = 4
# Candidates for each example that is shown.
_CANDIDATES = 5


@dataclass(frozen=True)
class Attributes:
    """What examples may differ in; an empty kind steers nothing. `labels` are all outputs, where they are few."""

    topics: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()
    difficulties: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.topics or self.lengths or self.difficulties or self.labels)


def from_answer(answer: Mapping[str, Any], demonstrations: Sequence[Demonstration] = ()) -> Attributes:
    """What the LLM proposed, without repeats and what is no attribute.

    A weak LLM says something for every kind, and to steer by it does harm. So a list that goes round in circles is none
    at all, a topic, a length or a difficulty has letters in it, and labels are what the demonstrations give.
    """
    topics, lengths, difficulties, labels = (
        _cleaned(answer.get(kind)) for kind in ("topics", "lengths", "difficulties", "labels")
    )
    known = {normalise(label) for label in labels}
    if any(normalise(one.output) not in known for one in demonstrations):
        labels = ()
    topics, lengths, difficulties = (tuple(filter(_has_letters, kind)) for kind in (topics, lengths, difficulties))
    return Attributes(topics, lengths, difficulties, labels)


def steer(
    attributes: Attributes, rng: random.Random, slot: int, number: int, given: Mapping[str, int]
) -> dict[str, list[str]]:
    """What request `slot` for `number` examples is to keep to: topics in turn, a length, a difficulty, rare labels.

    `given` counts the outputs so far. The topics of slots one after another go round the list, so that each has its
    share however many requests there are.
    """
    found: dict[str, list[str]] = {}
    if topics := attributes.topics:
        found["topics"] = [topics[(slot * number + n) % len(topics)] for n in range(min(number, len(topics)))]
    if attributes.lengths:
        found["length"] = [rng.choice(attributes.lengths)]
    if attributes.difficulties:
        found["difficulty"] = [rng.choice(attributes.difficulties)]
    if len(attributes.labels) > 1:
        by_rarity = sorted(attributes.labels, key=lambda label: (given.get(label, 0), rng.random()))
        found["outputs"] = [by_rarity[n % len(by_rarity)] for n in range(number)]
    return found


def far_apart(examples: Sequence[Demonstration], number: int) -> list[Demonstration]:
    """`number` of the examples: the first, then always the one farthest from all chosen (Gonzalez, 1985)."""
    bags = [frozenset(words(f"{one.input} {one.output}")) for one in examples]
    chosen: list[int] = []
    nearest = [0.0] * len(examples)
    while len(chosen) < min(number, len(examples)):
        place = min((n for n in range(len(examples)) if n not in chosen), key=lambda n: nearest[n])
        chosen.append(place)
        nearest = [max(near, _overlap(bag, bags[place])) for near, bag in zip(nearest, bags, strict=True)]
    return [examples[place] for place in chosen]


def candidates(number: int) -> int:
    """From how many examples drawn at random `number` are chosen."""
    return _CANDIDATES * number


def distinct(texts: Iterable[str], length: int) -> float:
    """Different runs of `length` words, in percent of all of them; 0 where there are none."""
    runs: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        found = words(text)
        runs.update(zip(*(found[start:] for start in range(length)), strict=False))
    return 100.0 * len(runs) / runs.total() if runs else 0.0


def balance(outputs: Iterable[str], labels: Sequence[str]) -> float:
    """The entropy of the labels given, in percent of that of labels given equally often."""
    counts = Counter(output for output in outputs if output in labels)
    if len(labels) < 2 or not counts:
        return 0.0
    shares = [count / counts.total() for count in counts.values()]
    return 100.0 * -sum(share * math.log(share) for share in shares) / math.log(len(labels))


def measured(rows: Sequence[Row], labels: Sequence[str]) -> tuple[Metric, ...]:
    """How varied the rows are: distinct_1, distinct_2, and label_balance where there are labels; () of no rows."""
    if not rows:
        return ()
    found = [Metric(f"distinct_{n}", round(distinct((row.input for row in rows), n), 2)) for n in (1, 2)]
    if labels:
        found.append(Metric("label_balance", round(balance((row.output for row in rows), labels), 2)))
    return tuple(found)


def repeats_inputs(demonstrations: Iterable[Demonstration]) -> bool:
    """Whether outputs of the task hold long runs of their inputs' words, as where a sentence is to be corrected."""
    return any(
        not _runs(words(one.output), _LONG_RUN).isdisjoint(_runs(words(one.input), _LONG_RUN)) for one in demonstrations
    )


def implied_labels(instruction: str, demonstrations: Sequence[Demonstration]) -> tuple[str, ...]:
    """The outputs there are, where few come again and again in the demonstrations; () where they may be anything.

    Each must come twice, and be short. What is a number, or no word, is a label only where the instruction names it:
    sums repeat by chance.
    """
    counts = Counter(one.output.strip() for one in demonstrations)
    if len(counts) < 2 or min(counts.values()) < 2:
        return ()
    for output in counts:
        if not output or len(output.split()) > _MOST_LABEL_WORDS:
            return ()
        is_word = any(character.isalpha() for character in output)
        if not is_word and not re.search(rf"(?<!\w){re.escape(output)}(?!\w)", instruction):
            return ()
    return tuple(sorted(counts))


def _cleaned(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        return ()
    texts = [" ".join(value.split()) for value in values if isinstance(value, str) and value.strip()]
    different = dict.fromkeys(texts)
    if len(texts) - len(different) > max(_FEW_REPEATS, _MOST_REPEATS * len(texts)):
        return ()
    return tuple(text for text in different if len(text) <= _MOST_CHARACTERS)[:_MOST_OF_A_KIND]


def _has_letters(text: str) -> bool:
    return any(character.isalpha() for character in text)


def _runs(found: Sequence[str], length: int) -> frozenset[tuple[str, ...]]:
    return frozenset(zip(*(found[start:] for start in range(length)), strict=False))


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0
