"""A simulated time, in place of the module `time` in a module under test."""

from __future__ import annotations


class Clock:
    """Stands still until a test moves `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now
