"""Duplicates: the same text again, and nearly the same.

    same_text(text)      equal for two writings of one text
    NearDuplicates       a growing set of texts, in groups of near duplicates
    are_near(a, b)       whether two texts are near duplicates
    tokens(text)         what of a text counts for it

Two texts are near duplicates when they hold the same numbers in the same order and nine tenths of their pairs of
adjacent words in common (Jaccard over sets). Letter case and sentence punctuation count for nothing. Numbers must agree
since in dates, amounts and measures another number is another example; and a short text differs from another by any
word at all, since there one word turns the meaning round.

Nearness is a relation between two texts and nothing else: candidates share a band of MinHash values (Broder, 1997;
Indyk and Motwani, 1998) whose permutations are fixed, and each is then compared in full. It is not transitive, so a
group is a connected component. The groups, and how many there are, therefore depend on which texts were added and never
on their order: a result counted in groups is the same however the texts arrived.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from rensa import RMinHash, RMinHashLSH

THRESHOLD = 0.9

# 16 bands of 8: of pairs that overlap by 0.9, one in 8,000 is missed; by 0.5, one in 16 is compared.
_BANDS, _BAND_ROWS = 16, 8
_PERMUTATIONS = _BANDS * _BAND_ROWS

# Punctuation that changes no example: stops, commas, quotes. The rest ("?", "-", "+", "#", "(") may.
_SENTENCE_PUNCTUATION = frozenset(".,;:!…'\"`´‘’‚“”„«»‹›。、，．！；：「」『』")
_TOKEN = re.compile(r"[^\W\d_]+|\d+|[^\s]")


def same_text(text: str) -> str:
    """The text in Unicode's composed form (NFC) with single spaces: equal for two writings of one text."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class NearDuplicates:
    """Texts, each in one group; two near duplicates are in the same. `groups` is how many there are."""

    def __init__(self) -> None:
        self.groups = 0
        # Its own threshold plays no part: what shares a band is compared in full.
        self._index = RMinHashLSH(threshold=0.0, num_perm=_PERMUTATIONS, num_bands=_BANDS)
        self._texts: list[str] = []
        self._parent: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def __contains__(self, text: str) -> bool:
        """True where `text` or a near duplicate of it was added."""
        if text in self._parent:
            return True
        pairs, minhash = _signature(text)
        return any(_overlap(pairs, _pairs(other)) >= THRESHOLD for other in self._sharing(minhash))

    def add(self, text: str) -> bool:
        """Adds a text and joins the groups that it is near to; True where there is now a group more."""
        if text in self._parent:
            return False
        before = self.groups
        pairs, minhash = _signature(text)
        self._parent[text] = text
        self.groups += 1
        for other in self._sharing(minhash):
            # A group that is already joined needs no further comparison: this keeps large groups cheap.
            if self._root(other) != self._root(text) and _overlap(pairs, _pairs(other)) >= THRESHOLD:
                self._parent[self._root(other)] = self._root(text)
                self.groups -= 1
        self._index.insert(len(self._texts), minhash)
        self._texts.append(text)
        return self.groups > before

    def members(self) -> list[list[str]]:
        """The groups, each sorted, in the order of their first texts."""
        found: dict[str, list[str]] = {}
        for text in sorted(self._parent):
            found.setdefault(self._root(text), []).append(text)
        return list(found.values())

    def _sharing(self, minhash: RMinHash) -> list[str]:
        """The texts that share a band."""
        return [self._texts[number] for number in self._index.query(minhash)]

    def _root(self, text: str) -> str:
        while (parent := self._parent[text]) != text:
            self._parent[text] = self._parent[parent]
            text = parent
        return text


def are_near(a: str, b: str) -> bool:
    """Whether two texts are near duplicates, compared in full."""
    return _overlap(_pairs(a), _pairs(b)) >= THRESHOLD


def tokens(text: str) -> list[str]:
    """The words, numbers and signs of a text that count; none where there is but sentence punctuation."""
    found: list[str] = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return [token for token in found if token not in _SENTENCE_PUNCTUATION]


@lru_cache(maxsize=256)
def _pairs(text: str) -> frozenset[str]:
    """The pairs of adjacent words, both ends included, each marked with all numbers of the text."""
    found = tokens(text)
    if not found:
        return frozenset([text])
    # With the numbers in every pair, texts of other numbers have nothing in common and are not even compared.
    numbers = " ".join(token for token in found if token.isdigit())
    return frozenset(f"{numbers}\n{a} {b}" for a, b in zip(["", *found], [*found, ""], strict=True))


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


@lru_cache(maxsize=256)
def _signature(text: str) -> tuple[frozenset[str], RMinHash]:
    """The pairs of a text and their MinHash; kept for a moment, since one text is looked up in several sets."""
    pairs = _pairs(text)
    minhash = RMinHash(num_perm=_PERMUTATIONS, seed=1)
    minhash.update(list(pairs))
    return pairs, minhash
