"""A dataset that is a folder of files: JSONL, JSON, CSV, TSV, Parquet, each also gzipped.

The split is what a file's name tells. Where the catalogue does not describe the columns, the first rows do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from services.dataset_retriever.source import Source, best_config
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.kit.rows import files, records, split_of

_LOOKED_AT = 200


def open_folder(entry: Mapping[str, Any], path: Path, config: str, instruction: str) -> Source:
    """The dataset in the folder. NotFound where there is no such folder or configuration."""
    if not path.is_dir():
        raise NotFound("NO_SUCH_FOLDER", f"{entry['id']} should be in {path}, and there is no such folder.")
    configs = entry.get("configs") or [{"name": "default"}]
    names = [one["name"] for one in configs]
    chosen = config or best_config(names, instruction)
    if chosen not in names:
        raise NotFound("NO_SUCH_CONFIG", f"{entry['id']} has no configuration {chosen!r}: it has {', '.join(names)}.")
    described = configs[names.index(chosen)]
    inside = path / chosen if len(names) > 1 and (path / chosen).is_dir() else path
    try:
        found = files(inside)
    except InvalidArgument as error:
        raise FailedPrecondition(error.reason, error.message) from error
    by_split: dict[str, list[Path]] = {}
    for file in found:
        by_split.setdefault(split_of(file), []).append(file)
    features = described.get("features") or _inferred(_rows(found))
    sizes = {split: (described.get("splits") or {}).get(split) or 0 for split in by_split}
    return Source(
        configs=tuple(names),
        config=chosen,
        features=dict(features),
        class_names={name: tuple(labels) for name, labels in (described.get("class_names") or {}).items()},
        splits=sizes,
        licence=entry.get("licence") or "",
        read=lambda split: _rows(by_split[split]),
    )


def _rows(found: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for file in found:
        try:
            for _, record in records(file):
                yield record
        except InvalidArgument as error:
            raise FailedPrecondition(error.reason, error.message) from error


def _inferred(rows: Iterator[dict[str, Any]]) -> dict[str, str]:
    """{column: type} of the first rows; a column of Nones alone is "null"."""
    kinds: dict[str, str] = {}
    for row in itertools.islice(rows, _LOOKED_AT):
        for name, value in row.items():
            kind = _kind(value)
            if kinds.get(name, "null") in ("null", "list<null>"):
                kinds[name] = kind
            elif kind not in ("null", "list<null>", kinds[name]):
                kinds[name] = _wider(kinds[name], kind)
    return kinds


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return f"struct<{', '.join(f'{name}: {_kind(part)}' for name, part in value.items())}>"
    if isinstance(value, list | tuple):
        kinds = [_kind(item) for item in value if item is not None]
        return f"list<{kinds[0] if kinds else 'null'}>"
    if isinstance(value, bytes):
        return "binary"
    return {bool: "bool", int: "int64", float: "float64"}.get(type(value), "string")


def _wider(one: str, other: str) -> str:
    return one if one.startswith(("struct", "list")) or other.startswith(("struct", "list")) else "string"
