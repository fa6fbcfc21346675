"""Flattening: any type to text, tags beside words, and the right one of several options."""

from __future__ import annotations

from typing import Any

import pytest

from services.dataset_retriever.flatten import Column, as_text, columns_of, flatten, has_text, value_at
from services.dataset_retriever.options import first_number

SQUAD = columns_of(
    {"context": "string", "question": "string", "answers": "sequence<struct<text: string, answer_start: int32>>"}, {}
)


def test_records_open_into_dotted_columns() -> None:
    """A list of records becomes one list column for each part; a translation one column for each language."""
    assert [(column.name, column.type) for column in SQUAD[-2:]] == [
        ("answers.text", "list<string>"), ("answers.answer_start", "list<int32>"),
    ]  # fmt: skip
    nested = columns_of(
        {"a": "struct<b: struct<c: class_label>, d: list<string>>", "t": "translation<de,en>"}, {"a.b.c": ["x"]}
    )
    assert [column.name for column in nested] == ["a.b.c", "a.d", "t.de", "t.en"] and nested[0].class_names == ("x",)


@pytest.mark.parametrize(
    ("row", "column", "text"),
    [
        ({"a": "  x "}, Column("a", "string"), "x"),
        ({"a": 1}, Column("a", "class_label", ("no", "yes")), "yes"),
        ({"a": -1}, Column("a", "class_label", ("no", "yes")), ""),
        ({"a": [0, None, 1]}, Column("a", "list<class_label>", ("no", "yes")), "no, yes"),
        ({"a": ["x", None, "y"]}, Column("a", "list<string>"), "x, y"),
        ({"tokens": ["x", "y"]}, Column("tokens", "list<string>"), "x y"),
        ({"a": None}, Column("a", "string"), ""),
        ({"a": [None, None]}, Column("a", "list<string>"), ""),
        ({"a": True}, Column("a", "bool"), "true"),
        ({"a": 2.0}, Column("a", "float64"), "2"),
        ({"a": {"text": ["x", "y"]}}, Column("a.text", "list<string>"), "x, y"),
        ({"a": [{"text": "x"}, {"text": "y"}]}, Column("a.text", "list<string>"), "x, y"),
        ({"a": {"b": 1}}, Column("a", "struct<b: int32>"), ""),
        ({"a": b"bytes"}, Column("a", "binary"), ""),
        ({"a.b": "x"}, Column("a.b", "string"), "x"),
        ({}, Column("a.b", "string"), ""),
        ({"a": "x\0\ud800"}, Column("a", "string"), "x?"),
    ],
)
def test_values_become_text(row: dict[str, Any], column: Column, text: str) -> None:
    """A label is its name, a list is joined without its Nones, what is no text is none."""
    assert as_text(value_at(row, column.name), column) == text


def test_a_row_of_several_columns() -> None:
    """Several input columns become named lines; of several right answers the first is the output, all are kept."""
    by_name = {column.name: column for column in SQUAD}
    row = {"question": "Who?", "context": "A did.", "answers": {"text": ["A", "a man", "A"], "answer_start": [0, 0, 0]}}
    flat = flatten(row, [by_name["question"], by_name["context"]], by_name["answers.text"])
    assert (flat.input, flat.output, flat.answers) == ("question: Who?\ncontext: A did.", "A", ("A", "a man"))


def test_images_and_sound_have_no_text() -> None:
    """Only text, numbers, labels and lists of them can be a column of the task."""
    assert [kind for kind in ("string", "list<string>", "int64", "class_label", "bool") if not has_text(kind)] == []
    assert not any(
        has_text(kind) for kind in ("image", "audio", "binary", "null", "list<null>", "list<image>", "struct<a: image>")
    )


def test_lists_of_lists_of_records_open() -> None:
    """A table, rows of cells that are records, is one column for each part of a cell; its rows are kept apart."""
    [column] = columns_of({"table": "list<list<struct<value: string>>>"}, {})
    assert (column.name, column.type) == ("table.value", "list<list<string>>")
    row = {"table": [[{"value": "a"}, {"value": "b"}], [{"value": "c"}]]}
    assert as_text(value_at(row, "table.value"), column) == "a, b; c"


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (["One.", "Two."], "sentences", "One. Two."),
        (["Hi", "Hello!"], "dialog", "Hi\nHello!"),
        (["red", "blue"], "concepts", "red, blue"),
    ],
)
def test_lists_are_joined_as_they_read(value: list[str], name: str, text: str) -> None:
    """Sentences by spaces, turns of a dialogue by lines, other things by commas."""
    assert as_text(value, Column(name, "list<string>")) == text


def test_a_translation_of_any_languages() -> None:
    """A record of languages and translations in parallel lists is read by language, as a plain one is."""
    columns = columns_of({"translations": "translation_variable<de,en>"}, {})
    row = {"translations": {"language": ["en", "de"], "translation": ["house", "Haus"]}}
    assert flatten(row, [columns[0]], columns[1]).output == "house"
    assert flatten({"translations": {"language": ["en"], "translation": ["a"]}}, [columns[0]], columns[1]).input == ""


def test_tags_stand_beside_their_words() -> None:
    """Of token tags the output is the labels' names by spaces, one for each word, whatever the column is called."""
    tokens = Column("tokens", "list<string>")
    tags = Column("ner_tags", "list<class_label>", ("O", "B-PER"))
    row = {"tokens": ["Ann", "sleeps"], "ner_tags": [1, 0], "labels": ["NOUN", "VERB"]}
    assert flatten(row, [tokens], tags).output == "B-PER O"
    assert flatten(row, [tokens], Column("labels", "list<string>")).output == "NOUN VERB"


def test_labels_of_a_text_are_listed() -> None:
    """Several labels of one text, which are no tags, are joined by commas."""
    labels = Column("labels", "list<class_label>", ("joy", "fear"))
    assert flatten({"text": "t", "labels": [1, 0]}, [Column("text", "string")], labels).output == "fear, joy"


LETTERS = {"text": ["x", "y"], "label": ["A", "B"]}
OPTIONS = [
    ({"q": "?", "choices": LETTERS, "key": "B"}, "q choices.text", (), 0, "y"),
    ({"q": "?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "key": "1"}, "q choices.text", (), 0, "x"),
    ({"q": "?", "choices": [{"text": "x", "label": "A"}, {"text": "y"}], "key": "A"}, "q choices.text", (), 0, "x"),
    ({"q": "?", "options": ["x", "y"], "key": "B"}, "q options", (), 0, "y"),
    ({"q": "?", "options": ["x", "y"], "key": "(b)"}, "q options", (), 0, "y"),
    ({"q": "?", "choice": ["x", "y"], "key": "y"}, "q choice", (), 0, "y"),
    ({"q": "?", "choices": ["x", "y"], "key": 1}, "q choices", ("A", "B"), 0, "y"),
    ({"q": "?", "sol1": "x", "sol2": "y", "key": 1}, "q sol1 sol2", ("0", "1"), 0, "y"),
    ({"q": "?", "sol1": "x", "sol2": "y", "key": 1}, "q sol1 sol2", (), 0, "y"),
    ({"q": "?", "answerA": "x", "answerB": "y", "key": "2"}, "q answerA answerB", (), 1, "y"),
    ({"q": "?", "answer0": "x", "answer1": "y", "key": 1}, "q answer0 answer1", (), 0, "y"),
    ({"q": "?", "option1": "x", "option2": "y", "key": "2"}, "q option1 option2", (), 1, "y"),
    ({"q": "?", "choice1": "x", "choice2": "y", "key": 1}, "q choice1 choice2", ("choice1", "choice2"), 0, "y"),
    ({"q": "?", "choice1": "x", "choice2": "y", "key": "choice2"}, "q choice1 choice2", (), 0, "y"),
    ({"q": "?", "opa": "x", "opb": "y", "key": 1}, "q opa opb", ("a", "b"), 0, "y"),
    ({"q": "?", "endings": ["x", "y"], "key": "1"}, "q endings", (), 0, "y"),
    ({"q": "?", "endings": ["x", "y"], "key": ""}, "q endings", (), 0, ""),
    ({"q": "?", "endings": ["x", "y"], "key": -1}, "q endings", ("0", "1"), 0, ""),
    ({"q": "?", "endings": ["x", "y"], "key": 7}, "q endings", (), 0, ""),
    ({"q": "?", "t": {"choices": ["x", "y"]}, "key": [0, 1]}, "q t.choices", (), 0, "y"),
]


@pytest.mark.parametrize(("row", "inputs", "names", "first", "right"), OPTIONS)
def test_a_key_becomes_the_text_of_its_option(
    row: dict[str, Any], inputs: str, names: tuple[str, ...], first: int, right: str
) -> None:
    """A letter, a number from 0 or 1, a label or a mark means an option, whose text is the output; the options are in
    the input. A key that leads to no option is no output."""
    flat = flatten(row, [Column(name, "string") for name in inputs.split()], Column("key", "string", names), first)
    assert flat.output == right and "x" in flat.input and "y" in flat.input


def test_answers_are_options_where_a_number_points_at_one() -> None:
    """A list called answers holds options only where the output is the right one's number."""
    row = {"q": "?", "answers": ["x", "y"], "correct_answer_id": 1, "words": "B"}
    given = [Column("q", "string"), Column("answers", "list<string>")]
    assert flatten(row, given, Column("correct_answer_id", "int32")).output == "y"
    assert flatten(row, given, Column("words", "string")).output == "B"


@pytest.mark.parametrize(
    ("keys", "names", "first"),
    [
        ([1, 0, 2], (), 0),
        (["1", "3", "2"], (), 1),
        ([1, 2, 1], ("option1", "option2", "option3"), 1),
        ([1, 2, 1], ("answer0", "answer1", "answer2"), 0),
        (["A", None, "B"], (), 0),
    ],
)
def test_the_sample_tells_what_numbers_count_from(keys: list[Any], names: tuple[str, ...], first: int) -> None:
    """A 0, or as many as there are options, tells; else the columns' names do; else it is 0."""
    assert first_number(keys, [3] * len(keys), names) == first


def test_several_options_may_be_right() -> None:
    """Where marks name several options the first is the output and all are kept."""
    row = {"q": "?", "t": {"choices": ["x", "y", "z"], "labels": [1, 0, 1]}}
    flat = flatten(row, [Column("q"), Column("t.choices")], Column("t.labels", "list<int32>"))
    assert (flat.output, flat.answers) == ("x", ("x", "z")) and "x | y | z" in flat.input


def test_an_answer_that_is_no_key_stays() -> None:
    """Without options among the inputs a letter stays a letter, and an answer in words is not touched."""
    row = {"q": "?", "options": ["x", "y"], "answer": "B", "words": "neither"}
    assert flatten(row, [Column("q", "string")], Column("answer", "string")).output == "B"
    assert flatten(row, [Column("q"), Column("options")], Column("words", "string")).output == "neither"


def test_deep_nesting_is_no_text() -> None:
    """A value nested beyond reason has no text and breaks nothing."""
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    assert as_text(deep, Column("a", "list<string>")) == ""
