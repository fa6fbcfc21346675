"""Export: a trained model in another format.

    export(request, context)
    ├── safetensors, safetensors bf16    weights converted; transformers loads the folder as it is
    ├── onnx, onnx int8                  `export_onnx`: <folder>/onnx/, the weights in graphs
    └── ctranslate2 int8                 `export_ctranslate2`: <folder>/ctranslate2/

The tokenizer, the config and the generation config stay where they are, so every format is read and written with the
same tokens. Nothing is pickled and no code is in the folder.
"""

from __future__ import annotations

import shutil
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
    """Converts the model's weights; every other file stays as it is.

    Raises InvalidArgument without a format; FailedPrecondition where the folder is no model (NO_SAFETENSORS) or the
    format does not take its architecture (EXPORT_UNSUPPORTED).
    """
    formats = tuple(one for one in ExportFormat if one)
    if request.format not in formats:
        names = ", ".join(one.name.lower().replace("_", " ") for one in formats)
        raise InvalidArgument("NO_FORMAT", f"The format is not set; wanted one of: {names}.", field="format")
    artifacts = Artifacts.open(context.settings, "trainer")
    with tempfile.TemporaryDirectory(prefix="p2m-export-") as name:
        folder = artifacts.fetch(request.model, Path(name) / "model")
        weights = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
        if not weights:
            raise FailedPrecondition(
                "NO_SAFETENSORS", f"{request.model.uri} holds no .safetensors file: it is no model."
            )
        if request.format in _TYPES:
            for number, path in enumerate(weights):
                context.raise_if_stopping()
                context.report(Progress(number, len(weights), "files", "converting"))
                _convert(path, _TYPES[request.format])
            return ExportResult(artifacts.put_folder(folder))
        out = Path(name) / "exported"
        _rewrite(folder, out, request.format, context)
        return ExportResult(artifacts.put_folder(out))


def _rewrite(folder: Path, out: Path, wanted: ExportFormat, context: WorkerContext) -> None:
    """The model with its weights in a folder of the format's own."""
    torch.set_num_threads(context.settings.threads or torch.get_num_threads())
    out.mkdir()
    for path in folder.iterdir():
        if path.is_file() and ".safetensors" not in path.name:
            shutil.copy(path, out)

    def after_part(done: int, total: int, message: str) -> None:
        context.raise_if_stopping()
        context.report(Progress(done, total, "files", message))

    if wanted == ExportFormat.CTRANSLATE2_INT8:
        from services.trainer import export_ctranslate2

        after_part(0, 1, "converting to CTranslate2")
        export_ctranslate2.export(folder, out / "ctranslate2")
        return
    from services.trainer import export_onnx

    export_onnx.export(folder, out / "onnx", wanted == ExportFormat.ONNX_INT8, after_part)


def _convert(path: Path, to: torch.dtype) -> None:
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise FailedPrecondition("NO_SAFETENSORS", f"{path.name} is no safetensors file: {error}") from error
    converted = {name: tensor.to(to) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(converted, path, metadata={"format": "pt"})
