"""Whether an example can be one at all, before it is compared with others.

Validity.fault      "" or the reason: "invalid", "too_long", "truncated"
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.kit.values import Demonstration

# An input or output longer than the longest demonstration's by this much is a story that got out of hand.
_TIMES_LONGER = 10
_CHARACTERS_LONGER = 1_000
_MOST_CHARACTERS = 20_000

_ELLIPSES = ("...", "…", "[cut]", "[truncated]")
# What a small LLM writes that copies the form and not the task.
_PLACEHOLDER = re.compile(
    r"[<\[{(]*\s*(?:the |an? |new |your |my |example |sample |this is )*"
    r"(?:input|output|text|string|example|placeholder)(?: (?:text|string|here|example))?\s*\d*\s*[>\]})]*\.*|[.…_\s-]+",
    re.IGNORECASE,
)


class Validity:
    """What the demonstrations show of how inputs and outputs look."""

    def __init__(self, demonstrations: Sequence[Demonstration]) -> None:
        self._shown = {text.strip() for one in demonstrations for text in (one.input, one.output)}
        self._most_input = _most([one.input for one in demonstrations])
        self._most_output = _most([one.output for one in demonstrations])
        self._ends_in_ellipsis = any(text.endswith(_ELLIPSES) for text in self._shown)

    def fault(self, example: object) -> str:
        """Why the example cannot be used; "" where it can."""
        if not isinstance(example, dict):
            return "invalid"
        texts = [example.get("input"), example.get("output")]
        for text in texts:
            if not isinstance(text, str) or not text.strip() or not _is_encodable(text):
                return "invalid"
        given, wanted = (text.strip() for text in texts if isinstance(text, str))
        if self._is_placeholder(given) or (self._is_placeholder(wanted) and re.search(r"\w", wanted)):
            return "invalid"
        if len(given) > self._most_input or len(wanted) > self._most_output:
            return "too_long"
        if not self._ends_in_ellipsis and (given.endswith(_ELLIPSES) or wanted.endswith(_ELLIPSES)):
            return "truncated"
        return ""

    def _is_placeholder(self, text: str) -> bool:
        return text not in self._shown and _PLACEHOLDER.fullmatch(text) is not None


def _most(texts: list[str]) -> int:
    if not texts:
        return _MOST_CHARACTERS
    return max(len(text) for text in texts) * _TIMES_LONGER + _CHARACTERS_LONGER


def _is_encodable(text: str) -> bool:
    # JSON can hold half a surrogate pair or a NUL; UTF-8 and what reads it later cannot.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
