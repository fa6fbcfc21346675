"""What tests ask of other processes, and of conditions that come true in a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path


async def until(true: Callable[[], object], within_s: float = 3.0) -> None:
    """Returns when `true()` is; fails when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"it did not come true within {within_s} s"
        await asyncio.sleep(0.01)


async def pid_in(folder: Path, name: str = "pid", within_s: float = 20.0) -> int:
    """The process id that another process writes to a file."""
    file = folder / name
    await until(lambda: file.exists() and file.read_text(), within_s)
    return int(file.read_text())


def is_alive(pid: int) -> bool:
    """Whether it runs: one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_dead(pid: int, within_s: float) -> None:
    """Returns when the process has ended; fails when it has not in time."""
    await until(lambda: not is_alive(pid), within_s)
