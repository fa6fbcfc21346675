"""An exported model, ready to answer.

    Exported(folder, settings) ── answer, ceiling      what `predict.Model` has
    ├── folder/onnx/              by `runtime_onnx`
    └── folder/ctranslate2/       by `runtime_ctranslate2`

It reads the same tokens as the model that it was made of and writes them greedily too, so that a difference between
their answers is one of the weights' precision.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.evaluator.runtime_ctranslate2 import CTranslate2Runtime
from services.evaluator.runtime_onnx import OnnxRuntime
from services.kit import encoding
from services.kit.errors import FailedPrecondition
from services.kit.settings import Settings
from services.kit.values import PromptSpec

DESCRIPTION = "export.json"
_RUNTIMES = ("onnx", "ctranslate2")
_BATCH_SIZE = 64


def is_exported(folder: Path) -> bool:
    """Whether the model in `folder` is in a format that transformers does not load."""
    return any((folder / name / DESCRIPTION).is_file() for name in _RUNTIMES)


class Exported:
    """An exported model with its tokenizer. Raises FailedPrecondition: BAD_MODEL, NO_RUNTIME."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        from transformers import AutoTokenizer

        threads = settings.threads or os.cpu_count() or 1
        part = next(folder / name for name in _RUNTIMES if (folder / name / DESCRIPTION).is_file())
        try:
            self._described = json.loads((part / DESCRIPTION).read_text(encoding="utf-8"))
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            self._runtime: Any = (
                OnnxRuntime(part, self._described, threads)
                if part.name == "onnx"
                else CTranslate2Runtime(part, self._described, threads, self.tokenizer)
            )
        except ImportError as error:
            raise FailedPrecondition(
                "NO_RUNTIME",
                f"A model in the format {part.name} needs the package {error.name}: pip install '{error.name}'.",
            ) from error
        except Exception as error:  # both runtimes raise errors of their own, of no common kind
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise FailedPrecondition("BAD_MODEL", f"The exported model cannot be loaded: {first_line}") from error

    @property
    def runtime(self) -> str:
        """What runs it, with its version."""
        return str(self._runtime.name)

    def answer(
        self,
        spec: PromptSpec,
        inputs: tuple[str, ...],
        batch_size: int = _BATCH_SIZE,
        after_batch: Callable[[int], None] = lambda done: None,
    ) -> list[str]:
        """One output for each input, in their order; `after_batch` is told how many are done."""
        kind, limit = self._described["kind"], self._described["max_input_tokens"]
        if kind == "classifier":
            encoded = encoding.encode_alone(self.tokenizer, inputs, limit)
        else:
            encode = encoding.encode_prompts if kind == "decoder-only" else encoding.encode_inputs
            encoded = encode(self.tokenizer, spec, inputs, limit)
        order = sorted(range(len(encoded)), key=lambda number: -len(encoded[number]))
        outputs = [""] * len(encoded)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            rows = [encoded[number] for number in chosen]
            for number, output in zip(chosen, self._written(rows), strict=True):
                outputs[number] = output
            after_batch(start + len(chosen))
        return outputs

    def ceiling(self, answers: tuple[tuple[str, ...], ...]) -> float:
        """0: what the tokenizer can write is the student's, and measured there."""
        return 0.0

    def _written(self, rows: list[list[int]]) -> list[str]:
        if self._described["kind"] == "classifier":
            return [self._described["labels"][number] for number in self._runtime.classify(rows)]
        return encoding.decode(self.tokenizer, self._runtime.generate(rows))
