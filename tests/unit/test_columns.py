"""Columns: any type to text, and which are input and output."""

from __future__ import annotations

from typing import Any

import pytest

from services.dataset_retriever.columns import by_rules, propose, usable_columns
from services.dataset_retriever.flatten import Column, as_text, columns_of, flatten, has_text, value_at
from services.kit.artifacts import Artifacts
from services.kit.llm import Teacher
from services.kit.settings import Settings
from services.kit.values import Allowance, PromptSpec
from tests.support.teacher import NONSENSE, ScriptedTeacher

SQUAD = columns_of(
    {
        "id": "string", "title": "string", "context": "string", "question": "string",
        "answers": "sequence<struct<text: string, answer_start: int32>>",
    },
    {},
)  # fmt: skip
SPEC = PromptSpec("Answer the question from the context.")


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


def test_a_column_of_nones_is_not_usable() -> None:
    """A column that is None in every sample row is not offered."""
    columns = columns_of({"text": "string", "note": "string"}, {})
    assert [column.name for column in usable_columns(columns, [{"text": "a", "note": None}])] == ["text"]


@pytest.mark.parametrize(
    ("features", "inputs", "output"),
    [
        ({"input": "string", "output": "string"}, ("input",), "output"),
        ({"text": "string", "label": "class_label"}, ("text",), "label"),
        ({"label": "class_label", "title": "string", "content": "string"}, ("title", "content"), "label"),
        (
            {"premise": "string", "hypothesis": "string", "label": "class_label", "uid": "string"},
            ("premise", "hypothesis"),
            "label",
        ),
        ({"article": "string", "highlights": "string", "id": "string"}, ("article",), "highlights"),
        ({"translation": "translation<de,en>"}, ("translation.de",), "translation.en"),
        ({"sentence": "string", "corrections": "sequence<string>"}, ("sentence",), "corrections"),
        ({"id": "string", "url": "string"}, (), ""),
        ({"frage": "string", "antwort": "string"}, ("frage",), "antwort"),
    ],
)
def test_rules_know_the_usual_names(features: dict[str, str], inputs: tuple[str, ...], output: str) -> None:
    """Without an LLM the names of the columns decide; where they tell nothing, no columns are proposed."""
    found = by_rules(columns_of(features, {}))
    assert (found.inputs, found.output) == (inputs, output)


def test_rules_know_squad() -> None:
    """Nested answers are the output, question and context the input, ids and offsets neither."""
    found = by_rules(SQUAD)
    assert found.output == "answers.text" and set(found.inputs) >= {"question", "context"} and "id" not in found.inputs


ROWS = [{"id": "1", "title": "t", "context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [0]}}]


async def _proposed(settings: Settings, artifacts: Artifacts, teacher: ScriptedTeacher, key: str) -> Any:
    own = settings.model_copy(update={"openai_base_url": teacher.url, "llm_patience_s": 0.1})
    asked = Teacher.from_settings(own, artifacts)
    assert asked is not None
    try:
        return await propose(SQUAD, ROWS, SPEC, asked.session(f"run/{key}", Allowance()))
    finally:
        await asked.close()


async def test_the_llm_chooses_where_its_answer_holds(settings: Settings, artifacts: Artifacts) -> None:
    """An answer that names existing columns, none of them twice, is taken with its reason."""
    answer = {"input_columns": ["title", "question"], "output_column": "answers.text", "why": "They fit."}
    async with ScriptedTeacher({"columns": answer}) as teacher:
        found = await _proposed(settings, artifacts, teacher, "good")
    assert (found.inputs, found.output, found.why) == (("title", "question"), "answers.text", "They fit.")


async def test_an_answer_against_the_schema_gives_the_rules(settings: Settings, artifacts: Artifacts) -> None:
    """The output among the inputs, and nonsense, each leave it to the rules, with a sentence that says so."""
    answer = {"input_columns": ["answers.text"], "output_column": "answers.text", "why": ""}
    async with ScriptedTeacher({"columns": answer}) as teacher:
        found = await _proposed(settings, artifacts, teacher, "same")
        assert found.output == "answers.text" and "context" in found.inputs and "cannot be used" in found.why
        teacher.always = NONSENSE
        found = await _proposed(settings, artifacts, teacher, "nonsense")
        assert "context" in found.inputs and "The LLM was not asked to the end" in found.why


async def test_none_of_the_columns_fits_is_an_answer(settings: Settings, artifacts: Artifacts) -> None:
    """The LLM may say that no column is an output: then none is proposed."""
    async with ScriptedTeacher({"columns": {"input_columns": [], "output_column": "", "why": "No."}}) as teacher:
        found = await _proposed(settings, artifacts, teacher, "none")
    assert (found.inputs, found.output) == ((), "")
