"""Whether an example can be one at all, before it is compared with others.

Validity.judge      what can be used of it: input and output; else why not: "invalid", "too_long", "truncated",
                    "other_label", "other_language"

An output that differs from a label of the demonstrations in case or a stop alone is that label. A language is another
only where it is clear: the text is long enough, has hardly a word in common with the demonstrations, and these are all
in one language that is not the text's. py3langid tells it: in texts as long as these it errs no more than larger ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

from services.generator.variety import implied_labels
from services.kit.text import normalise, words
from services.kit.values import Demonstration

# An input or output longer than the longest demonstration's by this much is a story that got out of hand.
_TIMES_LONGER = 10
_CHARACTERS_LONGER = 1_000
_MOST_CHARACTERS = 20_000

_ELLIPSES = ("...", "…", "[cut]", "[truncated]")
# Letters without which nothing is said of a text's language, and a share of known words that speaks for it.
_ENOUGH_LETTERS, _KNOWN_WORDS = 60, 0.1
# How much likelier (a difference of log-probabilities) another language must be. Of 6,700 English texts of two tasks,
# generated and real, one is beyond 20: a Malay one.
_CLEARLY = 25.0
_READ_CHARACTERS = 2_000
# What a small LLM writes that copies the form and not the task.
_PLACEHOLDER = re.compile(
    r"[<\[{(]*\s*(?:the |an? |new |your |my |example |sample |this is )*"
    r"(?:input|output|text|string|example|placeholder)(?: (?:text|string|here|example))?\s*\d*\s*[>\]})]*\.*|[.…_\s-]+",
    re.IGNORECASE,
)


class Validity:
    """What the demonstrations, and the instruction, show of how inputs and outputs look."""

    def __init__(self, demonstrations: Sequence[Demonstration], instruction: str = "") -> None:
        self._shown = {text.strip() for one in demonstrations for text in (one.input, one.output)}
        self._most_input = _most([one.input for one in demonstrations])
        self._most_output = _most([one.output for one in demonstrations])
        self._ends_in_ellipsis = any(text.endswith(_ELLIPSES) for text in self._shown)
        self.labels = implied_labels(instruction, demonstrations)
        self._labels = {normalise(label): label for label in self.labels}
        self._instruction = f" {' '.join(words(instruction))} "
        self._input_language = _Language([one.input for one in demonstrations])
        self._output_language = _Language([one.output for one in demonstrations])

    def judge(self, example: object) -> tuple[str, str, str]:
        """(input, output, "") of an example that can be used; ("", "", why not) of another."""
        if not isinstance(example, dict):
            return "", "", "invalid"
        given, wanted = example.get("input"), example.get("output")
        if not isinstance(given, str) or not isinstance(wanted, str):
            return "", "", "invalid"
        given, wanted = given.strip(), wanted.strip()
        fault = self._fault(given, wanted)
        if fault:
            return "", "", fault
        if self._labels:
            label = self._labels.get(normalise(wanted), "")
            # What the instruction names is a label too, though no demonstration shows it.
            if not label and f" {' '.join(words(wanted))} " not in self._instruction:
                return "", "", "other_label"
            wanted = label or wanted
        if self._input_language.is_other(given) or self._output_language.is_other(wanted):
            return "", "", "other_language"
        return given, wanted, ""

    def _fault(self, given: str, wanted: str) -> str:
        if not given or not wanted or not _is_encodable(given) or not _is_encodable(wanted):
            return "invalid"
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


class _Language:
    """The language of some texts, where it is one and clear."""

    def __init__(self, texts: Sequence[str]) -> None:
        joined = " ".join(texts)
        self._script = _script(joined) if _letters(joined) >= _ENOUGH_LETTERS else ""
        self._words = frozenset(words(joined))
        self._texts = [joined, *filter(_is_long, texts)]

    def is_other(self, text: str) -> bool:
        """Whether the text is clearly in another."""
        if not self._script or not _is_long(text):
            return False
        if _script(text) != self._script:
            return True
        found = words(text)
        known = sum(word in self._words for word in found)
        if known >= _KNOWN_WORDS * len(found) or not self._language:
            return False
        return _language(text, than=self._language) != self._language

    @cached_property
    def _language(self) -> str:
        found = {_language(text) for text in self._texts}
        return found.pop() if len(found) == 1 else ""


def _language(text: str, than: str = "") -> str:
    """The likeliest language's code, where it is clearly likelier than another (than the next, without one); else
    that other, or "" ."""
    import py3langid  # half a second, which most runs never need

    scores = dict(py3langid.rank(text[:_READ_CHARACTERS]))
    best, second = sorted(scores, key=lambda code: -scores[code])[:2]
    other = than or second
    return best if scores[best] - scores[other] >= _CLEARLY else than


def _is_long(text: str) -> bool:
    return len(text) >= _ENOUGH_LETTERS and _letters(text) >= _ENOUGH_LETTERS


def _letters(text: str) -> int:
    return sum(character.isalpha() for character in text)


def _script(text: str) -> str:
    """The script of most letters, by their Unicode names; Chinese and Japanese count as one."""
    if text.isascii():
        return "LATIN"
    names = Counter(unicodedata.name(character, "?").partition(" ")[0] for character in text if character.isalpha())
    script = names.most_common(1)[0][0] if names else ""
    return "CJK" if script in ("CJK", "HIRAGANA", "KATAKANA") else script
