"""Files of the hub, read where they lie: by Range, over cut connections, as far as the caps allow.

    Line                 a job's way to the hub: asks, waits as long as it is told to, notices when it is to stop
    ├── ask(call)        a call of the hub's client, tried again while patience lasts
    └── open(url, name)  a RemoteFile
    RemoteFile           seekable bytes in blocks of 1 MiB, each kept on disk as it comes

The blocks lie in <home>/downloads/blocks/<digest of address and ETag>/<number>, so a load that was killed goes on where
it was, and looking and loading fetch nothing twice. The folder is held below 4 GiB, the longest unused go first. What
blocks does so in a thread: a load that is stopped ends at once, even in the middle of a body that drips.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from services.kit.errors import P2MError, Unavailable
from services.kit.settings import Settings
from services.kit.values import Progress

T = TypeVar("T")

BLOCK_BYTES = 1 << 20
MOST_AHEAD = 8
KEPT_BYTES = 4 << 30
TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0

_POLL_S = 0.1
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_OVERLOADED = (429, 500, 502, 503, 504)


class CapReached(Exception):
    """So much was to be read and no more; `str` says of what."""


@dataclass
class Caps:
    """How much a load may read of the hub, in bytes and in seconds from now; 0: no limit."""

    max_bytes: int = 0
    max_seconds: float = 0.0
    fetched: int = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def check_bytes(self) -> None:
        """Raises CapReached; for before a fetch, since what is on its way is paid for."""
        if self.max_bytes and self.fetched >= self.max_bytes:
            raise CapReached(f"{self.max_bytes / 1e6:,.1f} MB")

    def check_seconds(self) -> None:
        """Raises CapReached."""
        if self.max_seconds and self.seconds > self.max_seconds:
            raise CapReached(f"{self.max_seconds:,.0f} seconds")


class Line:
    """A job's way to the hub. `stop` raises where the job is to end; it is called every 0.1 s. `report` tells a person
    what is waited for."""

    def __init__(
        self,
        settings: Settings,
        stop: Callable[[], None],
        caps: Caps,
        report: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        import httpx2
        from huggingface_hub.utils import get_token, set_client_factory

        self.settings = settings
        self.caps = caps
        self.token = settings.hub_token.get_secret_value() or get_token()
        self.folder = settings.home_folder / "downloads" / "blocks"
        self._stop = stop
        self._report = report
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._answered = False
        timeout = httpx2.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        hooks = {"response": [self._look_at]}
        # Its own client waits without end for a server that has fallen silent.
        set_client_factory(lambda: httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=timeout))
        threading.Thread(target=self._work, daemon=True).start()
        _prune(self.folder, KEPT_BYTES)

    def ask(self, call: Callable[[], T]) -> T:
        """What `call` returns, tried again while the hub is overloaded or away.

        Unavailable where that lasts longer than the patience (`hub_patience_s`), or is said to; what else it raises.
        """
        until = time.monotonic() + self.settings.hub_patience_s
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return self._in_thread(call)
            except Exception as error:
                wanted = self._pause(error)
                if wanted is None:
                    raise
                wait = max(wanted, pause)
                if time.monotonic() + wait > until:
                    raise self._given_up(error, wait) from error
            if wanted >= 1:
                self._report(Progress(message=f"The hub asks to wait {wanted:.0f} s"))
            self.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def open(self, url: str, name: str) -> RemoteFile:
        """The file at an address of the hub."""
        from huggingface_hub import get_hf_file_metadata

        about = self.ask(lambda: get_hf_file_metadata(url, token=self.token or False, endpoint=self.settings.hub_url))
        if about.size is None or about.etag is None:
            raise Unavailable(
                "HUB_UNREACHABLE", f"{self.settings.hub_url} does not say how large {name} is. Try again."
            )
        return RemoteFile(self, url, name, about.size, about.etag)

    def sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _POLL_S))

    def check(self) -> None:
        self._stop()
        self.caps.check_seconds()

    def _in_thread(self, call: Callable[[], T]) -> T:
        result: list[T] = []
        raised: list[BaseException] = []
        ended = threading.Event()

        def work() -> None:
            try:
                result.append(call())
            except BaseException as error:
                raised.append(error)
            ended.set()

        self._calls.put(work)
        while not ended.wait(_POLL_S):
            self.check()
        if raised:
            raise raised[0]
        return result[0]

    def _work(self) -> None:
        # One thread for all calls: the client's file system keeps what it has listed by thread.
        while True:
            self._calls.get()()

    def _look_at(self, response: Any) -> None:
        """Of every answer: the client would wait as long as a 429 says, be it an hour."""
        self._answered = True
        if response.status_code == 429:
            wait = _told_to_wait(response.headers)
            if wait is not None and wait > self.settings.hub_patience_s:
                raise self._busy(wait)

    def _pause(self, error: BaseException) -> float | None:
        """Seconds to wait before another try; None where trying again does not help."""
        import httpx2
        from huggingface_hub.errors import HfHubHTTPError

        for one in _chain(error):
            if isinstance(one, P2MError | CapReached | _Went):
                return None
            if isinstance(one, HfHubHTTPError) and one.response is not None:
                status = one.response.status_code
                # The other host's addresses are good for some time: the next try gets a new one.
                if status not in _OVERLOADED and not (status == 403 and one.response.history):
                    return None
                return _told_to_wait(one.response.headers) or 0.0
            if isinstance(one, httpx2.TransportError | _CutShort):
                # A hub that has never answered is away, not busy.
                away = isinstance(one, httpx2.ConnectError | httpx2.ConnectTimeout)
                return 0.0 if self._answered or not away else None
        return None

    def _given_up(self, error: BaseException, wait: float) -> P2MError:
        from huggingface_hub.errors import HfHubHTTPError

        response = next((one.response for one in _chain(error) if isinstance(one, HfHubHTTPError)), None)
        if response is not None and response.status_code == 429:
            return self._busy(wait)
        patience = f"{self.settings.hub_patience_s:.0f} s"
        what = f"answers {response.status_code}" if response is not None else f"breaks off ({type(error).__name__})"
        return Unavailable(
            "HUB_UNREACHABLE",
            f"{self.settings.hub_url} {what}, for {patience} now. What was loaded is kept: run "
            "the same command again to go on.",
            retry_after=max(1.0, wait),
        )

    def _busy(self, wait: float) -> P2MError:
        hint = "" if self.token else " Its limit is higher with a token (HF_TOKEN)."
        return Unavailable(
            "HUB_BUSY",
            f"{self.settings.hub_url} asks to wait {wait:.0f} s before more requests (429), longer than the patience "
            f"of {self.settings.hub_patience_s:.0f} s.{hint} What was loaded is kept.",
            retry_after=max(1.0, wait),
        )


class _CutShort(Exception):
    """A body that ended before its end, without an error of the connection."""


class RemoteFile(io.RawIOBase):
    """A file of the hub. Wrap it in `io.BufferedReader`: a read may give less than what was asked for."""

    def __init__(self, line: Line, url: str, name: str, size: int, etag: str) -> None:
        self.name = name
        self.size = size
        self.etag = etag
        self._line = line
        self._url = url
        self._place = 0
        self._folder = line.folder / hashlib.sha256(f"{url}\0{etag}".encode()).hexdigest()[:32]
        self._current: tuple[int, bytes] = (-1, b"")
        self._ahead, self._next = 1, -1
        with contextlib.suppress(OSError):  # for `_prune`: this one is in use
            os.utime(self._folder)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place >= self.size:
            return 0
        number, offset = divmod(self._place, BLOCK_BYTES)
        if self._current[0] != number:
            self._current = (number, self._block(number))
        data = self._current[1][offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        self._line.check()
        path = self._folder / str(number)
        wanted = min(BLOCK_BYTES, self.size - number * BLOCK_BYTES)
        for _ in range(2):
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                if len(data) == wanted:
                    return data
            self._fetch(number)
        raise Unavailable("DOWNLOAD_LOST", f"{path.parent} is emptied while {self.name} is read. Try again.")

    def _fetch(self, number: int) -> None:
        """Blocks from `number` on: one, and twice as many each time while the file is read from front to end."""
        caps = self._line.caps
        caps.check_bytes()
        self._ahead = min(2 * self._ahead, MOST_AHEAD) if number == self._next else 1
        if caps.max_bytes:
            self._ahead = max(1, min(self._ahead, (caps.max_bytes - caps.fetched) // BLOCK_BYTES))
        last = number
        blocks = (self.size + BLOCK_BYTES - 1) // BLOCK_BYTES
        while last + 1 < min(blocks, number + self._ahead) and not (self._folder / str(last + 1)).exists():
            last += 1
        self._next = last + 1
        part = _Part(self._folder, number * BLOCK_BYTES, min(self.size, (last + 1) * BLOCK_BYTES), caps)
        while part.done < part.stop:
            before = part.done
            try:
                # Patience begins anew whenever something has come.
                self._line.ask(lambda before=before: self._stream(part, before))  # type: ignore[misc]
            except _Went:
                continue
            except BaseException:
                part.abandoned = True
                raise

    def _stream(self, part: _Part, before: int) -> None:
        """Reads on from where the part is. _CutShort, or what the client raises, where nothing came at all."""
        import httpx2
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        headers = build_hf_headers(token=self._line.token or False)
        headers |= {"Range": f"bytes={part.done}-{part.stop - 1}", "Accept-Encoding": "identity"}
        try:
            with get_session().stream("GET", self._url, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                    if response.status_code == 416:
                        raise self._changed()
                    hf_raise_for_status(response)
                self._check(response, part)
                # A server that knows no ranges sends the file from its start.
                skip = part.done if response.status_code == 200 else 0
                for piece in response.iter_raw():
                    part.add(piece[skip:])
                    skip = max(0, skip - len(piece))
                    if part.done >= part.stop or part.abandoned:
                        return
            if part.done == before:
                raise _CutShort(f"{self.name}: no byte of {headers['Range']}")
        except (httpx2.TransportError, httpx2.StreamError, _CutShort) as error:
            if part.done > before:
                raise _Went from error
            raise

    def _check(self, response: Any, part: _Part) -> None:
        """That it is still the same file, and the part that was asked for."""
        first = response.history[0] if response.history else response
        etag = first.headers.get("X-Linked-ETag") or first.headers.get("ETag") or self.etag
        if etag.removeprefix("W/").strip('"') != self.etag:
            raise self._changed()
        if response.status_code == 206:
            spread, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            if spread.partition("-")[0] != str(part.done) or total not in (str(self.size), "*"):
                raise self._changed()

    def _changed(self) -> P2MError:
        return Unavailable(
            "CHANGED_ON_HUB",
            f"{self.name} was changed on the hub while it was read. Try again to load it as it is now.",
            retry_after=1.0,
        )


class _Went(Exception):
    """The connection broke, after something had come."""


class _Part:
    """Bytes that come in from `done` to `stop`, written block by block."""

    def __init__(self, folder: Path, start: int, stop: int, caps: Caps) -> None:
        self.done = start
        self.stop = stop
        self.abandoned = False
        self._folder = folder
        self._caps = caps
        self._block = bytearray()

    def add(self, data: bytes) -> None:
        data = data[: self.stop - self.done]
        self._caps.fetched += len(data)
        self._block += data
        self.done += len(data)
        while len(self._block) >= BLOCK_BYTES or (self._block and self.done == self.stop):
            place = self.done - len(self._block)
            self._write(place // BLOCK_BYTES, bytes(self._block[:BLOCK_BYTES]))
            del self._block[:BLOCK_BYTES]

    def _write(self, number: int, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(data)
            temporary.replace(self._folder / str(number))
        finally:
            temporary.unlink(missing_ok=True)


def _told_to_wait(headers: Any) -> float | None:
    """Seconds, of Retry-After or of RateLimit ('"resolvers";r=0;t=55'); None where neither says."""
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    told = headers.get("Retry-After", "")
    return float(told) if told.isdigit() else None


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _prune(folder: Path, most: int) -> None:
    """Removes the files that were not used for longest, until `most` bytes are left."""
    with contextlib.suppress(OSError):
        inside = [one for one in folder.iterdir() if one.is_dir()]
        held = [(one.stat().st_mtime, sum(p.stat().st_size for p in one.iterdir()), one) for one in inside]
        total = sum(size for _, size, _ in held)
        for _, size, one in sorted(held):
            if total <= most:
                return
            shutil.rmtree(one, ignore_errors=True)
            total -= size
