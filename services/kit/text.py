"""Text: one normaliser, one word splitter, one language detector, one form of the model's input, one limit on prompts.

normalise        what counts as the same answer
words            tokens for BM25 and for near duplicates
detect_language  ISO 639-1
model_input      instruction and input as the student reads them
check_prompt     refuses what is no prompt
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from services.kit.errors import InvalidArgument
from services.kit.values import PromptSpec

if TYPE_CHECKING:
    from lingua import LanguageDetector

MAX_PROMPT_CHARACTERS = 200_000

# Fewer ASCII letters than this say nothing about a language, fewer words little.
_ENOUGH_LETTERS = 10
_ENOUGH_WORDS = 5
_DETECTION_CHARACTERS = 2_000

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# Scripts that are written without spaces between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")


def normalise(text: str) -> str:
    """What equal answers share: lower case, no punctuation, no English articles, single spaces.

    The order of the steps is that of SQuAD's evaluation script (Rajpurkar et al., 2016). Beyond it, all of Unicode's
    punctuation goes, not ASCII's alone, and compatible characters become one (NFKC). A text that is nothing but
    punctuation or articles stays as it is, in lower case, so that "+" and "-" remain different answers and "A" is one.
    """
    lowered = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    if lowered.isascii():  # the same, and several times as fast
        bare = lowered.translate(_NO_PUNCTUATION)
    else:
        bare = "".join(character for character in lowered if not _is_punctuation(character))
    return " ".join(_ARTICLES.sub(" ", bare).split()) or lowered


def words(text: str) -> list[str]:
    """The words of a text, in lower case and in order, without punctuation.

    A run of a script that has no spaces between words becomes its overlapping pairs of characters, which is what
    search engines index such scripts by.
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    if lowered.isascii():  # the same, and several times as fast
        return _ASCII_WORD.findall(lowered)
    found: list[str] = []
    for run in _WORD.findall(lowered):
        if len(run) > 2 and _IS_UNSPACED.match(run):
            found.extend(run[i : i + 2] for i in range(len(run) - 1))
        else:
            found.append(run)
    return found


def detect_language(text: str) -> str:
    """The ISO 639-1 code of the language that most of the text is in; "en" where it has too few letters to tell."""
    head = text[:_DETECTION_CHARACTERS]
    if head.isascii() and sum(character.isalpha() for character in head) < _ENOUGH_LETTERS:
        return "en"
    confidence = {
        found.language.iso_code_639_1.name.lower(): found.value
        for found in _detector().compute_language_confidence_values(head)
    }
    best = max(confidence, key=lambda code: confidence[code])
    # A short English sentence full of terms looks like anything; what is clearly another language is so by far.
    enough = 0.9 if head.isascii() and len(head.split()) < _ENOUGH_WORDS else 0.5
    return best if confidence[best] >= enough and confidence["en"] < confidence[best] / 50 else "en"


def model_input(spec: PromptSpec, input: str) -> str:
    """What the student reads: the person's own instruction, then the input."""
    return f"{spec.own_instruction}\n{input}" if spec.own_instruction else input


def check_prompt(prompt: str) -> None:
    """Returns where `prompt` is one; InvalidArgument where it is empty, too long, or holds a NUL."""
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidArgument(
            "PROMPT_TOO_LONG",
            f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are taken. "
            "Keep the instruction and a few demonstrations; many examples belong in a dataset.",
            field="prompt",
        )
    position = prompt.find("\0")
    if position >= 0:
        raise InvalidArgument(
            "PROMPT_NUL",
            f"The prompt holds a NUL at character {position:,}: wanted text. Is the file binary, or UTF-16?",
            field="prompt",
        )
    if not prompt.strip():
        raise InvalidArgument(
            "EMPTY_PROMPT",
            "The prompt is empty: wanted at least one sentence that says what the model is to do.",
            field="prompt",
        )


def _is_punctuation(character: str) -> bool:
    # SQuAD's script strips ASCII's symbols too ("$", "+"); other symbols, such as "€", carry meaning and stay.
    return unicodedata.category(character)[0] == "P" or character in "$+<=>^`|~"


@lru_cache(maxsize=1)
def _detector() -> LanguageDetector:
    # Only the parser tells the language of so little text, and only its image holds these models. Trigrams (70 MB) do
    # for a sentence; all n-grams together take 930 MB and 6 s.
    from lingua import LanguageDetectorBuilder

    return LanguageDetectorBuilder.from_all_spoken_languages().with_low_accuracy_mode().build()
