"""A built index in the object store, for services on other machines.

    catalogue/<kind>/current.json        which version counts: {"version", "artifact"}
    catalogue/blobs/sha256/<digest>      its files, and the manifest that names them (kit/artifacts.py)

Only where the store is a bucket: services on one machine share the catalogue's folder, and a second copy of it in a
folder store would serve nobody. A file that is in the bucket, or here, already is not copied again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from services.kit import index
from services.kit.artifacts import Artifacts
from services.kit.errors import DataLoss, NotFound
from services.kit.settings import Settings
from services.kit.values import Artifact
from services.kit.wire import from_json, to_json

OWNER = "catalogue"


@dataclass(frozen=True)
class Stored:
    """The pointer object."""

    version: str = ""
    artifact: Artifact = field(default_factory=Artifact)


def is_kept(settings: Settings) -> bool:
    """Whether indexes are kept in the store at all."""
    return settings.store.startswith("s3://")


def publish(kind: str, folder: Path, settings: Settings) -> None:
    """Stores the version that counts of the index at `folder`, then points at it. Nothing where it is there already.

    The starter's index is not stored: every service builds it by itself, and does so again where none is pointed at.
    """
    version, manifest = index.current(folder), index.read_manifest(folder)
    if not is_kept(settings) or version is None or manifest is None:
        return
    artifacts = Artifacts.open(settings, OWNER)
    if manifest.source.startswith("starter:"):
        artifacts.store.delete(_key(kind))
        return
    there = _pointer(kind, artifacts)
    if there is None or there.version != version.name:
        stored = Stored(version.name, artifacts.put_folder(version))
        artifacts.store.put(_key(kind), to_json(stored).encode())


def fetch(kind: str, folder: Path, settings: Settings, seen: str = "") -> str:
    """Brings the version that counts in the store to `folder`; its name, "" where there is none.

    Nothing is brought where it is here already, or is the one that was `seen` before: then what is here is newer.
    DataLoss where what came is not what was stored; then `folder` is as it was.
    """
    if not is_kept(settings):
        return ""
    artifacts = Artifacts.open(settings, OWNER)
    there = _pointer(kind, artifacts)
    if there is None:
        return ""
    here = index.current(folder)
    if there.version != seen and (here is None or here.name != there.version):
        with index.staging(folder) as filled:
            index.place(artifacts.fetch(there.artifact, filled / "version", _known(folder, here)), folder)
    return there.version


def _known(folder: Path, here: Path | None) -> dict[str, Path]:
    """The files that are here, by their digests."""
    with contextlib.suppress(DataLoss):
        manifest = index.read_manifest(folder)
        if here and manifest:
            return {digest: here / name for name, digest in manifest.files.items()}
    return {}


def _pointer(kind: str, artifacts: Artifacts) -> Stored | None:
    try:
        return from_json(artifacts.store.get(_key(kind)), Stored)
    except NotFound:
        return None
    except ValueError as error:
        raise DataLoss(
            "BAD_POINTER", f"{_key(kind)} in the store names no index: run p2m catalogue build again."
        ) from error


def _key(kind: str) -> str:
    return f"{OWNER}/{kind}/current.json"
