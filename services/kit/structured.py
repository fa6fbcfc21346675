"""From what an LLM wrote to the JSON value that was asked for.

    Schema          a name and a JSON schema
    closed          the schema as strict backends want it
    parse           text -> value, repaired where it can be; ValueError says why where it cannot
    violation       what a value lacks of its schema: required keys, types, enums, lengths of lists

Where the schema is an object that holds one list (as "examples" is), a list cut short or with some unfit items gives
those that are whole and fit; the list alone, one item alone, and items one after another are taken for the object.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import json_repair

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


@dataclass(frozen=True)
class Schema:
    """A JSON schema under the name that the LLM's server is told."""

    name: str
    schema: dict[str, Any]


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with `additionalProperties: false` in every object: what strict mode asks for."""
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: closed(part) for name, part in value.items()}
        elif isinstance(value, dict):
            result[key] = closed(value)
        elif key in ("anyOf", "oneOf", "allOf"):
            result[key] = [closed(part) for part in value]
        else:
            result[key] = value
    if "properties" in schema:
        result.setdefault("additionalProperties", False)
    return result


def is_strict(schema: dict[str, Any]) -> bool:
    """Whether every property of every object is required, without which strict mode refuses the schema."""
    if set(schema.get("properties", {})) - set(schema.get("required", [])):
        return False
    parts = [*schema.get("properties", {}).values(), schema.get("items"), *schema.get("anyOf", [])]
    return all(is_strict(part) for part in parts if isinstance(part, dict))


def parse(text: str, schema: dict[str, Any], complete: bool = True) -> Any:
    """The value in `text`. `complete` is False where the LLM was cut off at its token limit.

    Raises ValueError, whose message says what was wrong.
    """
    text = re.sub(r"^\s*<think>.*?</think>", "", text, flags=re.DOTALL).strip()
    if not text:
        raise ValueError("the answer is empty")
    value, cut = _read(text, schema, complete)
    items = _only_list(schema)
    if items is None:
        if cut:
            raise ValueError("the answer was cut off before its end")
        return _checked(_in_words(value, schema), schema)
    wanted = schema["properties"][items].get("items", {})
    value = _in_words(_as_object(value, items, wanted), schema)
    if isinstance(value, dict) and isinstance(value.get(items), list):
        found = value[items][:-1] if cut else value[items]  # the last one may be half there
        fitting = [item for item in found if not violation(item, wanted)]
        if cut and not fitting:
            raise ValueError("the answer was cut off before its first item's end")
        value = value | {items: fitting if fitting or not found else found}
    return _checked(value, schema)


def _checked(value: Any, schema: dict[str, Any]) -> Any:
    if wrong := violation(value, schema):
        raise ValueError(wrong)
    return value


def violation(value: Any, schema: dict[str, Any], where: str = "answer") -> str:
    """The first thing in `value` that is not as in `schema`; "" where all is well."""
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        wrong = [violation(value, option, where) for option in options]
        return "" if "" in wrong else wrong[0]
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is {_short(value)}; wanted one of {_short(schema['enum'])}"
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return f"{where} is {_short(value)}; wanted {' or '.join(kinds)}"
    if isinstance(value, dict):
        missing = [key for key in schema.get("required", []) if key not in value]
        if missing:
            return f"{where} has no {missing[0]!r}; it has {_short(list(value))}"
        parts = (violation(value[key], part, key) for key, part in schema.get("properties", {}).items() if key in value)
        return next(filter(None, parts), "")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            return f"{where} has {len(value)} items; wanted at least {schema['minItems']}"
        items = (violation(item, schema.get("items", {}), f"{where}[{n}]") for n, item in enumerate(value))
        return next(filter(None, items), "")
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        return f"{where} is {_short(value)}; wanted at least {schema['minLength']} characters"
    return ""


def _read(text: str, schema: dict[str, Any], complete: bool) -> tuple[Any, bool]:
    """The JSON value in `text` and whether its end is missing: whether the last thing in it may be half there."""
    try:
        value = json.loads(text)
        return (json.loads(value) if isinstance(value, str) and value.startswith(("{", "[")) else value), False
    except ValueError:
        pass
    # A brace in the prose before is not the beginning.
    start = re.search(r"""[{\[](?=\s*["'{\[\]}\u201c])""", text) or re.search(r"[{\[]", text)
    if start is None:
        raise ValueError(f"the answer is no JSON: {_short(text)}")
    text = text[start.start() :]
    try:
        value, end = json.JSONDecoder().raw_decode(text)
        if not violation(value, schema) or not re.match(r"[\s,]*\{", text[end:]):
            return value, False
        text = f"[{text}"  # one item after another
    except ValueError:
        pass
    return json_repair.loads(text), not _ends_whole(text, complete)


def _ends_whole(text: str, complete: bool) -> bool:
    """Whether the last item of `text` is closed: outside of a string, and by its bracket."""
    ends = text.rstrip("` \n\t.," if complete else " \n\t,").endswith(("}", "]"))
    return ends and len(re.findall(r'(?<!\\)(?:\\\\)*"', text)) % 2 == 0


def _as_object(value: Any, items: str, wanted: dict[str, Any]) -> Any:
    """{items: [...]} where `value` is that list, or one of its items."""
    if isinstance(value, list) and any(not violation(item, wanted) for item in value):
        return {items: value}
    if isinstance(value, dict) and items not in value and wanted.get("properties") and not violation(value, wanted):
        return {items: [value]}
    return value


def _in_words(value: Any, schema: dict[str, Any]) -> Any:
    """The value with numbers as text where the schema wants text."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return {key: _in_words(part, properties.get(key, {})) for key, part in value.items()}
    if isinstance(value, list):
        return [_in_words(item, schema.get("items", {})) for item in value]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return json.dumps(value) if number and schema.get("type") == "string" else value


def _only_list(schema: dict[str, Any]) -> str | None:
    """The name of the one list that an object of this schema consists of."""
    properties = schema.get("properties", {})
    if len(properties) != 1:
        return None
    [(name, part)] = properties.items()
    return name if part.get("type") == "array" else None


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES.get(kind, object))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= 80 else text[:77] + "...")
