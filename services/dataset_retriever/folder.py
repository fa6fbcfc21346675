"""A dataset that is a folder of files, in any format of `kit.readers`.

The split is what a file's name or folder tells. Where the catalogue does not describe the columns, the first rows do.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from services.dataset_retriever.source import Source, best_config, labelled
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.kit.readers import AS_IT_LOOKS, DataFile, Layout, Tally, records
from services.kit.rows import files, split_in

_LOOKED_AT = 200
# These would be taken for part of a nested type's own notation.
_NOTATION = frozenset("<>,:")


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
    with explained():
        found = files(inside)
    by_split: dict[str, list[Path]] = {}
    for file in found:
        by_split.setdefault(split_in(inside, file), []).append(file)
    features = dict(described.get("features") or inferred(rows_of(found, Tally(), None)))

    def read(split: str, columns: Collection[str] | None, tally: Tally, most: int) -> Iterator[dict[str, Any]]:
        del most  # a folder is near: all of it is sampled
        rows = rows_of(by_split[split], tally, columns)
        return (labelled(row, features) for row in rows)

    return Source(
        configs=tuple(names),
        config=chosen,
        features=features,
        class_names={name: tuple(labels) for name, labels in (described.get("class_names") or {}).items()},
        splits={split: (described.get("splits") or {}).get(split) or 0 for split in by_split},
        licence=entry.get("licence") or "",
        read=read,
    )


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Inside it what is wrong with a dataset's files is FailedPrecondition: the request was right."""
    try:
        yield
    except InvalidArgument as error:
        raise FailedPrecondition(error.reason, error.message) from error


def rows_of(
    found: Iterable[Path | DataFile],
    tally: Tally,
    columns: Collection[str] | None,
    layout: Layout = AS_IT_LOOKS,
    most: int = 0,
) -> Generator[dict[str, Any], None, None]:
    """The rows of several files. FailedPrecondition where one cannot be read, or more rows are bad than good."""
    with explained():
        for file in found:
            for _, row in records(file, bad=tally.bad, columns=columns, layout=layout, most=most):
                tally.good += 1
                yield row
        tally.check()


def inferred(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
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
        parts = [(str(name), _kind(part)) for name, part in value.items() if not _NOTATION.intersection(str(name))]
        return f"struct<{', '.join(f'{name}: {kind}' for name, kind in parts)}>"
    if isinstance(value, list | tuple):
        kinds = [_kind(item) for item in value if item is not None]
        return f"list<{kinds[0] if kinds else 'null'}>"
    if isinstance(value, bytes):
        return "binary"
    return {bool: "bool", int: "int64", float: "float64"}.get(type(value), "string")


def _wider(one: str, other: str) -> str:
    return one if one.startswith(("struct", "list")) or other.startswith(("struct", "list")) else "string"
