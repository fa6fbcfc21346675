"""The starter catalogue's embeddings, kept on this machine, so that a new home need not encode it again.

    recall(texts, encoder)           what was kept of just these texts by this encoder; None where nothing was
    keep(texts, encoder, vectors)    keeps them

They are in ~/.cache/p2m (or $XDG_CACHE_HOME/p2m) under a digest of the encoder and the texts: another encoder's, or
those of other texts, are never taken. A folder that cannot be written is none; it costs time alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

_KEPT = 4


def recall(texts: Sequence[str], encoder: str) -> Vectors | None:
    """The vectors [texts, dimension], each of length 1."""
    file = _file(texts, encoder)
    try:
        vectors = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    sound = vectors.ndim == 2 and len(vectors) == len(texts) and vectors.dtype == np.float32
    if not sound or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        return None
    return np.asarray(vectors, np.float32)


def keep(texts: Sequence[str], encoder: str, vectors: Vectors) -> None:
    """Keeps them for the next time, and of others' the newest few."""
    file = _file(texts, encoder)
    beside = file.with_suffix(f".{os.getpid()}.new")
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as out:
            np.save(out, np.asarray(vectors, np.float32))
        beside.replace(file)
        older = sorted(file.parent.glob("starter-*.npy"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in older[_KEPT:]:
            path.unlink(missing_ok=True)


def _file(texts: Sequence[str], encoder: str) -> Path:
    digest = hashlib.sha256(json.dumps([encoder, *texts]).encode()).hexdigest()
    folder = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    return Path(folder).expanduser() / "p2m" / f"starter-{digest[:32]}.npy"
