"""A catalogue entry for a model folder of the user's own, by what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from catalogue import architectures


def from_folder(folder: Path) -> dict[str, Any]:
    """The entry. Its architecture is the kind of training that fits, or, where none does, what the config says."""
    config = _config(folder)
    return {
        "id": f"folder:{folder}",
        "description": f"The model in {folder}.",
        "location": f"folder:{folder}",
        "size_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "architecture": architectures.kind(config) or (architectures.unfit(config) if config else ""),
        "safetensors": any(folder.glob("*.safetensors")),
    }


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}
