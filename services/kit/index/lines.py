"""Strings on disk, one a line as JSON, none of them in memory.

    Lines     a line by its number
    Names     and a number by the string: a sorted array of 64-bit hashes, searched by halving

A dict of two million strings takes seconds to read and half a gigabyte; these are mapped.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.kit.index.scores import Numbers


def mapped(path: Path) -> npt.NDArray[Any]:
    """An .npy file, mapped. A plain array: numpy's own memmap makes every slice slow."""
    found: npt.NDArray[Any] = np.load(path, mmap_mode="r").view(np.ndarray)
    return found


class Lines(Sequence[Any]):
    """JSON values by their numbers."""

    def __init__(self, folder: Path, name: str) -> None:
        self._offsets = mapped(folder / f"{name}.offsets.npy")
        path = folder / f"{name}.jsonl"
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        start, end = self._offsets[number : number + 2].tolist()
        return json.loads(self._bytes[start:end])


class Names(Lines):
    """Strings by their numbers, and numbers by the strings; of equal strings any one."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, name)
        self._hashes = mapped(folder / f"{name}.hashes.npy")
        self._order = mapped(folder / f"{name}.order.npy")

    def numbers(self, strings: Sequence[str]) -> Numbers:
        """The number of each string; -1 where it is not among them."""
        wanted = np.fromiter(map(_hash, strings), np.uint64, len(strings))
        places = np.searchsorted(self._hashes, wanted)
        return np.fromiter(map(self._number, strings, wanted, places.tolist()), np.int64, len(strings))

    def _number(self, string: str, wanted: np.uint64, place: int) -> int:
        while place < len(self._hashes) and self._hashes[place] == wanted:
            number = int(self._order[place])
            if self[number] == string:
                return number
            place += 1
        return -1


def write_lines(folder: Path, name: str, values: Iterable[Any]) -> None:
    """Writes what `Lines` reads."""
    offsets = array("q", [0])
    with (folder / f"{name}.jsonl").open("wb") as file:
        for value in values:
            offsets.append(offsets[-1] + file.write(json.dumps(value, ensure_ascii=False).encode() + b"\n"))
    np.save(folder / f"{name}.offsets.npy", np.frombuffer(offsets, np.int64))


def write_names(folder: Path, name: str, strings: Iterable[str]) -> str | None:
    """Writes what `Names` reads; returns a string that is there twice, if there is one."""
    hashes = array("Q")

    def hashed() -> Iterator[str]:
        for string in strings:
            hashes.append(_hash(string))
            yield string

    write_lines(folder, name, hashed())
    unsorted = np.frombuffer(hashes, np.uint64)
    order = np.argsort(unsorted, kind="stable").astype(np.int32)
    np.save(folder / f"{name}.hashes.npy", unsorted[order])
    np.save(folder / f"{name}.order.npy", order)
    same = np.flatnonzero(np.diff(unsorted[order]) == 0)
    lines = Lines(folder, name)
    twice = (lines[int(order[place])] for place in same if lines[int(order[place])] == lines[int(order[place + 1])])
    return next(twice, None)


def _hash(string: str) -> int:
    digest = hashlib.blake2b(string.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
