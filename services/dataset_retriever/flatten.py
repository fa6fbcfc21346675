"""Any column to text.

    columns_of     the columns of a `features` description, nested ones dotted
    value_at       what stands at "answers.text" of a row
    as_text        that, as text; "" where there is nothing to say
    flatten        a whole row: input, output, all right outputs

A class label becomes its name, lists are joined without their Nones, of several right answers the first is the output
and all are kept. A list of tags beside a list of words is joined by spaces, as the words are. Where the input holds the
options of a question, the output is the option that is right (`options`). Images, audio, bytes and whole records have
no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dataset_retriever.options import first_number, is_options, option_family, right_options

# What can be read as text, by the first word of its type.
_TEXT = ("string", "large_string", "class_label", "bool", "translation", "date", "time", "timestamp", "decimal")
_NUMBER = re.compile(r"u?int\d+|float\d+|double|number")
_LIST = re.compile(r"(?:sequence|list|large_list)<(.*)>(?:\[\d+\])?", re.DOTALL)
_RECORD = re.compile(r"struct<(.*)>", re.DOTALL)
_TRANSLATION = re.compile(r"translation(?:_variable)?(?:_languages)?<(.*)>")
# Of these columns a list holds alternatives, all of them right.
_ALTERNATIVES = re.compile(r"(answers?|aliases|references?|corrections|labels_text|targets)(\.text|\.aliases)?$")
_TOKENS = re.compile(r"(^|[._])(tokens|words|toks)$")
_TAGS = re.compile(r"(^|[._])(tags|upos|xpos|deprel|lemmas|[a-z]+_tags)$")
_TURNS = re.compile(r"(^|[._])(dialog(ue)?s?|turns?|messages?|utterances?|conversations?)(\.[a-z]+)?$")
_SENTENCE_END = (".", "!", "?", "…", "。", "！", "？", "।", "؟")
# Deeper than any dataset; a row nested deeper is damage or malice.
_DEEPEST = 32


@dataclass(frozen=True)
class Column:
    """One column, with the fields of the proto's message."""

    name: str = ""
    type: str = ""
    class_names: tuple[str, ...] = ()


def columns_of(features: Mapping[str, str], class_names: Mapping[str, Sequence[str]]) -> tuple[Column, ...]:
    """The columns of {column: type}, types written as in the catalogue, records opened: "answers.text"."""
    found: list[Column] = []
    for name, kind in features.items():
        found += _opened(name, kind, class_names)
    return tuple(found)


def has_text(kind: str) -> bool:
    """Whether a column of this type has a text: words, numbers, labels, or lists of them."""
    inner = _LIST.fullmatch(kind)
    if inner:
        return has_text(inner[1])
    return kind.startswith(_TEXT) or bool(_NUMBER.fullmatch(kind))


def value_at(row: Mapping[str, Any], column: str) -> Any:
    """What stands at a dotted column; of a list of records the list of their parts; None where nothing does."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        value = _part(value, part)
    return value


def as_text(value: Any, column: Column, depth: int = 0) -> str:
    """A value's text: labels by name, lists joined, "" for None, what is no text, and what is nested too deep."""
    if value is None or isinstance(value, bytes | Mapping) or depth > _DEEPEST:
        return ""
    if isinstance(value, list | tuple):
        texts = [text for text in (as_text(item, column, depth + 1) for item in value) if text]
        return _separator(column, value, texts).join(texts)
    if isinstance(value, bool):
        return "true" if value else "false"
    if column.class_names and isinstance(value, int):
        return column.class_names[value] if 0 <= value < len(column.class_names) else ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return _clean(str(value))


def alternatives(value: Any, column: Column) -> tuple[str, ...]:
    """All right outputs, without repeats, where the column lists such; else ()."""
    if not isinstance(value, list | tuple) or not _ALTERNATIVES.search(column.name):
        return ()
    return tuple(dict.fromkeys(text for text in (as_text(item, column) for item in value) if text))


@dataclass(frozen=True)
class Flat:
    """A row as text. `input` or `output` is "" where the row has none."""

    input: str = ""
    output: str = ""
    answers: tuple[str, ...] = ()


def flatten(row: Mapping[str, Any], inputs: Sequence[Column], output: Column, first: int = 0) -> Flat:
    """A row as the model sees it. Several input columns become lines "name: text", one stands alone.

    `first` is the number of the first option where the output column numbers them (`options.first_number`).
    """
    values = [(column, value_at(row, column.name)) for column in inputs]
    texts = [(column, _given(value, column)) for column, value in values]
    texts = [(column, text) for column, text in texts if text.strip()]
    if len(inputs) > 1:
        given = "\n".join(f"{_label(column, inputs)}: {text}" for column, text in texts)
    else:
        given = texts[0][1] if texts else ""
    wanted = value_at(row, output.name)
    answers = _chosen(row, values, wanted, output, first)
    if answers is None and _is_tagging(values, wanted, output):
        answers = (" ".join(as_text(tag, output) or "_" for tag in wanted),)
    if answers is None:
        answers = alternatives(wanted, output)
    return Flat(given, answers[0] if answers else as_text(wanted, output), answers if len(answers) > 1 else ())


def first_option(rows: Iterable[Mapping[str, Any]], inputs: Sequence[Column], output: Column) -> int:
    """What the output column's numbers of options count from, by sample rows: 0 or 1."""
    family = option_family([column.name for column in inputs])
    listed = next((column for column in inputs if is_options(column.name, output.name)), None)
    keys, counts = [], []
    for row in rows:
        options = value_at(row, listed.name) if listed else family
        keys.append(value_at(row, output.name))
        counts.append(len(options) if isinstance(options, list | tuple) else 0)
    return first_number(keys, counts, () if listed else family)


def has_options(inputs: Sequence[Column], output: Column) -> bool:
    """Whether the input holds the options that the output may be a key to."""
    names = [column.name for column in inputs]
    return bool(option_family(names)) or any(is_options(name, output.name) for name in names)


def _given(value: Any, column: Column) -> str:
    if is_options(column.name) and isinstance(value, list | tuple):
        return " | ".join(text for text in (as_text(item, column) for item in value) if text)
    return as_text(value, column)


def _chosen(
    row: Mapping[str, Any], values: Sequence[tuple[Column, Any]], wanted: Any, output: Column, first: int
) -> tuple[str, ...] | None:
    """The right options' texts; None where the output is no key to options, ("",) where it leads to none."""
    listed = next(((column, value) for column, value in values if is_options(column.name, output.name)), None)
    if listed and isinstance(listed[1], list | tuple):
        texts = [as_text(item, listed[0]) for item in listed[1]]
        parent = listed[0].name.rpartition(".")[0]
        labels = value_at(row, f"{parent}.label") if parent else None
        names: Sequence[str] = [str(one) for one in labels] if isinstance(labels, list | tuple) else ()
    else:
        family = option_family([column.name for column, _ in values])
        texts = [as_text(value, column) for column, value in values if column.name in family]
        names = family
    return right_options(wanted, texts, names, output.class_names, first)


def _is_tagging(values: Sequence[tuple[Column, Any]], wanted: Any, output: Column) -> bool:
    """Whether the output is a tag for each word of the input."""
    if not isinstance(wanted, list | tuple) or not wanted or any(isinstance(tag, list | tuple) for tag in wanted):
        return False
    words = (value for column, value in values if isinstance(value, list | tuple) and _TOKENS.search(column.name))
    return bool(_TAGS.search(output.name)) or any(len(value) == len(wanted) for value in words)


def _opened(name: str, kind: str, class_names: Mapping[str, Sequence[str]]) -> list[Column]:
    languages = _TRANSLATION.fullmatch(kind)
    if languages:
        return [Column(f"{name}.{language.strip()}", "string") for language in languages[1].split(",")]
    record = _RECORD.fullmatch(kind)
    if record:
        return [column for part, inner in _parts(record[1]) for column in _opened(f"{name}.{part}", inner, class_names)]
    listed = _LIST.fullmatch(kind)
    if listed and "struct<" in kind:
        return [
            Column(column.name, f"list<{column.type}>", column.class_names)
            for column in _opened(name, listed[1], class_names)
        ]
    return [Column(name, kind, tuple(str(label) for label in class_names.get(name, ())))]


def _parts(inside: str) -> list[tuple[str, str]]:
    """[("text", "string"), ...] of "text: string, answer_start: int32", whatever is nested in it."""
    parts, depth, begin = [], 0, 0
    for position, character in enumerate(f"{inside},"):
        depth += (character == "<") - (character == ">")
        if character == "," and depth == 0:
            name, _, kind = inside[begin:position].partition(":")
            if name.strip():
                parts.append((name.strip(), kind.strip()))
            begin = position + 1
    return parts


def _part(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        return value[name] if name in value else _translated(value, name)
    if isinstance(value, list | tuple):
        return [_part(item, name) for item in value]
    return None


def _translated(value: Mapping[str, Any], language: str) -> Any:
    """What a record of {language: [...], translation: [...]} has in one language; None where it is no such record."""
    languages, texts = value.get("language"), value.get("translation")
    if not isinstance(languages, list | tuple) or not isinstance(texts, list | tuple):
        return None
    return next((text for one, text in zip(languages, texts, strict=False) if one == language), None)


def _separator(column: Column, value: Sequence[Any], texts: Sequence[str]) -> str:
    """Between a list's items: a space between words and sentences, a new line between turns, else a comma."""
    if _TOKENS.search(column.name) or _TAGS.search(column.name):
        return " "
    if _TURNS.search(column.name):
        return "\n"
    if any(isinstance(item, list | tuple) for item in value):
        return "; "
    ended = sum(text.endswith(_SENTENCE_END) for text in texts)
    return " " if len(texts) > 1 and 2 * ended >= len(texts) else ", "


def _label(column: Column, among: Sequence[Column]) -> str:
    short = column.name.rpartition(".")[2]
    alone = sum(other.name.rpartition(".")[2] == short for other in among) == 1
    return short if alone else column.name


def _clean(text: str) -> str:
    """No NUL, no half surrogate pairs, no white space around."""
    return text.replace("\0", "").encode("utf-8", "replace").decode().strip()
