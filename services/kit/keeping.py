"""Writers and the one who sweeps the store, side by side: a blob that somebody just stored never vanishes under them.

A blob that is there already need not be written again, and then its age does not tell that it is in use anew. So:

    writer      a blob younger than FRESH_S is taken as it is; an older one is written again, which makes it young.
                Where a sweep is just removing it, the writer waits, and writes it again if it is gone.
    sweeper     names the blobs that it is about to remove in <service>/sweep.json, then looks at each one's age once
                more, removes the old ones, and takes the note away.

Whatever the order: either the sweeper sees the young blob, or the writer sees the note or the gap. A note counts until
the time that it bears, so that a sweeper that died stops nobody. It lies under the writer's own prefix, which the
writer's credentials read.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from services.kit.errors import NotFound

if TYPE_CHECKING:
    from services.kit.artifacts import Store

# A blob younger than this is not written again, and never swept. Far longer than the clocks of a store and of those who
# use it differ, and than the second to which S3 cuts its times.
FRESH_S = 3600.0
# A sweeper's note counts so long; within the last _MARGIN_S of it nothing is removed any more.
_NOTE_S, _MARGIN_S = 60.0, 20.0
_LOOK_S = 0.2


def ensure(store: Store, key: str, size: int, write: Callable[[], None]) -> None:
    """Returns with the `size` bytes that `write` stores at `key` there to stay."""
    found = store.stat(key)
    if found is not None and found.size == size and time.time() - found.modified_at < FRESH_S:
        return
    write()
    if found is None:
        return  # it was gone before it was written: no sweep had it still to remove
    while True:
        if _being_swept(store, key):
            time.sleep(_LOOK_S)
        elif store.stat(key) is None:
            write()
        else:
            return


class Sweeping:
    """What a sweep under one service's prefix may do while its note stands."""

    def __init__(self, store: Store, service: str, keys: Sequence[str]) -> None:
        self._store = store
        self._note = _note(service)
        self._keys = [*keys]
        self._until = 0.0

    def remove(self, key: str, cutoff: float) -> bool:
        """Removes `key` if it was last written before `cutoff` (Unix seconds); whether it did."""
        if time.time() > self._until - _MARGIN_S:
            self._announce()
        found = self._store.stat(key)
        if found is None or found.modified_at > cutoff:
            return False
        if time.time() > self._until - _MARGIN_S:
            return False  # this process was held up: whoever writes does not count on its note any more
        self._store.delete(key)
        return True

    def _announce(self) -> None:
        until = time.time() + _NOTE_S
        self._store.put(self._note, json.dumps({"until": until, "keys": self._keys}).encode())
        self._until = until


@contextlib.contextmanager
def sweeping(store: Store, service: str, keys: Sequence[str]) -> Iterator[Sweeping]:
    """Announces the removal of `keys`, all of one service, for the length of a block. One sweeper at a time."""
    try:
        yield Sweeping(store, service, keys)
    finally:
        store.delete(_note(service))


def _being_swept(store: Store, key: str) -> bool:
    try:
        note = json.loads(store.get(_note(key.partition("/")[0])))
    except NotFound:
        return False
    return bool(time.time() < note["until"] and key in note["keys"])


def _note(service: str) -> str:
    return f"{service}/sweep.json"
