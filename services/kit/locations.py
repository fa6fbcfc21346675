"""Model locations: where a model's files are, and how they get here.

package:<python package>/<folder>    a folder that an installed Python package ships
folder:<path>                        a folder on this machine
hub:<name>[@<revision>]              the Hugging Face hub, safetensors only; its code is never run

resolve(location, settings)          the folder of files on this machine, downloaded where need be
gguf_file(folder)                    the weights of a folder without safetensors that holds one GGUF file
reachable(location, settings)        whether `resolve` could work from here, without a request
cached_names(settings)               hub models that may be on this machine
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

from services.kit.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    P2MError,
    Unauthenticated,
    Unavailable,
    from_os_error,
)
from services.kit.settings import Settings

# Weights as safetensors, and what a tokenizer and a configuration are made of. No pickle, no Python files.
HUB_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def resolve(location: str, settings: Settings, max_bytes: int | None = None) -> Path:
    """The folder with the model's files.

    A hub model is asked about before it is downloaded: it must have safetensors, at most `max_bytes` of them. Raises
    InvalidArgument for what is no location, NotFound where there is nothing, FailedPrecondition (HUB_OFFLINE,
    NO_SAFETENSORS, MODEL_TOO_LARGE, GATED), Unavailable where the hub is out of reach.
    """
    kind, rest = split(location)
    if kind == "package":
        return _package_folder(rest)
    if kind == "folder":
        return _folder(rest)
    return _from_hub(rest, settings, max_bytes)


def gguf_file(folder: Path) -> str | None:
    """The name of the one GGUF file of a folder that has no safetensors; None for any other folder.

    GGUF is, as safetensors, numbers and words alone: reading it runs no code. It holds the tokenizer and the
    configuration too.
    """
    found = sorted(file.name for file in folder.glob("*.gguf"))
    return found[0] if len(found) == 1 and not any(folder.rglob("*.safetensors")) else None


def reachable(location: str, settings: Settings) -> bool:
    """Whether the location can be resolved from here now; for the hub, whether it may be asked or has it cached."""
    kind, rest = split(location)
    if kind == "hub":
        return not settings.hub_offline or (_maybe_cached(rest, settings) and cached(rest, settings) is not None)
    try:
        resolve(location, settings)
    except P2MError:
        return False
    return True


def split(location: str) -> tuple[str, str]:
    """("package" | "folder" | "hub", the rest); InvalidArgument for anything else."""
    kind, colon, rest = location.partition(":")
    if not colon or not rest or kind not in ("package", "folder", "hub"):
        raise InvalidArgument(
            "BAD_LOCATION",
            f"{location[:120]!r} is no model location: wanted package:<package>/<folder>, folder:<path> or hub:<name>.",
            field="location",
        )
    if kind == "hub" and not _HUB_NAME.fullmatch(rest):
        raise InvalidArgument(
            "BAD_LOCATION", f"{rest[:120]!r} is no hub name: wanted owner/name[@revision].", field="location"
        )
    return kind, rest


def cached(name: str, settings: Settings) -> Path | None:
    """The folder of a hub model ("name[@revision]") that was downloaded before."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    try:
        folder = Path(
            snapshot_download(
                repo,
                revision=revision or None,
                cache_dir=settings.hub_cache,
                allow_patterns=HUB_PATTERNS,
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, FileNotFoundError, ValueError):
        return None
    return folder if any(folder.rglob("*.safetensors")) else None


def cached_names(settings: Settings) -> list[str]:
    """The hub models of which the cache has a folder, whole or in part."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(settings.hub_cache or HF_HUB_CACHE)
    try:
        return [path.name[len("models--") :].replace("--", "/") for path in cache.glob("models--*") if path.is_dir()]
    except OSError:
        return []


def _maybe_cached(name: str, settings: Settings) -> bool:
    """A look that is cheap enough for ten thousand names."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = f"models--{name.partition('@')[0].replace('/', '--')}"
    return os.path.isdir(Path(settings.hub_cache or HF_HUB_CACHE, folder))  # of a name that is too long: False


def hub_error(error: Exception, name: str, settings: Settings) -> P2MError:
    """What an error of the hub's client means to a caller."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return FailedPrecondition(
            "GATED",
            f"{name} is gated: accept its terms at {settings.hub_url}/{name} and set HF_TOKEN, or take another.",
        )
    if isinstance(error, RepositoryNotFoundError):
        return NotFound("NOT_ON_HUB", f"{settings.hub_url} has no {name}, or it is private (set HF_TOKEN).")
    if isinstance(error, RevisionNotFoundError):
        return NotFound("NO_SUCH_REVISION", f"{settings.hub_url} has no such revision of {name}.")
    if isinstance(error, OfflineModeIsEnabled):
        return _offline(name)
    if isinstance(error, HfHubHTTPError) and error.response is not None and error.response.status_code == 401:
        return Unauthenticated("HUB_TOKEN", f"{settings.hub_url} refused the token for {name}: check HF_TOKEN.")
    if isinstance(error, LocalEntryNotFoundError) or not isinstance(error, P2MError):
        return Unavailable(
            "HUB_UNREACHABLE",
            f"{settings.hub_url} did not give {name} ({type(error).__name__}). Check the network, try again.",
        )
    return error


def _offline(name: str) -> P2MError:
    return FailedPrecondition(
        "HUB_OFFLINE",
        f"{name} is not on this machine and the hub is switched off (HF_HUB_OFFLINE). Allow it, or take another.",
    )


def _package_folder(rest: str) -> Path:
    package, _, inner = rest.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(
            "NO_SUCH_PACKAGE",
            f"The Python package {package!r} is not installed: pip install {package.replace('_', '-')}.",
        )
    root = Path(next(iter(spec.submodule_search_locations))).resolve()
    folder = (root / inner).resolve()
    if not folder.is_relative_to(root):
        raise InvalidArgument("BAD_LOCATION", f"package:{rest} leaves its package.", field="location")
    return _folder(str(folder))


def _folder(path: str) -> Path:
    folder = Path(os.path.expanduser(path))  # leaves "~nobody" as it is
    if not os.path.isdir(folder):
        raise NotFound("NO_SUCH_FOLDER", f"There is no folder {folder}.")
    if not any(folder.rglob("*.safetensors")) and not gguf_file(folder):
        raise FailedPrecondition(
            "NO_SAFETENSORS",
            f"{folder} holds no .safetensors file, and not one .gguf; other formats can run code and are not read.",
        )
    return folder


def _from_hub(name: str, settings: Settings, max_bytes: int | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if settings.hub_offline:
        folder = cached(name, settings)
        if folder is None:
            raise _offline(name)
        return folder
    repo, _, revision = name.partition("@")
    disable_progress_bars()
    try:
        _check_on_hub(repo, revision, settings, max_bytes)
        # By its name, not by the commit: else the cache does not know it when the hub is away.
        return Path(
            snapshot_download(
                repo,
                revision=revision or None,
                cache_dir=settings.hub_cache,
                endpoint=settings.hub_url,
                token=settings.hub_token.get_secret_value() or None,
                allow_patterns=HUB_PATTERNS,
            )
        )
    except P2MError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise from_os_error(error, f"Downloading {repo}") from error
        raise hub_error(error, repo, settings) from error


def _check_on_hub(repo: str, revision: str, settings: Settings, max_bytes: int | None) -> None:
    """FailedPrecondition where the weights are missing or too large."""
    from huggingface_hub import HfApi

    token = settings.hub_token.get_secret_value() or None
    info: Any = HfApi(endpoint=settings.hub_url, token=token).model_info(
        repo, revision=revision or None, files_metadata=True
    )
    sizes = [file.size or 0 for file in info.siblings or [] if file.rfilename.endswith(".safetensors")]
    if not sizes:
        raise FailedPrecondition(
            "NO_SAFETENSORS",
            f"{repo} has no .safetensors weights; other formats can run code and are not read. Take another model.",
        )
    if max_bytes is not None and sum(sizes) > max_bytes:
        raise FailedPrecondition(
            "MODEL_TOO_LARGE",
            f"{repo} has {sum(sizes):,} bytes of weights; the limit is {max_bytes:,}. Raise it or take another.",
        )
