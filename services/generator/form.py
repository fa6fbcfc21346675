"""The form of texts that are made of named parts, such as "Question: ... Context: ...".

A name is a word right before a colon. Texts have a form where all of them, two or more, have two or more names in
common: then these are parts of the task, and what lacks one of them lacks what it is about.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_NAME = re.compile(r"(?<![^\W\d_])([^\W\d_]++)\s?[:：]")
# What tells a name for sure: an address has no space after its colon. The full-width one never has.
_CLEAR_NAME = re.compile(r"(?<![^\W\d_])([^\W\d_]++)\s?(?:：|:(?=\s|$))")
_LEAST = 2


def parts(texts: Sequence[str]) -> tuple[str, ...]:
    """The names of the parts that all texts have, as the first one writes them and in its order; () without a form."""
    if len(texts) < _LEAST:
        return ()
    common = frozenset.intersection(*(frozenset(map(_plain, _CLEAR_NAME.findall(text))) for text in texts))
    found = {_plain(name): name for name in reversed(_CLEAR_NAME.findall(texts[0])) if _plain(name) in common}
    return tuple(reversed(found.values())) if len(found) >= _LEAST else ()


def has(text: str, wanted: Sequence[str]) -> bool:
    """Whether the text has all these parts, in whatever order and case."""
    return not wanted or {*map(_plain, _NAME.findall(text))}.issuperset(map(_plain, wanted))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()
