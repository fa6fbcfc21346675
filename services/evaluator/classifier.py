"""A model that picks a label: one forward pass a batch, no text to write.

    Classifier ── answer, ceiling     what `predict.Model` has, for a folder whose config names labels

It reads the input alone, without the instruction (see services/kit/encoding.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from services.evaluator.products import many_rows
from services.kit import encoding
from services.kit.values import PromptSpec

# Of memory there is enough for more rows than when texts are written: nothing is kept from step to step.
BATCH_SIZE = 128


class Classifier:
    """A model with a head for labels, and its tokenizer, on `device`. Raises what `from_pretrained` raises."""

    def __init__(self, folder: Path, config: Any, device: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.labels = encoding.labels_of(config)
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False
        )
        self.model = model.to(device).eval()

    def answer(
        self,
        spec: PromptSpec,
        inputs: tuple[str, ...],
        batch_size: int = BATCH_SIZE,
        after_batch: Callable[[int], None] = lambda done: None,
    ) -> list[str]:
        """One label for each input, in their order; `after_batch` is told how many are done. `spec` is not read."""
        import torch

        encoded = encoding.encode_alone(self.tokenizer, inputs, int(self.tokenizer.model_max_length))
        order = sorted(range(len(encoded)), key=lambda number: -len(encoded[number]))
        outputs = [""] * len(encoded)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            width = max(len(encoded[number]) for number in chosen)
            read = [encoded[number] for number in chosen]
            pad = self.tokenizer.pad_token_id
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in read], device=self.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in read], device=self.device)
            with torch.inference_mode(), many_rows():
                picked = self.model(input_ids=ids, attention_mask=mask).logits.argmax(-1).tolist()
            for number, label in zip(chosen, picked, strict=True):
                outputs[number] = self.labels[label]
            after_batch(start + len(chosen))
        return outputs

    def ceiling(self, answers: tuple[tuple[str, ...], ...]) -> float:
        """Percent of rows of which some answer is one of the labels."""
        if not answers:
            return 0.0
        return 100.0 * sum(any(text.strip() in self.labels for text in right) for right in answers) / len(answers)
