"""What becomes of the answers."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter

import pytest

from services.generator.consensus import Collection, Votes, best_output
from services.kit.values import Demonstration
from tests.unit.test_dedup import LONG

SHOWN = (Demonstration("two plus two", "4"), Demonstration("one plus six", "7"))


def _example(given: object, wanted: object) -> dict[str, object]:
    return {"input": given, "output": wanted}


@pytest.mark.parametrize(
    ("votes", "best"),
    [
        ({"a": 2, "bb": 1}, "a"),
        ({"aaa": 2, "b": 1}, "aaa"),
        ({"aaa": 2, "bb": 2, "c": 1}, "bb"),
        ({"bb": 2, "aa": 2}, "aa"),
    ],
)
def test_best_output(votes: dict[str, int], best: str) -> None:
    """The most frequent output wins; ties go to the shortest, then to the first in the alphabet."""
    assert best_output(Counter(votes)) == best


def test_a_repeat_is_a_vote_and_no_row() -> None:
    """An input that comes again adds a vote for its output; there is one row for it."""
    collection = Collection(SHOWN)
    for wanted in ("5", "6", "6"):
        collection.add(_example("three plus three", wanted))
    [row] = collection.rows(10)
    assert (row.input, row.output, row.source) == ("three plus three", "6", "generated")
    assert collection.dropped(10) == {"duplicate": 2}


def test_near_duplicates_share_a_row() -> None:
    """Of near duplicates the input with the most votes stands for all."""
    collection = Collection(SHOWN)
    collection.add(_example(LONG.replace("threw", "cast"), "copper"))
    for _ in range(2):
        collection.add(_example(LONG, "silver"))
    [row] = collection.rows(10)
    assert (row.input, row.output) == (LONG, "silver")
    assert collection.dropped(10) == {"duplicate": 1, "near_duplicate": 1}


def test_demonstrations_and_excluded_inputs_are_left_out() -> None:
    """A demonstration or an excluded input, or what is near to one, is counted and makes no row."""
    collection = Collection(SHOWN, [LONG])
    collection.add(_example("Two plus two.", "4"))
    collection.add(_example(LONG.replace("threw", "cast"), "copper"))
    collection.add(_example("nine plus one", "10"))
    assert [row.input for row in collection.rows(10)] == ["nine plus one"]
    assert collection.dropped(10) == {"copied_demonstration": 1, "excluded": 1}


def test_a_part_of_a_demonstration_is_a_copy() -> None:
    """Five of its words in a row, or twelve that are nearly so, make no input; fewer may, and so may other words."""
    shown = "Question: What river runs through Warsaw? Context: Warsaw is the capital and largest city of Poland."
    collection = Collection([Demonstration(shown, "it")])
    collection.add(_example("What river runs through Warsaw?", "Vistula"))
    collection.add(_example("What river runs through Warsaw? Context: Warsaw is the big capital and largest city", "?"))
    own = {
        "What river runs through Warsawa?",
        "runs through Warsaw",
        "What river runs through Cracow? Context: Cracow is the former capital and largest city of the south",
    }
    for text in own:
        collection.add(_example(text, "Vistula"))
    assert {row.input for row in collection.rows(10)} == own
    assert collection.dropped(10) == {"copied_demonstration": 2}


def test_a_garbled_part_of_a_longer_demonstration_is_a_copy() -> None:
    """Seven of ten words in their order make no input where the demonstration is twice as long; other words may, and
    so may the form of a demonstration of the same length."""
    asked = "Question: The old empire held land on three continents, Africa, Asia and which other?"
    shown = f"{asked} Context: It was a state that lasted for six centuries, and it held much of the south as well."
    form = "How many grams of sugar are there in a cup of tea?"
    collection = Collection([Demonstration(shown, "it"), Demonstration(form, "2")])
    collection.add(_example("Question: The old empire held lands on 3 continents: Africa, Asia and four others.", "?"))
    own = {
        "How many grams of sugar are there in a bar of chocolate?",
        "Question: The old kingdom lost its land on two islands, and which other land was left?",
        "empire, three continents, Asia: which old land held others?",
    }
    for text in own:
        collection.add(_example(text, "x"))
    assert {row.input for row in collection.rows(10)} == own
    assert collection.dropped(10) == {"copied_demonstration": 1}


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ("two plus two", "invalid"),
        ({"input": "no output"}, "invalid"),
        (_example("", "4"), "invalid"),
        (_example("x plus y", "  "), "invalid"),
        (_example(4, "4"), "invalid"),
        (_example("half a pair \ud800", "4"), "invalid"),
        (_example("a\0b", "4"), "invalid"),
        (_example("<input>", "4"), "invalid"),
        (_example("input 1", "output 1"), "invalid"),
        (_example("five plus one", "[your output here]"), "invalid"),
        (_example("...", "4"), "invalid"),
        (_example("one plus one", "2" * 1_100), "too_long"),
        (_example("one plus " * 200, "2"), "too_long"),
        (_example("one plus one is easy, but...", "2"), "truncated"),
    ],
)
def test_what_cannot_be_an_example(example: object, reason: str) -> None:
    """What has no input or output, or is out of all proportion, or is cut off, is dropped and counted by its reason."""
    collection = Collection(SHOWN)
    assert not collection.add(example)
    assert collection.usable == 0
    assert collection.dropped(10) == {reason: 1}


@pytest.mark.parametrize("example", [("😀", "joy"), ("+", "plus"), ("output the sum", "-"), ("名前", "N/A")])
def test_what_can_be_one(example: tuple[str, str]) -> None:
    """Symbols, emoji, one character and a dash for an answer are examples like any other."""
    collection = Collection(SHOWN)
    collection.add(_example(*example))
    assert [(row.input, row.output) for row in collection.rows(10)] == [example]


def test_what_the_demonstrations_do_is_allowed() -> None:
    """Where a demonstration ends in an ellipsis or looks like a placeholder, examples may too."""
    collection = Collection([Demonstration("and then he...", "text"), Demonstration("text", "noun")])
    collection.add(_example("and when she...", "text"))
    assert collection.kept == 1


def test_the_order_does_not_matter() -> None:
    """The same examples in any order give the same rows and the same counts, byte for byte."""
    rng = random.Random(1)
    examples: list[object] = [
        _example(f"{a} plus {b}", str(a + b + rng.choice([0, 0, 1]))) for a in range(9) for b in range(9)
    ]
    examples += examples[:30]
    examples += [_example(LONG.replace(word, word.upper() + "x"), word) for word in ("lamps", "oil", "copper", "sea")]
    examples += [
        _example(LONG, "sea"),
        _example("", ""),
        _example("  0 plus  1", "1"),
        "nonsense",
        _example("2+2", "…"),
    ]
    results = []
    for seed in range(10):
        collection = Collection(SHOWN, ["8 plus 8"])
        for example in random.Random(seed).sample(examples, len(examples)):
            collection.add(example)
        results.append((collection.kept, collection.rows(50), collection.dropped(50), collection.usable))
    assert all(result == results[0] for result in results)
    kept, rows, dropped, _ = results[0]
    assert len(rows) == 50
    assert dropped["surplus"] == kept - 50


def test_every_example_is_a_row_or_counted() -> None:
    """Rows and dropped examples add up to what was added."""
    collection = Collection(SHOWN, ["8 plus 8"])
    added = [_example(f"{n % 20} plus 8", "x" if n % 7 else "") for n in range(100)]
    for example in added:
        collection.add(example)
    assert len(collection.rows(15)) + sum(collection.dropped(15).values()) == len(added)


def test_sample() -> None:
    """A sample is of what was taken in, each with its best output so far, never more than there is."""
    collection = Collection(SHOWN)
    assert collection.sample(random.Random(0), 3) == []
    for wanted in ("5", "6", "6"):
        collection.add(_example("three plus three", wanted))
    assert collection.sample(random.Random(0), 3) == [Demonstration("three plus three", "6")]


def test_votes() -> None:
    """Votes count however they come; an input answered once needs no counter."""
    votes = Votes()
    for text, output in [("a", "x"), ("b", "z"), ("a", "y"), ("a", "y")]:
        votes.add(text, output)
    assert (votes.best("a"), votes.of("a"), votes.best("b"), votes.of("b")) == ("y", 3, "z", 1)
    assert (votes.total, len(votes), "a" in votes, "c" in votes) == (4, 2, True, False)


def test_a_million_votes() -> None:
    """1,000,000 answers to 300,000 inputs are counted, and their best outputs told, in under ten seconds and 1 GB."""
    number, inputs = 1_000_000, 300_000
    tracemalloc.start()
    votes = Votes()
    for n in range(number // 10):
        votes.add(f"Question: what is number {n * 7 % (inputs // 10)}?", str(n % 7))
    each = tracemalloc.get_traced_memory()[1] / (number // 10)
    tracemalloc.stop()  # it makes everything ten times as slow
    assert each * number < 1e9
    votes = Votes()
    started = time.process_time()
    for n in range(number):
        votes.add(f"Question: what is number {n * 7 % inputs}?", str(n % 7))
    assert len({votes.best(text) for text in votes}) > 1
    assert time.process_time() - started < 10
    assert (votes.total, len(votes)) == (number, inputs)
