"""What makes examples differ, and how that is measured."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from services.generator import prompts, variety
from services.generator.variety import Attributes
from services.kit.values import Demonstration, PromptSpec


def _of(*outputs: str) -> list[Demonstration]:
    return [Demonstration(f"input {number}", output) for number, output in enumerate(outputs)]


def test_what_is_shown_is_far_apart() -> None:
    """Of many examples about one thing and a few others, the others are shown."""
    alike = [Demonstration(f"the capital city of land {n} is big", "yes") for n in range(20)]
    others = [Demonstration("who painted this ceiling", "a monk"), Demonstration("seven plus nine", "16")]
    examples = random.Random(1).sample([*alike, *others], 22)
    shown = variety.far_apart(examples, 3)
    assert len(shown) == 3
    assert set(others) <= set(shown)


def test_far_apart_gives_no_more_than_there_is() -> None:
    """Of fewer examples than wanted all are given, each once."""
    assert variety.far_apart([], 3) == []
    assert len(variety.far_apart(_of("a", "a"), 5)) == 2


def test_topics_go_round() -> None:
    """Over many requests each topic has its share."""
    attributes = Attributes(topics=("a", "b", "c"))
    asked = Counter[str]()
    for slot in range(30):
        asked.update(variety.steer(attributes, random.Random(slot), slot, 2, {})["topics"])
    assert asked == {"a": 20, "b": 20, "c": 20}


def test_rare_labels_are_asked_for() -> None:
    """The labels given least so far are asked for; what is empty steers nothing."""
    steered = variety.steer(Attributes(labels=("no", "yes")), random.Random(1), 0, 1, {"yes": 5, "no": 2})
    assert steered == {"outputs": ["no"]}
    assert variety.steer(Attributes(), random.Random(1), 0, 3, {}) == {}


def test_what_the_llm_proposed_is_cleaned() -> None:
    """Repeats, blanks and what is no text are left out."""
    answer = {"topics": ["a  b", "a b", "", 3, "c"], "lengths": "short", "labels": ["x" * 500]}
    assert variety.from_answer(answer) == Attributes(topics=("a b", "c"))


def test_a_weak_llms_proposal_is_not_believed() -> None:
    """A list that goes round in circles steers nothing, nor does a number, nor labels that no demonstration gives."""
    answer = {
        "topics": ["Serbia", "Brazil", "Bali", "Brazil", "Bali", "Brazil", "Bali"],
        "lengths": ["10", "25", "one line"],
        "difficulties": ["2017-18"],
        "labels": ["Serbia", "Brazil"],
    }
    assert variety.from_answer(answer, _of("Europe")) == Attributes(lengths=("one line",))
    assert variety.from_answer(answer, _of("serbia", "Brazil.")).labels == ("Serbia", "Brazil")


@pytest.mark.parametrize(
    ("texts", "length", "expected"),
    [(["a b a b"], 1, 50), (["a b a b"], 2, 200 / 3), (["a b", "c d"], 2, 100), (["a"], 2, 0), ([], 1, 0)],
)
def test_distinct(texts: list[str], length: int, expected: float) -> None:
    """Different words, or pairs of words, in percent of all."""
    assert variety.distinct(texts, length) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("outputs", "expected"), [("xyxy", 100), ("xxxx", 0), ("xxxy", 81.128), ("", 0), ("zz", 0), ("xyz", 100)]
)
def test_balance(outputs: str, expected: float) -> None:
    """100 where every label comes equally often, 0 where there is but one; what is no label does not count."""
    assert variety.balance(outputs, ("x", "y")) == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        (("good", "bad", "good", "bad"), ("bad", "good")),
        (("good", "bad", "good"), ()),
        (("good", "good", "good"), ()),
        (("Berlin", "Rome", "Oslo"), ()),
        (("4", "4", "7", "7"), ()),
        (("1", "1", "5", "5"), ("1", "5")),
        (("a b c d e f g", "a b c d e f g", "x", "x"), ()),
        ((), ()),
    ],
)
def test_labels_that_the_demonstrations_imply(outputs: tuple[str, ...], labels: tuple[str, ...]) -> None:
    """Few outputs, each seen twice, are labels; sums that repeat are not, unless the instruction names them."""
    assert variety.implied_labels("Rate it from 1 to 5.", _of(*outputs)) == labels


def test_who_copies_is_shown_other_demonstrations() -> None:
    """The same request shows the first demonstrations, unless they are to be drawn: then others each time."""
    spec = PromptSpec("Name it.", tuple(Demonstration(f"shown {n}", str(n)) for n in range(8)))
    plan = prompts.plan(spec, 4096)

    def shown(drawn: random.Random | None) -> frozenset[str]:
        told = prompts.messages(spec, prompts.SIMPLE, [], plan, 1, None, drawn)[-1]["content"]
        return frozenset(re.findall(r"shown \d", told))

    assert shown(None) == {"shown 0", "shown 1"}
    assert len({shown(random.Random(seed)) for seed in range(20)}) > 5
    assert {len(shown(random.Random(seed))) for seed in range(20)} == {2}


@pytest.mark.parametrize(
    ("given", "wanted", "expected"),
    [
        ("she go to the school every day", "she goes to the school every day", True),
        (
            "Question: which city? Context: It was in Santa Clara, California, in 2016.",
            "Santa Clara, California",
            False,
        ),
        ("turn the lamp off", "off", False),
        ("", "", False),
    ],
)
def test_a_task_whose_outputs_repeat_their_inputs(given: str, wanted: str, expected: bool) -> None:
    """A corrected sentence repeats its input; a name out of it does not."""
    assert variety.repeats_inputs([Demonstration("a", "b"), Demonstration(given, wanted)]) == expected
