"""Export: a trained model in another format, which transformers loads as it is."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.values import Progress
from services.kit.worker import WorkerContext
from services.trainer.calls import ExportFormat, ExportRequest, ExportResult

_TYPES = {ExportFormat.SAFETENSORS: torch.float32, ExportFormat.SAFETENSORS_BF16: torch.bfloat16}


def export(request: ExportRequest, context: WorkerContext) -> ExportResult:
    """Converts the floating-point weights; every other file stays as it is.

    Raises InvalidArgument without a format, FailedPrecondition (NO_SAFETENSORS) where the folder is no model.
    """
    if request.format not in _TYPES:
        raise InvalidArgument(
            "NO_FORMAT", "The format is not set; wanted safetensors or safetensors bf16.", field="format"
        )
    artifacts = Artifacts.open(context.settings, "trainer")
    with tempfile.TemporaryDirectory(prefix="p2m-export-") as name:
        folder = artifacts.fetch(request.model, Path(name) / "model")
        weights = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
        if not weights:
            raise FailedPrecondition(
                "NO_SAFETENSORS", f"{request.model.uri} holds no .safetensors file: it is no model."
            )
        for number, path in enumerate(weights):
            context.raise_if_stopping()
            context.report(Progress(number, len(weights), "files", "converting"))
            _convert(path, _TYPES[request.format])
        return ExportResult(artifacts.put_folder(folder))


def _convert(path: Path, to: torch.dtype) -> None:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise FailedPrecondition("NO_SAFETENSORS", f"{path.name} is no safetensors file: {error}") from error
    converted = {name: tensor.to(to) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(converted, path, metadata={"format": "pt"})
