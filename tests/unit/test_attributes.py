"""What the generated examples are to differ in, as a person writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from p2m.generator.v1 import generator_pb2

from orchestrator import attributes, commands
from services.kit.errors import InvalidArgument, NotFound

PROPOSED = generator_pb2.Attributes(topics=["tea", "rain; snow"], lengths=["one line"])


def test_what_is_told_can_be_read_again(tmp_path: Path) -> None:
    """The text of a question's option is an answer to it, and a file with that text too."""
    question = attributes.question(PROPOSED)
    assert [option.value for option in question.options] == [attributes.told(PROPOSED), "none"]
    assert attributes.parse(question.options[0].value) == PROPOSED
    path = tmp_path / "my attributes.json"
    path.write_text(attributes.told(PROPOSED), encoding="utf-8-sig")
    assert attributes.read(path) == PROPOSED
    assert attributes.typed(str(path)) == attributes.told(PROPOSED)
    assert question.open


def test_what_is_no_file_is_taken_as_it_was_typed() -> None:
    """An option, JSON or a word is not mistaken for a file."""
    for text in ("none", '{"topics": ["a.json"]}', "no/such.json", "x" * 5000):
        assert attributes.typed(text) == text


def test_an_empty_proposal_offers_nothing_to_take() -> None:
    """Where the LLM proposed nothing, nothing is the first option, and a file can still be given."""
    question = attributes.question(generator_pb2.Attributes())
    assert [option.value for option in question.options] == ["none"]


def test_repeats_and_spaces_are_cleaned() -> None:
    """A topic that stands twice is taken once; a kind that is left out is empty."""
    assert attributes.parse('{"topics": ["a  b", "a b", "c"]}') == generator_pb2.Attributes(topics=["a b", "c"])
    assert attributes.parse("{}") == generator_pb2.Attributes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("topics: tea", "no JSON"),
        ('["tea"]', "list"),
        ('{"topic": ["tea"]}', "'topic'"),
        ('{"topics": "tea"}', 'topics is "tea"'),
        ('{"topics": ["tea", 3]}', "list of texts"),
        ('{"lengths": [" "]}', "lengths hold ''"),
        (json.dumps({"labels": ["x" * 201]}), "1 to 200 characters"),
        (json.dumps({"topics": [str(n) for n in range(1001)]}), "1,001 topics"),
        ("[" * 100_000, "no JSON"),
        (" " * 1_000_001, "1,000,001 characters"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str, tmp_path: Path) -> None:
    """Each fault of a file is named, with the file."""
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument) as refused:
        attributes.read(path)
    assert said in refused.value.message
    assert str(path) in refused.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, and one that is no text, are named."""
    with pytest.raises(NotFound, match=r"none\.json"):
        attributes.read(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidArgument, match="UTF-8"):
        attributes.read(tmp_path / "b.json")


class _Typing:
    """A terminal at which somebody types these lines, and what was said to them."""

    def __init__(self, *lines: str) -> None:
        self.lines, self.said = [*lines], list[str]()

    async def read_line(self, _question: str) -> str:
        return self.lines.pop(0)

    def say(self, text: str) -> None:
        self.said.append(text)


async def test_a_person_types_the_name_of_a_file(tmp_path: Path) -> None:
    """At the terminal a number takes an option, a file's name what is in it; anything else is asked again."""
    mine = tmp_path / "mine.json"
    mine.write_text('{"topics": ["steam"]}')
    asked = attributes.question(PROPOSED)
    terminal = _Typing("5", "no such thing", str(mine))
    assert attributes.parse(await commands._answer(terminal, asked)).topics == ["steam"]  # type: ignore[arg-type]
    assert len(terminal.said) == 2
    assert await commands._answer(_Typing(""), asked) == attributes.told(PROPOSED)  # type: ignore[arg-type]
    assert await commands._answer(_Typing("2"), asked) == "none"  # type: ignore[arg-type]
