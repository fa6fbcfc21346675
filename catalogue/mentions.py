"""Which entries name which others: what people build on is what their texts name.

An entry is mentioned where the words of its name stand in another's text, and stand there as a name: written just as
the name is, if that has a capital or a digit; else, for names such as "squad" or "natural_questions", with a digit, a
capital inside of a word ("SQuAD"), or a capital on each of several words: "emotion" is a mention of no dataset.
Hyphens, underscores and spaces are all the same; of names that overlap the longest counts.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MOST = 8
"""Of one entry's mentions so many are kept: one that lists more says little of each."""
_LONGEST_NAME = 6
_CHARACTERS = 20_000
_FEWEST_LETTERS = 3
_TOKEN = re.compile(r"[^\W\d_]+|\d+")

Mentions = npt.NDArray[np.int32]


def mentions(names: Sequence[str], texts: Sequence[str]) -> Mentions:
    """[entries, MOST]: the numbers of the entries that each text names, in the text's order, -1 where there are no
    more. An entry's own name is left out."""
    named: dict[tuple[str, ...], list[int]] = defaultdict(list)
    spelled = [tuple(_TOKEN.findall(name)) for name in names]
    for number, tokens in enumerate(spelled):
        if 0 < len(tokens) <= _LONGEST_NAME and sum(map(len, tokens)) >= _FEWEST_LETTERS:
            named[_folded(tokens)].append(number)
    firsts = {tokens[0] for tokens in named}
    found = np.full((len(texts), MOST), -1, np.int32)
    for number, text in enumerate(texts):
        others = [other for other in _named_in(text[:_CHARACTERS], named, firsts, spelled) if other != number]
        kept = list(dict.fromkeys(others))[:MOST]
        found[number, : len(kept)] = kept
    return found


def counts(of: Mentions, entries: int) -> npt.NDArray[np.int64]:
    """How many entries mention each: [entries]."""
    return np.bincount(of[of >= 0].ravel(), minlength=entries).astype(np.int64)


def _named_in(
    text: str, named: dict[tuple[str, ...], list[int]], firsts: set[str], spelled: Sequence[tuple[str, ...]]
) -> list[int]:
    tokens = _TOKEN.findall(text)
    folded = _folded(tokens)
    found: list[int] = []
    start = 0
    while start < len(tokens):
        end = start + 1
        if folded[start] in firsts:
            for length in range(min(_LONGEST_NAME, len(tokens) - start), 0, -1):
                written = tuple(tokens[start : start + length])
                here = [
                    number
                    for number in named.get(folded[start : start + length], ())
                    if _is_name(written, spelled[number])
                ]
                if here:
                    found += here
                    end = start + length
                    break
        start = end
    return found


def _is_name(written: tuple[str, ...], name: tuple[str, ...]) -> bool:
    if written == name and any(not token.islower() for token in name):
        return True
    if any(token.isdigit() for token in written) and any(len(token) > 1 and token.isalpha() for token in written):
        return True
    if any(token[1:] != token[1:].lower() for token in written):
        return not any(token != token.lower() for token in name) or len(name) > 1
    return len(written) > 1 and all(token[0].isupper() for token in written)


def _folded(tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(token.lower() for token in tokens)
