"""A trained model in CTranslate2's format with 8-bit weights: small, and the fastest there is on a CPU.

    export(folder, out)      writes out/model.bin, its vocabulary and its config, and out/export.json

CTranslate2 has code of its own for each family, so only the families in `FAMILIES` can be converted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig

from services.kit.errors import FailedPrecondition
from services.trainer.export_onnx import DESCRIPTION, describe, kind_of

# Model types of transformers that CTranslate2 writes text with.
FAMILIES = (
    "t5", "mt5", "umt5", "bart", "mbart", "marian", "pegasus", "m2m_100", "gpt2", "llama", "mistral", "qwen2", "qwen3",
    "gemma", "gemma2", "gpt_neox", "gpt_bigcode", "opt", "phi", "phi3",
)  # fmt: skip


def export(folder: Path, out: Path, quantization: str = "int8") -> None:
    """Converts the model in `folder`. Raises FailedPrecondition (EXPORT_UNSUPPORTED) for another family."""
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    kind = kind_of(folder)
    if kind == "classifier" or config.model_type not in FAMILIES:
        what = "classifiers" if kind == "classifier" else f"models of the kind {config.model_type!r}"
        raise FailedPrecondition(
            "EXPORT_UNSUPPORTED",
            f"CTranslate2 has no converter for {what}; it takes {', '.join(FAMILIES)}. Take the format onnx-int8: it "
            "is for all.",
            field="format",
        )
    try:
        _converter(folder).convert(str(out), quantization=quantization, force=True)
    except (ValueError, NotImplementedError, AttributeError, KeyError, TypeError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise FailedPrecondition(
            "EXPORT_UNSUPPORTED", f"CTranslate2 cannot convert this model: {first_line} Take the format onnx-int8."
        ) from error
    _name_every_token(out / "config.json")
    described = describe(folder, kind, f"ctranslate2-{quantization}")
    (out / DESCRIPTION).write_text(json.dumps(described, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _converter(folder: Path) -> Any:
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc]
        """Gives BART's config what transformers 5 no longer has in it and the converter reads."""

        def load_model(self, model_class: Any, path: str, **options: Any) -> Any:
            model = super().load_model(model_class, path, **options)
            if model.config.model_type == "bart" and not hasattr(model.config, "normalize_before"):
                model.config.normalize_before = False
            return model

    return Converter(str(folder))


def _name_every_token(path: Path) -> None:
    """Writes the end token where the tokenizer has no other, since CTranslate2 reads no null."""
    config = json.loads(path.read_text(encoding="utf-8"))
    filled = {
        name: config["eos_token"] if value is None and name.endswith("_token") else value
        for name, value in config.items()
    }
    path.write_text(json.dumps(filled, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
