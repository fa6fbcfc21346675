"""The index that a service answers with, replaced while it runs.

    live = Live("models", settings, make=Models)
    await live.start()          opens it, warms it, and from then on looks for a newer version
    live.get()                  what a query uses, to its end, whatever comes meanwhile

A new version (`p2m catalogue build`) is noticed within a second or two, in a bucket within some more, is opened and
warmed in a thread, and takes the old one's place between two queries. The old one is unmapped when the last query that
holds it is done. A version that cannot be used is said so in the log, once, and the old one goes on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from catalogue import build, stored
from services.kit import index, worker
from services.kit.errors import Cancelled, DataLoss, P2MError, Unavailable
from services.kit.index import Index
from services.kit.settings import Settings

T = TypeVar("T")
log = logging.getLogger(__name__)

# One read of a small file, and one request to the store.
POLL_S = 1.0
STORE_POLL_S = 10.0
# Between two pieces of a file that is checked: searches come first.
_BREATH_S = 0.01


class Live(Generic[T]):
    """`make(index)` of the version that counts. `encoder` hosts embed.Encoder where the kind is encoded."""

    def __init__(
        self, kind: str, settings: Settings, make: Callable[[Index], T], encoder: worker.Resident | None = None
    ) -> None:
        self._kind, self._settings, self._make, self._encoder = kind, settings, make, encoder
        self._folder = settings.catalogue_folder / kind
        self._value: T | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._version = ""
        self._refused = ""
        self._checking: asyncio.Task[None] | None = None
        self._replaced = threading.Event()

    async def start(self) -> None:
        """Opens the index, as build.ready does; raises what it raises."""
        seen = await self._fetched("")
        opened = await build.ready(self._kind, self._settings, self._encoder)
        await self._take(opened)
        self._tasks = [asyncio.create_task(self._follow())]
        if stored.is_kept(self._settings):
            self._tasks.append(asyncio.create_task(self._follow_store(seen)))

    async def stop(self) -> None:
        self._replaced.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *([self._checking] if self._checking else []), return_exceptions=True)

    def get(self) -> T:
        """What `make` made of the version that counts; Unavailable before there is one."""
        if self._value is None:
            raise Unavailable(
                "NOT_WARM", f"The catalogue of {self._kind} is still being opened; try again.", retry_after=1.0
            )
        return self._value

    async def _take(self, opened: Index) -> None:
        value = await asyncio.to_thread(self._made, opened)
        self._value, self._version = value, opened.version.name
        self._replaced.set()
        self._replaced = threading.Event()
        self._checking = asyncio.create_task(self._check(opened.version, opened.manifest, self._replaced))

    def _made(self, opened: Index) -> T:
        opened.warm()
        return self._make(opened)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            version = await asyncio.to_thread(index.current, self._folder)
            if version is None or version.name in (self._version, self._refused):
                continue
            try:
                await self._take(await build.opened(self._kind, self._settings, self._encoder))
                log.info("%s are searched in version %s from now on", self._kind, self._version)
            except Exception as error:  # whatever is wrong with a new version, the old one serves on
                self._refused = version.name
                reason = error.message if isinstance(error, P2MError) else f"{type(error).__name__}: {error}"
                log.error(
                    "the new version %s of the %s cannot be used, %s serves on: %s",
                    version.name, self._kind, self._version, reason,
                )  # fmt: skip

    async def _check(self, version: Path, manifest: index.Manifest, replaced: threading.Event) -> None:
        """Reads what opening a large index does not: every byte of it."""
        damage = await asyncio.to_thread(_damage, version, manifest, replaced)
        if damage:
            log.error("version %s of the %s is damaged: %s", version.name, self._kind, damage)

    async def _follow_store(self, seen: str) -> None:
        while True:
            await asyncio.sleep(STORE_POLL_S)
            seen = await self._fetched(seen)

    async def _fetched(self, seen: str) -> str:
        try:
            return await asyncio.to_thread(stored.fetch, self._kind, self._folder, self._settings, seen)
        except P2MError as error:
            log.error("the store's version of the %s was not fetched: %s", self._kind, error.message)
            return seen


def _damage(version: Path, manifest: index.Manifest, replaced: threading.Event) -> str:
    def breathe() -> None:
        if replaced.wait(_BREATH_S):
            raise Cancelled("CANCELLED", "Another version is served now.")

    try:
        index.check(version, manifest, breathe)
    except DataLoss as error:
        return error.message if version.exists() else ""  # an old one that has been removed meanwhile
    except Cancelled:
        pass
    return ""
