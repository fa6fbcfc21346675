"""How many jobs a replica does at once. One more is refused at once, so that the caller tries a sibling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.kit.errors import NoFreeSlot


class Slots:
    """`number` slots; `take` holds one for the length of a `with` block or raises NoFreeSlot."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        if self.taken >= self.number:
            raise NoFreeSlot(f"All {self.number} slots of this replica are taken; try another replica or wait.")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
