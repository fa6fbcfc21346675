"""Structured answers: what can be used is used, what cannot is said."""

from __future__ import annotations

import json

import pytest

from services.kit.structured import closed, is_strict, parse, violation

PAIR = {
    "type": "object",
    "properties": {"input": {"type": "string"}, "output": {"type": "string"}},
    "required": ["input", "output"],
}
EXAMPLES = {
    "type": "object",
    "properties": {"examples": {"type": "array", "items": PAIR, "maxItems": 3}},
    "required": ["examples"],
}
CHOICE = {
    "type": "object",
    "properties": {"choice": {"enum": ["a", "b"]}, "score": {"type": ["integer", "null"]}},
    "required": ["choice"],
}
TWO = {"examples": [{"input": "one", "output": "1"}, {"input": "two", "output": "2"}]}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TWO),
        f"```json\n{json.dumps(TWO, indent=2)}\n```",
        f"Here you are: {json.dumps(TWO)} I hope that helps!",
        f"<think>is {{it}} so?</think>\n{json.dumps(TWO)}",
        json.dumps(TWO).replace('"}]', '",}]'),
        str(TWO),
        f"As {{you}} asked: {json.dumps(TWO)} Is that {{right}}?",
        json.dumps(TWO)[:-1],
        json.dumps(TWO)[:-2],
        json.dumps(TWO)[:-2] + ",",
        f"```json\n{json.dumps(TWO)[:-2]}\n```",
        json.dumps(TWO).replace('"examples"', "examples"),
        json.dumps(TWO).replace("}, {", "} {"),
        json.dumps(TWO["examples"]),
        "\n".join(map(json.dumps, TWO["examples"])),
        ",\n".join(map(json.dumps, TWO["examples"])),
        json.dumps(TWO) + "\n" + json.dumps({"examples": []}),
        json.dumps(json.dumps(TWO)),
        json.dumps(TWO).replace('"2"', "2"),
    ],
    ids=[
        "plain",
        "fenced",
        "with prose",
        "after thinking",
        "trailing comma",
        "single quotes",
        "braces in the prose",
        "no last brace",
        "no last brackets",
        "no last brackets but a comma",
        "fenced, no last brackets",
        "keys without quotes",
        "no comma between",
        "the list alone",
        "lines",
        "lines with commas",
        "said twice",
        "a string of JSON",
        "a number for text",
    ],
)
def test_what_an_llm_puts_around_json_is_no_harm(text):
    """Code fences, prose, thoughts and near-JSON give the value that is in them."""
    assert parse(text, EXAMPLES) == TWO


def test_a_list_that_was_cut_off_gives_its_whole_items():
    """At the token limit the last item is half there: it is left out, whatever repair would make of it."""
    text = json.dumps(TWO)
    assert parse(text[:-8], EXAMPLES, complete=False) == {"examples": TWO["examples"][:1]}
    assert parse(text[:-8], EXAMPLES) == {"examples": TWO["examples"][:1]}, "a server need not say that it cut"


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (json.dumps(TWO), 2),
        (json.dumps(TWO)[:-1], 2),
        (json.dumps(TWO)[:-2], 2),
        (json.dumps(TWO)[:-2] + ', {"input": "th', 2),
        (json.dumps(TWO)[:-2] + ', {"input": "three", "output": "a } and', 2),
        (json.dumps(TWO)[:-2] + ', {"input": "three", "output": "a }', 2),
        (json.dumps(TWO)[:-2] + ', {"input": "three", "output": "a \\"}', 2),
        (json.dumps(TWO)[:-3], 1),
    ],
)
def test_the_whole_items_of_a_cut_answer_are_kept(text, items):
    """An item whose bracket closes it was not cut, though the list was; a brace within a string closes nothing."""
    assert parse(text, EXAMPLES, complete=False) == {"examples": TWO["examples"][:items]}


def test_one_item_alone_is_a_list_of_one():
    """A small model that was asked for one example leaves the list out."""
    assert parse(json.dumps(TWO["examples"][0]), EXAMPLES) == {"examples": TWO["examples"][:1]}


def test_unfit_items_cost_themselves_alone():
    """An item without its output is dropped from a list; the others are used."""
    mixed = {"examples": [*TWO["examples"], {"input": "three", "label": "3"}]}
    assert parse(json.dumps(mixed), EXAMPLES) == TWO


@pytest.mark.parametrize(
    ("text", "schema", "said"),
    [
        ("", EXAMPLES, "empty"),
        ("I'm sorry, but I cannot help with that request.", EXAMPLES, "no JSON"),
        ('{"examples": [{"input": "a", "label": "b"}]}', EXAMPLES, "no 'output'"),
        ('{"examples": [{"input": "a long', EXAMPLES, "cut off"),
        ("[1, 2]", EXAMPLES, "wanted object"),
        ('{"choice": "c"}', CHOICE, "wanted one of"),
        ('{"choice": "a", "score": "high"}', CHOICE, "integer or null"),
        ('{"choice": "a", "sco', CHOICE, "cut off"),
    ],
)
def test_what_cannot_be_used_is_said(text, schema, said):
    """Each unusable answer raises ValueError with its cause."""
    with pytest.raises(ValueError, match=said):
        parse(text, schema)


def test_a_bool_is_no_number():
    """JSON's true is not taken for 1."""
    assert violation(True, {"type": "integer"})
    assert not violation(True, {"type": "boolean"})
    assert not violation(3, {"type": "number"})


def test_a_schema_is_closed_at_every_level():
    """Strict backends refuse objects that leave other keys open: every object is closed, the original left alone."""
    shut = closed(EXAMPLES)
    assert shut["additionalProperties"] is False
    assert shut["properties"]["examples"]["items"]["additionalProperties"] is False
    assert "additionalProperties" not in EXAMPLES
    assert is_strict(EXAMPLES)
    assert not is_strict(CHOICE), "score may be absent"
