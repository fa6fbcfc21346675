"""A dataset of the Hugging Face hub, streamed by `datasets`. Runs in a child process; no code of the hub's is ever run.

What cannot be had is said before anything is fetched: GATED, SCRIPT_ONLY, NO_DATA_FILES.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from services.dataset_retriever.source import Source, best_config
from services.kit import locations
from services.kit.errors import FailedPrecondition, NotFound, P2MError
from services.kit.rows import FORMATS
from services.kit.settings import Settings

_FORMATS = (*FORMATS, ".arrow", ".txt")


def open_hub(name: str, config: str, instruction: str, settings: Settings) -> Source:
    """The dataset `name` ("owner/name").

    NotFound for an unknown dataset or configuration, FailedPrecondition (GATED, SCRIPT_ONLY, NO_DATA_FILES,
    HUB_OFFLINE), Unavailable where the hub is out of reach.
    """
    if settings.hub_offline:
        raise FailedPrecondition("HUB_OFFLINE", f"{name} is on the hub, which is switched off (HF_HUB_OFFLINE).")
    _environment(settings)
    try:
        licence = _check(name, settings)
        return _open(name, config, instruction, licence)
    except P2MError:
        raise
    except Exception as error:
        raise _explained(error, name, settings) from error


def _environment(settings: Settings) -> None:
    """The hub's client reads its settings when it is imported, which in this process was not yet."""
    os.environ["HF_ENDPOINT"] = settings.hub_url
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["USE_TORCH"] = "0"  # `datasets` would import it, which takes seconds
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    if settings.hub_cache:
        os.environ["HF_HUB_CACHE"] = str(settings.hub_cache)
        os.environ["HF_DATASETS_CACHE"] = str(settings.hub_cache / "datasets")


def _check(name: str, settings: Settings) -> str:
    """The licence; raises where the dataset cannot be loaded."""
    from huggingface_hub import HfApi, get_token

    info: Any = HfApi(endpoint=settings.hub_url).dataset_info(name)
    if info.gated and not get_token():
        raise _gated(name, settings)
    files = [sibling.rfilename.lower() for sibling in info.siblings or []]
    data = [file for file in files if file.removesuffix(".gz").endswith(_FORMATS) and not _is_about(file)]
    if not data and any(file.endswith(".py") for file in files):
        raise _script_only(name)
    if not data:
        raise FailedPrecondition(
            "NO_DATA_FILES", f"{name} has no data file that can be read: wanted {', '.join(FORMATS)}."
        )
    licence = getattr(info.card_data, "license", None) or ""
    return ", ".join(licence) if isinstance(licence, list) else str(licence)


def _open(name: str, config: str, instruction: str, licence: str) -> Source:
    import datasets

    names = datasets.get_dataset_config_names(name)
    chosen = config or best_config(names, instruction)
    if chosen not in names:
        raise NotFound("NO_SUCH_CONFIG", f"{name} has no configuration {chosen!r}: it has {', '.join(names[:50])}.")
    streams = {
        split: stream.decode(False) for split, stream in datasets.load_dataset(name, chosen, streaming=True).items()
    }
    first = next(iter(streams.values()))
    features = first.features or first._resolve_features().features
    kinds, class_names = {}, dict[str, tuple[str, ...]]()
    for column, feature in features.items():
        kinds[column] = _kind(feature, column, class_names)
    info = first.info.splits or {}
    sizes = {split: int(info[split].num_examples or 0) if split in info else 0 for split in streams}

    def read(split: str) -> Iterator[dict[str, Any]]:
        return iter(streams[split])

    return Source(tuple(names), chosen, kinds, class_names, sizes, licence, read)


def _kind(feature: Any, path: str, class_names: dict[str, tuple[str, ...]]) -> str:
    """A feature of `datasets` in the catalogue's words; label names are noted under the dotted path."""
    if isinstance(feature, Mapping):
        inside = (f"{name}: {_kind(part, f'{path}.{name}', class_names)}" for name, part in feature.items())
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


def _is_about(file: str) -> bool:
    return file.rpartition("/")[2] in ("dataset_infos.json", "dataset_dict.json", "state.json", "dataset_info.json")


def _explained(error: Exception, name: str, settings: Settings) -> P2MError:
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError

    text = str(error)
    if "script" in text.lower() and isinstance(error, RuntimeError):
        return _script_only(name)
    if isinstance(error, DatasetNotFoundError):
        return (
            _gated(name, settings) if "gated" in text else NotFound("NOT_ON_HUB", f"{settings.hub_url} has no {name}.")
        )
    if isinstance(error, DataFilesNotFoundError):
        return FailedPrecondition(
            "NO_DATA_FILES", f"{name} has no data file that can be read: wanted {', '.join(FORMATS)}."
        )
    if isinstance(error, ValueError | TypeError | KeyError) and not isinstance(error, OSError):
        return FailedPrecondition("BAD_DATASET", f"{name} cannot be read ({type(error).__name__}: {text[:200]}).")
    return locations.hub_error(error, name, settings)


def _gated(name: str, settings: Settings) -> P2MError:
    return FailedPrecondition(
        "GATED",
        f"{name} is gated: accept its terms at {settings.hub_url}/datasets/{name} and set HF_TOKEN, or take another.",
    )


def _script_only(name: str) -> P2MError:
    return FailedPrecondition(
        "SCRIPT_ONLY",
        f"{name} can only be loaded by running its Python script, which is not done. Take another dataset.",
    )
