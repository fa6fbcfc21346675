"""Questions with options: which columns hold the options, and which option a key means.

    is_options       whether a column lists the options of a question
    option_family    columns that hold one option each: sol1, sol2; answerA to answerC
    right_options    what "B", 1, "choice2" or [0, 1, 0] means
    first_number     whether a column of numbers counts the options from 0 or from 1

The rule: where the input holds the options and the output is a key to them (a letter, a number, the option's own label,
the name of its column, or a list that marks the right ones), the output is the right option's text. A key that leads to
no option (an unlabelled row) has no text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

_LISTS = re.compile(r"(^|[._])(choices?|options?|endings?|alternatives|candidates)(\.(text|choices))?$", re.IGNORECASE)
_ANSWERS = re.compile(r"(^|[._])answers?$", re.IGNORECASE)
# An output of such a name points at one of the answers.
_POINTER = re.compile(
    r"^correct$|(correct|right|gold).*(id|idx|index|key|label|number|ending|option|choice)$"
    r"|answer_?(id|idx|index|key)$",
    re.IGNORECASE,
)
_ONE = re.compile(
    r"(sol|solution|opt?|option|choice|ending|answer|ans|candidate|alternative|\w*quiz)[ _-]?(\d{1,2}|[a-h])",
    re.IGNORECASE,
)
_LETTER = re.compile(r"\(?([A-Ha-h])[).:]?")
_NUMBER = re.compile(r"-?\d{1,3}(\.0+)?")


def is_options(column: str, output: str = "") -> bool:
    """Whether a list in this column is the options of a question; `answers` only where the output points at one."""
    return bool(_LISTS.search(column) or (_ANSWERS.search(column) and _POINTER.search(output)))


def is_pointer(column: str) -> bool:
    """Whether a column of this name points at an option, though its name looks like an id's."""
    return bool(_POINTER.search(column))


def option_family(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of one option each: two or more of one stem, suffixes from A, 0 or 1 on; () if there are none."""
    families: dict[str, dict[str, str]] = {}
    for column in columns:
        if one := _ONE.fullmatch(column.rpartition(".")[2]):
            families.setdefault(one[1].lower(), {})[one[2].lower()] = column
    for family in families.values():
        suffixes = sorted(family, key=lambda suffix: (len(suffix), suffix))
        if len(suffixes) > 1 and suffixes[0] in ("a", "0", "1"):
            return tuple(family[suffix] for suffix in suffixes)
    return ()


def right_options(
    key: Any, options: Sequence[str], names: Sequence[str], class_names: Sequence[str], first: int
) -> tuple[str, ...] | None:
    """The texts of the options that `key` means; None where it is no key, ("",) where it leads to no option.

    names          the options' own labels, or the names of their columns; () where there are none
    class_names    those of the key's column, in the order of the options
    """
    if len(options) < 2:
        return None
    if isinstance(key, list | tuple):
        marks = [_marked(mark) for mark in key]
        if len(marks) != len(options) or None in marks:
            return None
        return tuple(option for option, mark in zip(options, marks, strict=True) if mark) or ("",)
    text = str(key).strip()
    if key is None or isinstance(key, bool) or (not class_names and _same(text) in map(_same, options)):
        return None
    place = _place(key, text, len(options), names, class_names, first)
    if place is None:
        return None
    return (options[place] if 0 <= place < len(options) else "",)


def first_number(keys: Iterable[Any], options: Sequence[int], names: Sequence[str] = ()) -> int:
    """What the first option's number is, by keys of sample rows and how many options each row has: 0 or 1.

    Where no key tells: what the names of the options' columns begin with, else 0.
    """
    for key, count in zip(keys, options, strict=True):
        text = str(key).strip()
        if not _NUMBER.fullmatch(text):
            continue
        number = int(float(text))
        if number in (0, count):
            return int(number == count)
    return int(bool(names) and names[0].endswith("1"))


def _place(key: Any, text: str, count: int, names: Sequence[str], class_names: Sequence[str], first: int) -> int | None:
    """Which option, from 0; out of range where there is none such; None where it is no key."""
    if len(class_names) >= count and isinstance(key, int):
        return key
    labels = [_same(name.rpartition(".")[2]) for name in names]
    if _same(text) in labels:
        return labels.index(_same(text))
    if _NUMBER.fullmatch(text):
        return int(float(text)) - first
    letter = _LETTER.fullmatch(text)
    return ord(letter[1].lower()) - ord("a") if letter else None


def _marked(mark: Any) -> bool | None:
    return bool(mark) if isinstance(mark, bool | int | float) and mark in (0, 1) else None


def _same(text: str) -> str:
    return " ".join(text.split()).casefold()
