"""Near duplicates among a million texts: what `kit.dedup` finds one by one, found in batches.

    find(batches, rank, asked) ── Found(first, later, earlier, complete)

What a near duplicate is stays `kit.dedup`'s: texts are sets of pairs of adjacent words, marked with all numbers, and
near at a Jaccard index of 0.9. This only finds which are worth comparing; `kit.dedup.are_near` decides.

    the same set            equal sums of hashes: near without a comparison
    sets of 9 and more      Let a be the smaller of two. At an index of 0.9 they differ in at most |a| / 9 elements. So
                            when the elements are dealt out by hash to |a| / 9 + 1 parts, one part at least is the same
                            in both: a hash of each part is a signature, and near sets share one (PartEnum: Arasu, Ganti
                            and Kaushik, 2006). Nothing near is missed, as MinHash bands would.
    candidates              a parity sketch of 256 bits differs in no more bits than the sets do in elements (odd
                            sketches: Mitzenmacher, Pagh and Pham, 2014), which leaves hardly any but near ones

A set takes part in two classes of sizes at most, each of the ratio 10/9. The work grows with the texts, and with the
pairs among texts that share a part; beyond MOST_COMPARED of those each text is compared with the first of its crowd
alone, and `complete` is False.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from services.kit.dedup import tokens

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
S = TypeVar("S", bound=np.generic)

MOST_COMPARED = 150_000_000
# Of a text's earlier candidates this many are kept: all but borderline ones are near, and one near is enough.
MOST_CANDIDATES = 16
# A row's number in its batch and 48 bits of an element's hash are sorted as one number.
MOST_IN_BATCH = 1 << 16
_ALWAYS_COMPARED = 4
# Smaller sets are near only to the same set.
_SMALLEST = 9
_WORDS = 4
_MOST_KNOWN = 1_000_000


@dataclass(frozen=True)
class Found:
    """By the texts' numbers."""

    first: I64
    """[texts]: the first text, by rank, with the same set; a text without an earlier one is its own."""
    later: I64
    """[candidates]: firsts that may be near to an earlier one, by rank."""
    earlier: I64
    """[candidates]: the earlier one; several of one later text stand in the order of their ranks."""
    complete: bool
    """Whether all that share a part were compared."""


def find(batches: Iterable[Sequence[str]], rank: I64, asked: int = 0) -> Found:
    """The candidates among the texts of all batches, of at most MOST_IN_BATCH each; `rank`: [texts], the order.

    All candidates are found for the `asked` texts of the last ranks; for the others enough to find one that is near.
    """
    sketched = _sketch(batches)
    first = _firsts(sketched.fingerprint, rank)
    most = np.where(rank < len(rank) - asked, MOST_CANDIDATES, len(rank))
    later, earlier, complete = _candidates(sketched, first, rank, most)
    order = np.lexsort((rank[earlier], rank[later]))
    return Found(first, later[order], earlier[order], complete)


@dataclass(frozen=True)
class _Sketched:
    size: I64
    fingerprint: U64
    bits: U64  # [texts, _WORDS]
    parts: list[list[tuple[U64, npt.NDArray[np.int32]]]]
    """Signatures and their texts, by group of parts: the first part, the next two, the next four, ..."""


def _sketch(batches: Iterable[Sequence[str]]) -> _Sketched:
    sizes, fingerprints, bits = [], [], []
    parts: list[list[tuple[U64, npt.NDArray[np.int32]]]] = []
    hashes = _Hashes()
    start = 0
    for texts in batches:
        row, element, size = _elements(texts, hashes)
        begins = np.cumsum(size) - size
        mixed = _mix(element)
        fingerprints.append(_mix(np.add.reduceat(mixed, begins) + size.astype(np.uint64)))
        sizes.append(size)
        bits.append(_parities(element, begins))
        for signature, owner, part in _parts(row, element, mixed, size):
            group = np.frexp(part + 1)[1] - 1
            for number in range(int(group.max()) + 1):
                if number == len(parts):
                    parts.append([])
                its = group == number
                parts[number].append((signature[its], (owner[its] + start).astype(np.int32)))
        start += len(texts)
    stacked = np.concatenate(bits) if bits else np.zeros((0, _WORDS), np.uint64)
    return _Sketched(_joined(sizes, np.int64), _joined(fingerprints, np.uint64), stacked, parts)


def _elements(texts: Sequence[str], hashes: _Hashes) -> tuple[I64, U64, I64]:
    """The sets' elements, sorted by text and value: the text's number and a hash of 48 bits; and the sets' sizes."""
    words, counts, numbers = [""], [], []
    for text in texts:
        found = tokens(text)
        words += found
        words.append("")
        counts.append(len(found) + 1)
        # As in kit.dedup: a text without words is a set of itself, and the numbers are in every element.
        numbers.append("\n".join(token for token in found if token.isdigit()) if found else f"\n{text}")
    hashed = np.fromiter(map(hashes.__getitem__, words), np.uint64, len(words))
    marks = np.fromiter(map(hashes.__getitem__, numbers), np.uint64, len(numbers))
    row = np.repeat(np.arange(len(texts), dtype=np.uint64), counts)
    pair = _mix(hashed[:-1] + np.uint64(0x9E3779B97F4A7C15)) + hashed[1:]
    keyed = _mix(pair ^ np.repeat(marks, counts)) >> np.uint64(16) | row << np.uint64(48)
    keyed.sort()
    keyed = keyed[np.concatenate(([True], keyed[1:] != keyed[:-1]))]
    row_of = (keyed >> np.uint64(48)).astype(np.int64)
    return row_of, keyed & np.uint64((1 << 48) - 1), np.bincount(row_of, minlength=len(texts))


def _parities(element: U64, begins: I64) -> U64:
    """[texts, _WORDS]: each element turns one bit of 256."""
    word, bit = element >> np.uint64(6) & np.uint64(_WORDS - 1), np.uint64(1) << (element & np.uint64(63))
    zero = np.uint64(0)
    return np.stack([np.bitwise_xor.reduceat(np.where(word == w, bit, zero), begins) for w in range(_WORDS)], axis=1)


def _parts(row: I64, element: U64, mixed: U64, size: I64) -> Iterator[tuple[U64, I64, I64]]:
    """The signatures of the sets, their texts and their parts: in the sets' own classes, then in those below."""
    if not len(size) or size.max() < _SMALLEST:
        return
    lows, parts_of = _classes(int(size.max()))
    # A smaller set, of at least nine tenths, is of the same class or of the one below.
    own, below = (np.searchsorted(lows, n, "right") - 1 for n in (size, (9 * size + 9) // 10))
    for klass, takes_part in ((own, own >= 0), (below, (below >= 0) & (below != own))):
        parts = np.where(takes_part, parts_of[klass], 0)
        offset = np.cumsum(parts) - parts
        total = int(parts.sum())
        if not total:
            continue
        taken = takes_part[row]
        its = row[taken]
        slot = offset[its] + (element[taken] >> np.uint64(20)).astype(np.int64) % parts[its]
        signature = np.zeros(total, np.uint64)
        np.add.at(signature, slot, mixed[taken])
        owner = np.repeat(np.arange(len(size)), parts)
        part = np.arange(total) - offset[owner]
        yield _mix(signature + (klass[owner] << 32 | part).astype(np.uint64)), owner, part


def _classes(largest: int) -> tuple[I64, I64]:
    """The least size of each class, and into how many parts its sets are dealt out."""
    lows, parts = [], []
    low = _SMALLEST
    while low <= largest:
        high = 10 * low // 9
        lows.append(low)
        parts.append(high // 9 + 1)
        low = high + 1
    return np.array(lows, np.int64), np.array(parts, np.int64)


def _firsts(fingerprint: U64, rank: I64) -> I64:
    order = np.lexsort((rank, fingerprint))
    begins = np.flatnonzero(_differs(fingerprint[order]))
    first = np.empty(len(order), np.int64)
    first[order] = np.repeat(order[begins], np.diff(np.append(begins, len(order))))
    return first


def _candidates(sketched: _Sketched, first: I64, rank: I64, most: I64) -> tuple[I64, I64, bool]:
    found = np.zeros(0, np.uint64)
    left, complete = MOST_COMPARED, True
    # A pair that shares several parts is met again, and must not fill the list of its text before others come.
    for group, parts in enumerate(sketched.parts):
        owner = np.concatenate([its for _, its in parts])
        alone = first[owner] == owner
        owner = owner[alone].astype(np.int64)
        signature = np.concatenate([one for one, _ in parts])[alone]
        parts.clear()
        counts = np.bincount((found >> np.uint64(32)).astype(np.int64), minlength=len(rank))
        pairs, used, whole = _in_crowds(signature, owner, rank, sketched, (most - counts) << group, left)
        found = np.union1d(found, pairs) if len(pairs) else found
        left, complete = left - used, complete and whole
    return (found >> np.uint64(32)).astype(np.int64), (found & np.uint64(0xFFFFFFFF)).astype(np.int64), complete


def _in_crowds(
    signature: U64, owner: I64, rank: I64, sketched: _Sketched, free: I64, most: int
) -> tuple[U64, int, bool]:
    """Candidates among those with one signature, `later << 32 | earlier`; how many were compared; whether all were."""
    order = np.lexsort((rank[owner], signature))
    owner, begins = owner[order], np.flatnonzero(_differs(signature[order]))
    sizes = np.diff(np.append(begins, len(owner)))
    crowd = np.repeat(begins, sizes)
    at = np.flatnonzero(np.repeat(sizes, sizes) > 1)
    found: list[U64] = []
    used = step = 0
    # Each with the first of its crowd, then with the second, ...: what comes first in rank is what others repeat.
    while len(at := at[(crowd[at] + step < at) & (free[owner[at]] > 0)]):
        if used + len(at) > most and step >= _ALWAYS_COMPARED:
            return _joined(found, np.uint64), used, False
        later, earlier = owner[at], owner[crowd[at] + step]
        apart = np.bitwise_count(sketched.bits[later] ^ sketched.bits[earlier]).sum(axis=1, dtype=np.int64)
        near = apart <= np.minimum(sketched.size[later], sketched.size[earlier]) // 9
        np.subtract.at(free, later[near], 1)
        found.append(later[near].astype(np.uint64) << np.uint64(32) | earlier[near].astype(np.uint64))
        used += len(at)
        step += 1
    return _joined(found, np.uint64), used, True


def _differs(values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """[values]: whether it is another than the one before; the first is."""
    differs = np.ones(len(values), np.bool_)
    differs[1:] = values[1:] != values[:-1]
    return differs


def _joined(arrays: Sequence[npt.NDArray[S]], kind: type[S]) -> npt.NDArray[S]:
    return np.concatenate(arrays) if arrays else np.zeros(0, kind)


def _mix(value: U64) -> U64:
    """SplitMix64's finaliser (Steele, Lea and Flood, 2014)."""
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return value ^ value >> np.uint64(31)


class _Hashes(dict[str, int]):
    """64-bit hashes of words, the same in every process; forgotten when they are too many."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_KNOWN:
            self.clear()
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        value = self[word] = int.from_bytes(digest, "little")
        return value
