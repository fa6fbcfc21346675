"""What an index keeps of each entry as a number, so that a search reads no entry to rank it.

models      downloads, size_bytes
datasets    downloads
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Facts: TypeAlias = dict[str, npt.NDArray[Any]]

_NUMBERS = {"models": ("downloads", "size_bytes"), "datasets": ("downloads",)}


def facts(kind: str, entries: Sequence[Mapping[str, Any]]) -> Facts:
    """One array [entries] for each name; 0 where an entry does not say."""
    return {name: np.asarray([entry.get(name) or 0 for entry in entries], np.int64) for name in _NUMBERS[kind]}
