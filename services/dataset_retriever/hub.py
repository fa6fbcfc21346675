"""A dataset of the Hugging Face hub, read where it lies. Runs in a child process; no code of the hub's is ever run.

    dataset_info            the commit, the licence, whether it is gated, its files
    datasets' own rules     which files make which split of which configuration (README, folders, file names)
    refs/convert/parquet    the Parquet copy that the hub makes of most datasets: where a dataset is loaded by a script,
                            or lies in files that are not read here
    remote                  the files' bytes

`datasets` tells what to read; the reading is that of `kit.readers`, the same as of a person's own files: bad rows are
counted, a broken connection goes on where it broke, and nothing is read that the caps do not allow.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from services.dataset_retriever.folder import explained, inferred, rows_of
from services.dataset_retriever.remote import CapReached, Line
from services.dataset_retriever.source import Source, best_config, labelled
from services.kit import locations
from services.kit.errors import FailedPrecondition, NotFound, P2MError, Unauthenticated
from services.kit.readers import AS_IT_LOOKS, FORMATS, DataFile, Layout, Tally, format_of
from services.kit.settings import Settings

CONVERTED = "refs/convert/parquet"
# Of a split with many files so many are read to the same number of rows: one alone may hold one label, or one year.
_SPREAD_FILES = 8
_ABOUT = ("dataset_infos.json", "dataset_dict.json", "state.json", "dataset_info.json", "config.json")
_NOTATION = frozenset("<>,:")


@dataclass(frozen=True)
class _Plan:
    """Which files make a configuration. `features` is None where the files themselves must tell."""

    configs: tuple[str, ...]
    config: str
    files: dict[str, list[str]]
    """{split: paths in the repository}."""
    commit: str
    converted: bool = False
    features: Any = None
    sizes: Mapping[str, int] | None = None
    layout: Layout = AS_IT_LOOKS
    notes: tuple[str, ...] = ()


def prepare(settings: Settings) -> None:
    """The hub's clients read their settings when they are imported, which in this process was not yet."""
    os.environ["HF_ENDPOINT"] = settings.hub_url
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["USE_TORCH"] = "0"  # `datasets` would import it, which takes seconds
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    if settings.hub_token.get_secret_value():
        os.environ["HF_TOKEN"] = settings.hub_token.get_secret_value()
    if settings.hub_cache:
        os.environ["HF_HUB_CACHE"] = str(settings.hub_cache)
    # A folder of our own: where the hub fails `datasets` would take what somebody else prepared in the usual one.
    os.environ["HF_DATASETS_CACHE"] = str(settings.home_folder / "downloads" / "datasets")


def open_hub(name: str, config: str, instruction: str, revision: str, line: Line) -> Source:
    """The dataset `name` ("owner/name") at a revision ("": the newest).

    NotFound for an unknown dataset, revision or configuration, FailedPrecondition (GATED, SCRIPT_ONLY, NO_DATA_FILES,
    BAD_DATASET, HUB_TOKEN), Unavailable where the hub is out of reach.
    """
    with _told(name, line):
        return _open(name, config, instruction, revision, line)


@contextlib.contextmanager
def _told(name: str, line: Line) -> Iterator[None]:
    """Inside it the errors of the hub's clients are told as ours."""
    try:
        yield
    except (P2MError, CapReached):
        raise
    except Exception as error:
        raise _explained(error, name, line) from error


def _open(name: str, config: str, instruction: str, revision: str, line: Line) -> Source:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=line.settings.hub_url, token=line.token)
    branch, _, copy = revision.partition("@")
    at = None if branch == CONVERTED else revision or None
    info: Any = line.ask(lambda: api.dataset_info(name, revision=at))
    if info.gated and not line.token:
        raise _gated(name, line.settings)
    # Of a dataset that was renamed, the new name.
    plan = _plan(info.id, config, instruction, info, copy, api, line)
    files = {split: [_file(info.id, path, plan.commit, line) for path in paths] for split, paths in plan.files.items()}
    kinds, class_names = _columns(plan, files)
    licence = getattr(info.card_data, "license", None) or ""

    def read(split: str, columns: Collection[str] | None, tally: Tally, most: int) -> Iterator[dict[str, Any]]:
        found = files[split]
        if len(found) > _SPREAD_FILES:
            found = random.Random(f"0 {split}").sample(found, len(found))
        each = -(-most // min(len(found), _SPREAD_FILES)) if most else 0
        left = most
        for file in found:
            try:
                with _told(name, line), contextlib.closing(rows_of([file], tally, columns, plan.layout, each)) as rows:
                    for number, row in enumerate(rows):
                        if most and (number == each or left == 0):
                            break
                        left -= 1
                        yield labelled(row, kinds)
            except FailedPrecondition as error:
                # Nobody here can mend one file of a dataset that is good otherwise.
                if error.reason == "GATED" or tally.good <= tally.dropped.total():
                    raise
                tally.left_out.append(f"Not all of {file.name} was read: {error.message}")

    return Source(
        configs=plan.configs,
        config=plan.config,
        features=kinds,
        class_names=class_names,
        splits={split: (plan.sizes or {}).get(split) or _size(found) for split, found in files.items()},
        licence=", ".join(licence) if isinstance(licence, list) else str(licence),
        read=read,
        revision=f"{CONVERTED}@{plan.commit}" if plan.converted else plan.commit,
        notes=plan.notes,
    )


def _plan(name: str, config: str, instruction: str, info: Any, copy: str, api: Any, line: Line) -> _Plan:
    """The files as they lie, where they can be read; else the hub's copy; that at once where its commit is `copy`."""
    from datasets.exceptions import DatasetNotFoundError, DatasetsError

    ruled_out: Exception | None = None
    paths = [sibling.rfilename for sibling in info.siblings or []]
    script = next((path for path in paths if path == f"{name.rpartition('/')[2]}.py"), "")
    readable = [path for path in paths if format_of(path) and PurePosixPath(path).name not in _ABOUT]
    if copy:
        why = "as it was looked at"
    elif not script and readable:
        try:
            plan = _as_it_lies(name, config, instruction, info.sha, line)
        except DatasetNotFoundError:
            raise
        except (DatasetsError, ValueError, TypeError, KeyError, FileNotFoundError) as error:
            ruled_out = error
            why = "its files follow no rule that `datasets` knows"
        else:
            if all(format_of(path) for paths in plan.files.values() for path in paths):
                return plan
            why = "some of its files are in a format that is not read here"
    else:
        script = script or next((path for path in paths if path.endswith(".py")), "")
        why = f"it is loaded by its own program {script}, which is not run" if script else "it has no file of rows"
    converted = _converted(name, config, instruction, why, copy, api, line)
    if converted is not None:
        return converted
    if ruled_out is not None:
        raise ruled_out
    if script:
        raise FailedPrecondition(
            "SCRIPT_ONLY",
            f"{name} can only be loaded by running its Python script {script}, which is not done, and the hub has no "
            f"Parquet copy of it (the branch {CONVERTED}). Take another dataset.",
        )
    raise _no_data(name)


def _as_it_lies(name: str, config: str, instruction: str, commit: str, line: Line) -> _Plan:
    """The files by the rules of `datasets`: the README's `configs`, else folders, else file names."""
    import datasets

    names = line.ask(lambda: datasets.get_dataset_config_names(name, revision=commit, token=line.token))
    chosen = _chosen(names, config, instruction, name)
    builder: Any = line.ask(lambda: datasets.load_dataset_builder(name, chosen, revision=commit, token=line.token))
    base = f"hf://datasets/{name}@{commit}/"
    files = {str(split): [_inside(str(url), base) for url in urls] for split, urls in builder.config.data_files.items()}
    sizes = {split: int(one.num_examples or 0) for split, one in (builder.info.splits or {}).items()}
    return _Plan(
        tuple(names), chosen, files, commit, features=builder.info.features, sizes=sizes, layout=_layout(builder.config)
    )


def _inside(url: str, base: str) -> str:
    """The path in the repository; of what lies elsewhere, or in an archive, the whole address, which is no format."""
    return url.removeprefix(base) if url.startswith(base) else f"{url} "


def _layout(config: Any) -> Layout:
    """What a README says of how CSV and JSON files are to be read."""
    separator = getattr(config, "delimiter", None) or getattr(config, "sep", None) or ""
    return Layout(
        # The usual comma may not have been said at all.
        separator=separator if len(separator) == 1 and separator != "," else "",
        names=tuple(getattr(config, "names", None) or getattr(config, "column_names", None) or ()),
        field=getattr(config, "field", None) or "",
        encoding=getattr(config, "encoding", None) or "",
    )


def _converted(name: str, config: str, instruction: str, why: str, copy: str, api: Any, line: Line) -> _Plan | None:
    """The hub's own Parquet copy: <configuration>/<split>/<number>.parquet. None where there is none."""
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        info = line.ask(lambda: api.dataset_info(name, revision=copy or CONVERTED))
    except RevisionNotFoundError:
        return None
    found: dict[str, dict[str, list[str]]] = {}
    partial = False
    for sibling in sorted(info.siblings or [], key=lambda one: one.rfilename):
        config_name, _, rest = sibling.rfilename.rpartition("/")[0].partition("/")
        if rest and sibling.rfilename.endswith(".parquet"):
            partial = partial or rest.startswith("partial-")
            found.setdefault(config_name, {}).setdefault(rest.removeprefix("partial-"), []).append(sibling.rfilename)
    if not found:
        return None
    names = list(found)
    chosen = _chosen(names, config, instruction, name)
    notes = [f"Loaded from the hub's own Parquet copy of {name} ({CONVERTED}): {why}."]
    if partial:
        notes.append("The hub's copy holds only the first part of it.")
    return _Plan(tuple(names), chosen, found[chosen], info.sha, converted=True, notes=tuple(notes))


def _chosen(names: Sequence[str], config: str, instruction: str, dataset: str) -> str:
    chosen = config or best_config(names, instruction)
    if chosen not in names:
        listed = ", ".join(names[:50]) + (f" and {len(names) - 50} more" if len(names) > 50 else "")
        raise NotFound("NO_SUCH_CONFIG", f"{dataset} has no configuration {chosen!r}: it has {listed}.")
    return chosen


def _file(name: str, path: str, revision: str, line: Line) -> DataFile:
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(name, path, repo_type="dataset", revision=revision, endpoint=line.settings.hub_url)
    return DataFile(path, lambda: io.BufferedReader(line.open(url, path), 1 << 16))


# -- columns


def _columns(plan: _Plan, files: Mapping[str, list[DataFile]]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    split = "train" if "train" in files else next(iter(files))
    features = plan.features
    if features is None and files[split][0].name.endswith(".parquet"):
        features = _written_in(files[split][0])
    if features is None:
        return inferred(rows_of(files[split], Tally(), None, plan.layout)), {}
    kinds, class_names = {}, dict[str, tuple[str, ...]]()
    for column, feature in features.items():
        kinds[column] = _kind(feature, column, class_names)
    return kinds, class_names


def _written_in(file: DataFile) -> Any:
    """The features that a Parquet file states, or that follow from its schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Features

    with explained(), file.open() as raw:
        try:
            return Features.from_arrow_schema(pq.read_schema(raw))
        except (pa.ArrowException, ValueError, TypeError, KeyError, NotImplementedError):
            return None  # the reader of rows will tell what is wrong


def _size(files: Sequence[DataFile]) -> int:
    """How many rows a few Parquet files have, which their footers tell; 0 where it would take reading them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(files) > _SPREAD_FILES or not all(file.name.endswith(".parquet") for file in files):
        return 0
    rows = 0
    for file in files:
        with file.open() as raw, contextlib.suppress(pa.ArrowException):
            rows += pq.read_metadata(raw).num_rows
    return rows


def _kind(feature: Any, path: str, class_names: dict[str, tuple[str, ...]]) -> str:
    """A feature of `datasets` in the catalogue's words; label names are noted under the dotted path."""
    if isinstance(feature, Mapping):
        parts = ((name, part) for name, part in feature.items() if not _NOTATION.intersection(str(name)))
        inside = (f"{name}: {_kind(part, f'{path}.{name}', class_names)}" for name, part in parts)
        return f"struct<{', '.join(inside)}>"
    if isinstance(feature, list):
        return f"list<{_kind(feature[0], path, class_names)}>"
    kind = type(feature).__name__
    if kind in ("List", "LargeList", "Sequence"):
        return f"list<{_kind(feature.feature, path, class_names)}>"
    if kind == "Value":
        return str(feature.dtype)
    if kind == "ClassLabel":
        class_names[path] = tuple(feature.names or ())
        return "class_label"
    if kind in ("Translation", "TranslationVariableLanguages"):
        return f"translation<{','.join(feature.languages)}>"
    return kind.lower()


# -- errors


def _explained(error: Exception, name: str, line: Line) -> P2MError:
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    text = " ".join(str(error).split())
    if isinstance(error, GatedRepoError) or (isinstance(error, DatasetNotFoundError) and "gated" in text):
        return _gated(name, line.settings, with_token=line.token is not None)
    if isinstance(error, DatasetNotFoundError):
        return NotFound("NOT_ON_HUB", f"{line.settings.hub_url} has no {name}.")
    if isinstance(error, DataFilesNotFoundError):
        return _no_data(name)
    if isinstance(error, ValueError | TypeError | KeyError | FileNotFoundError | RuntimeError) and not isinstance(
        error, HfHubHTTPError
    ):
        return FailedPrecondition("BAD_DATASET", f"{name} cannot be read ({type(error).__name__}: {text[:200]}).")
    known = locations.hub_error(error, name, line.settings)
    # The caller's own token is right; it is this service's that the hub refuses.
    return FailedPrecondition(known.reason, known.message) if isinstance(known, Unauthenticated) else known


def _gated(name: str, settings: Settings, *, with_token: bool = False) -> P2MError:
    page = f"{settings.hub_url}/datasets/{name}"
    if with_token:
        message = f"{name} is gated, and the token (HF_TOKEN) has no access: accept its terms at {page}"
    else:
        message = f"{name} is gated: accept its terms at {page} and set HF_TOKEN"
    return FailedPrecondition("GATED", f"{message}, or take another.")


def _no_data(name: str) -> P2MError:
    return FailedPrecondition(
        "NO_DATA_FILES", f"{name} has no data file that can be read: wanted {', '.join(FORMATS)}."
    )
