"""The person's terminal: what p2m says goes there, everything else to <home>/p2m.log.

    quiet(log, level)     inside, libraries, gRPC and children write to the log; only the Terminal reaches the person
    Terminal              `out` for results, `err` for progress and errors
    status_of(error)      the exit status that an error means

Exit statuses: DONE, FAILED, USAGE, STOPPED, UNREACHABLE.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from services.kit import errors

DONE, FAILED, USAGE, STOPPED, UNREACHABLE = 0, 1, 2, 3, 4

_STATUSES: tuple[tuple[tuple[type[errors.P2MError], ...], int], ...] = (
    ((errors.InvalidArgument, errors.NotFound, errors.AlreadyExists, errors.Unauthenticated), USAGE),
    ((errors.Cancelled,), STOPPED),
    ((errors.Unavailable, errors.DeadlineExceeded), UNREACHABLE),
)
# Past this the log is begun anew; the one before is kept beside it.
_LOG_BYTES = 20_000_000


@dataclass(frozen=True)
class Terminal:
    """The real standard output and standard error."""

    out: TextIO
    err: TextIO
    log: Path

    @property
    def interactive(self) -> bool:
        """Whether somebody is there to answer a question."""
        return sys.stdin is not None and sys.stdin.isatty() and self.err.isatty()

    def say(self, text: str = "") -> None:
        """A line for a person."""
        print(text, file=self.err, flush=True)

    async def read_line(self, question: str) -> str:
        """What the person types after `question`. It can be cancelled, which a read in a thread cannot."""
        print(question, end="", file=self.err, flush=True)
        loop = asyncio.get_running_loop()
        line: asyncio.Future[str] = loop.create_future()

        def arrived() -> None:
            if not line.done():
                line.set_result(sys.stdin.readline())

        loop.add_reader(sys.stdin, arrived)
        try:
            return await line
        finally:
            loop.remove_reader(sys.stdin)


@contextlib.contextmanager
def quiet(log: Path, level: str) -> Iterator[Terminal]:
    """Sends file descriptors 1 and 2 to `log` for as long as it lasts, so that no library and no child can write
    between the lines of the display; yields the terminal. Raises P2MError when the log cannot be written."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise errors.from_os_error(error, f"Writing the log {log} (P2M_HOME names its folder)") from error
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    os.close(sink)
    streams = [_stream(descriptor) for descriptor in kept]
    _log_to_standard_error(level)
    try:
        yield Terminal(streams[0], streams[1], log)
    finally:
        for stream, descriptor, number in zip(streams, kept, (1, 2), strict=True):
            with contextlib.suppress(OSError):  # a reader that has gone (`| head`) is no error of ours
                stream.close()
            (sys.stdout, sys.stderr)[number - 1].flush()
            os.dup2(descriptor, number)
            os.close(descriptor)


def status_of(error: errors.P2MError) -> int:
    """The exit status that an error means."""
    return next((status for classes, status in _STATUSES if isinstance(error, classes)), FAILED)


def _stream(descriptor: int) -> TextIO:
    return os.fdopen(os.dup(descriptor), "w", encoding=sys.stdout.encoding or "utf-8", errors="replace")


def _log_to_standard_error(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for chatty in ("httpx", "httpcore", "openai", "datasets", "asyncio", "gradio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
