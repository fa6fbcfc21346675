"""What a prompt's own words say of its input and output.

    asked            the words for what is wanted and for what is given
    concepts         words as concepts: "summarise", "tldr" and "highlights" are one
    name_words       the words of a column's name
    language_code    the ISO 639-1 code of a language's name

"Generate a question from a context and an answer" wants a question and gives a context and an answer. It reads English
sentences by a verb and the prepositions after it; where it finds nothing it says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from services.dataset_retriever.vocabulary import (
    ASKS,
    GIVEN,
    GROUPS,
    LANGUAGES,
    LONG_CODES,
    MAKES,
    NOTHING,
    TURNS,
    WANTED,
)  # fmt: skip
from services.kit.values import PromptSpec

_SENTENCES, _CHARACTERS = 4, 1_500
_WORD = re.compile(r"[A-Za-z]+|#|\d+")
_NAME_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_a-zA-Z]+")
_CONCEPT = {word: group for group, words in GROUPS.items() for word in words}
_CODES = frozenset(LANGUAGES.values())


@dataclass(frozen=True)
class Asked:
    """Concepts of what is wanted, of what is given, and of what of that is turned into something else ("explain code");
    the languages to write and to read, "" where none is told."""

    wanted: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()
    turned: frozenset[str] = frozenset()
    to_language: str = ""
    from_language: str = ""


def asked(spec: PromptSpec) -> Asked:
    """What the instruction says; nothing where it is no English sentence with a verb that is known."""
    wanted: set[str] = set()
    given: set[str] = set()
    turned: set[str] = set()
    text = re.sub(r"parts?[ -]of[ -]speech", "pos", spec.instruction[:_CHARACTERS], flags=re.IGNORECASE)
    text = re.sub(r"natural language", "nl", text, flags=re.IGNORECASE)
    for sentence in [part for part in re.split(r"[.!?\n]+", text) if part.strip()][:_SENTENCES]:
        _read(_WORD.findall(sentence.lower()), wanted, given, turned)
    codes = [(LANGUAGES[word], place) for place, word in enumerate(_words(text)) if word in LANGUAGES]
    to_language, from_language = _direction(_words(text), codes)
    return Asked(concepts(wanted), concepts(given - wanted), concepts(turned - wanted), to_language, from_language)


def concepts(words: Iterable[str]) -> frozenset[str]:
    """The words as concepts; a word that belongs to none is its own, in the singular."""
    return frozenset(_CONCEPT.get(word) or _CONCEPT.get(_singular(word)) or _singular(word) for word in words)


def name_words(name: str) -> tuple[str, ...]:
    """The words of a name, in lower case: "answerKey" is answer, key; "sentence1" is sentence, 1."""
    return tuple(word.lower() for word in _NAME_WORD.findall(name))


def language_code(word: str) -> str:
    """The ISO 639-1 code that a word names or is: "German", "de" and "deu" are de; "" for another word."""
    word = word.lower()
    return word if word in _CODES else LONG_CODES.get(word) or LANGUAGES.get(word, "")


def _read(words: list[str], wanted: set[str], given: set[str], turned: set[str]) -> None:
    """Sorts a sentence's words, from its first known verb on."""
    place = next((i for i, word in enumerate(words) if word in MAKES or word in TURNS), None)
    if place is None:
        return
    verb = words[place]
    turning = verb in TURNS
    if turning and TURNS[verb]:
        wanted.add(TURNS[verb])
    given.update(word for word in words[:place] if word not in NOTHING)
    bag = given if turning else wanted
    place += words[place + 1 : place + 2] != [] and not turning and words[place + 1] in ASKS
    for word in words[place + 1 :]:
        if turning and word in WANTED:
            bag = wanted
        elif word in GIVEN:
            bag = given
        elif word in MAKES and bag is given:
            bag = wanted
        elif word not in NOTHING and len(word) > 1:
            bag.add(word)
            if turning and bag is given:
                turned.add(word)


def _direction(words: list[str], codes: list[tuple[str, int]]) -> tuple[str, str]:
    """The languages to write and to read, by the word before each: "to French", "from German"."""
    to_language = from_language = ""
    for code, place in codes:
        before, after = set(words[max(0, place - 2) : place]), words[place + 1 : place + 2]
        if before & {"to", "into", "in"} or after in (["translation"], ["version"]):
            to_language = to_language or code
        elif not from_language:
            from_language = code
    return to_language, from_language if from_language != to_language else ""


def _words(text: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[^\W\d_]+", text)]


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
