"""Mention replacement: what outputs copy from inputs becomes random, so that copying is learned and not the words.

    mentions_of(student, tokens, asked) ── Mentions     which tokens are copied, and what may stand for each
    mentions.at(step, tokens, seed) ── Replaced         the rows as that step reads them: a share with other words
    mentions.note                                       what a person should know

A decoder that has never read an input before learns to write the names, rooms and products that training has, and no
others. Where a row says "jkl" for "lamp" in what is read and in what is to be written, only looking helps. After the
mention replacement of Dai and Adel (2020), with tokens of the whole vocabulary in place of other mentions: what is
wanted are the words that training does not have. Each step draws anew, by seed, step and row alone, so a stopped
training goes on bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from services.trainer.calls import HyperParameters
from services.trainer.pretrained import Student
from services.trainer.tokens import Numbers, Tokens

# Of the readings of a row, where its decoder is new. A model that was trained to write from what it reads copies well.
SHARE_WHERE_NEW = 0.5
# A token is copied where so many of the rows that write it read it too; one in more of the inputs than this belongs to
# the instruction, or is a word like "the".
LEAST_COPIED, MOST_READ = 0.9, 0.2
# Rows that are looked at for it, at even distances.
_ROWS = 10_000
# Before a word's first piece (SentencePiece, byte-level BPE), or before its later ones (WordPiece).
_MARKS = ("##", "▁", "Ġ")

Kind = tuple[str, int, bool]


@dataclass(frozen=True)
class Replaced:
    """Rows as one step reads them: `tokens`, of a share of which the copied words are others."""

    tokens: Tokens
    mentions: Mentions
    step: int
    seed: int

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return self.tokens.lengths

    def __getitem__(self, row: int) -> tuple[Numbers, Numbers]:
        draw = np.random.default_rng([self.seed % (1 << 63), self.step, row])
        return self.mentions.replaced(*self.tokens[row], draw)


@dataclass(frozen=True)
class Mentions:
    """The tokens that outputs copy from inputs. `share` of the rows get others, 0 to 1; none where nothing is copied.

    `pools` has the tokens that may stand for one another; `pool_of`, [vocabulary], the number of a copied token's pool,
    -1 for a token that stays.
    """

    share: float = 0.0
    pool_of: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    pools: tuple[npt.NDArray[np.int64], ...] = ()
    note: str = ""

    def at(self, step: int, tokens: Tokens, seed: int) -> Tokens | Replaced:
        """The rows as this step reads them."""
        return Replaced(tokens, self, step, seed) if self.share else tokens

    def replaced(self, read: Numbers, written: Numbers, draw: np.random.Generator) -> tuple[Numbers, Numbers]:
        """The row, with a chance of `share` with another token for each that is copied and is read here, the same
        wherever it stands. What this row writes and does not read stays."""
        if draw.random() >= self.share:
            return read, written
        row = np.concatenate((read, written))
        distinct, places = np.unique(row, return_inverse=True)
        for place in np.flatnonzero((self.pool_of[distinct] >= 0) & np.isin(distinct, read)):
            distinct[place] = draw.choice(self.pools[self.pool_of[distinct[place]]])
        row = distinct[places]
        return row[: len(read)], row[len(read) :]


def mentions_of(student: Student, tokens: Tokens, asked: HyperParameters) -> Mentions:
    """What is to be replaced in these rows: nothing where the student picks labels, or its decoder is not new."""
    default = SHARE_WHERE_NEW if student.new_decoder else 0.0
    share = default if asked.replaced_share is None else asked.replaced_share
    if not share or student.labels or not len(tokens):
        return Mentions()
    kinds = _kinds(student)
    looked_at = np.unique(np.linspace(0, len(tokens) - 1, min(len(tokens), _ROWS)).astype(int))
    copied = _copied(tokens, looked_at, len(kinds)) & np.array([kind is not None for kind in kinds])
    rows = sum(bool(copied[tokens[row][1]].any()) for row in looked_at)
    if not rows:
        return Mentions()
    found = sorted({kind for token, kind in enumerate(kinds) if kind and copied[token]})
    pools = tuple(np.array([token for token, kind in enumerate(kinds) if kind == wanted]) for wanted in found)
    number = {kind: place for place, kind in enumerate(found)}
    pool_of = np.array([number[kind] if kind and copied[token] else -1 for token, kind in enumerate(kinds)])
    note = (
        f"{100 * rows / len(looked_at):.0f} % of the training rows write words that they read: {100 * share:.0f} % of "
        "the time those were others, drawn at random, so that the model learns to copy words that it has not seen."
    )
    return Mentions(share, pool_of, pools, note)


def _copied(tokens: Tokens, rows: npt.NDArray[np.int64], vocabulary: int) -> npt.NDArray[np.bool_]:
    """Of each token, whether the outputs that have it have it from their inputs."""
    reads, writes, both = (np.zeros(vocabulary, np.int64) for _ in range(3))
    for row in rows:
        read, written = (np.unique(part) for part in tokens[row])
        reads[read] += 1
        writes[written] += 1
        both[np.intersect1d(read, written, assume_unique=True)] += 1
    return (both > 0) & (both >= LEAST_COPIED * writes) & (reads <= MOST_READ * len(rows))


def _kinds(student: Student) -> list[Kind | None]:
    """The kind of each token that the model has an embedding for, by its number; a tokenizer may have any others."""
    embedded, special = len(student.model.get_input_embeddings().weight), {*student.tokenizer.all_special_ids}
    kinds: list[Kind | None] = [None] * embedded
    for token, number in student.tokenizer.get_vocab().items():
        if number < embedded and number not in special:
            kinds[number] = _kind(token)
    return kinds


def _kind(token: str) -> Kind | None:
    """What may stand for it: as many digits, or another word or piece of one at the same place. None: nothing."""
    mark = next((mark for mark in _MARKS if token.startswith(mark)), "")
    bare = token.removeprefix(mark)
    if bare.isdigit():
        return mark, len(bare), bare.isascii()
    if bare.isalnum() and (len(bare) > 1 or not bare.isascii()):
        return mark, 0, bare.isascii()
    return None
