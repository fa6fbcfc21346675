"""Which objects of the store the runs name.

    survey(store, runs, outcomes)     everything there is, and what each run names of it

A run names an artifact in its row (given rows, its result), in the recorded outcomes of its stages, and in the results
that services have stored for it. A folder names the blobs of its manifest. Whatever looks like an artifact counts,
wherever it stands in these texts.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from orchestrator.gc.retention import run_of
from services.kit.artifacts import PARQUET, Entry, Store
from services.kit.errors import NotFound

_READERS = 16
_ARTIFACT = re.compile(r"p2m://([a-z_]+/blobs/sha256/[0-9a-f]{64})")
_MEDIA_TYPE = re.compile(r'media_type\\*"\s*:\s*\\*"([^"\\]+)')
# Where an artifact's JSON has its media type: after the address, within so many characters.
_NEAR = 300
# No manifest is larger: it would name a hundred thousand files.
_MANIFEST_BYTES = 16 << 20
_CATALOGUE = "catalogue"


@dataclass
class Survey:
    """What there is in a store, and who names it."""

    entries: dict[str, Entry]
    named: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Keys of blobs, by run; the catalogue's under ""."""

    def of_run(self, run: str) -> list[Entry]:
        """The records, answers and checkpoints of a run."""
        return [entry for entry in self.entries.values() if run_of(entry.key) == run]

    def runs(self) -> dict[str, list[Entry]]:
        """The records, answers and checkpoints by run, whether there is such a run or not."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries.values():
            if run := run_of(entry.key):
                found[run].append(entry)
        return found


def survey(store: Store, texts: Iterable[tuple[str, str]]) -> Survey:
    """Lists the store, and then reads who names what: `texts` are (run, text) out of the database, read after it."""
    found = Survey({entry.key: entry for entry in store.entries("")})
    # Listed after the blobs: what names one that was seen is seen too.
    records = [key for key in store.list("") if "/results/" in key]
    pointers = [key for key in found.entries if key.startswith(f"{_CATALOGUE}/") and key.endswith("/current.json")]
    tabular: set[str] = set()
    for run, text in texts:
        _note(found, tabular, run, text)
    with ThreadPoolExecutor(_READERS) as readers:
        for key, data in zip(records, readers.map(lambda key: _read(store, key), records), strict=True):
            _note(found, tabular, run_of(key), data.decode(errors="replace"))
        for data in readers.map(lambda key: _read(store, key), pointers):
            _note(found, tabular, "", data.decode(errors="replace"))
        named = sorted(set().union(*found.named.values()) - tabular)
        small = [key for key in named if key in found.entries and found.entries[key].size <= _MANIFEST_BYTES]
        inside = dict(zip(small, readers.map(lambda key: _files(key, _read(store, key)), small), strict=True))
    for keys in found.named.values():
        keys |= {child for key in [*keys] for child in inside.get(key, ())}
    return found


def _note(found: Survey, tabular: set[str], run: str, text: str) -> None:
    for match in _ARTIFACT.finditer(text):
        found.named[run].add(match[1])
        kind = _MEDIA_TYPE.search(text, match.end(), match.end() + _NEAR)
        if kind and kind[1] == PARQUET and "p2m://" not in text[match.end() : kind.start()]:
            tabular.add(match[1])


def _read(store: Store, key: str) -> bytes:
    try:
        return store.get(key)
    except NotFound:
        return b""


def _files(key: str, data: bytes) -> list[str]:
    """The keys that a folder's manifest names; none where it is no manifest."""
    if not data.lstrip().startswith(b"{"):
        return []
    try:
        manifest = json.loads(data)
    except ValueError:
        return []
    files = manifest.get("files") if isinstance(manifest, Mapping) else None
    prefix = key.rpartition("/")[0]
    return [f"{prefix}/{file['sha256']}" for file in files or () if isinstance(file, Mapping) and "sha256" in file]
