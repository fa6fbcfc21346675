"""Low-rank adapters (LoRA; Hu et al., 2021): few weights are trained beside the frozen ones, and merged at the end.

    with_lora(student) ── the model to train          merged(model) ── a plain model of the same architecture
"""

from __future__ import annotations

from typing import Any

from services.trainer.pretrained import Student

RANK, ALPHA = 16, 32


def with_lora(student: Student) -> Any:
    """The student's model with adapters on all its linear layers but the output; a head for labels is trained whole."""
    from peft import LoraConfig, get_peft_model

    # "all-linear" leaves out the output embeddings, takes GPT-2's Conv1D for linear, and knows both halves of a pair.
    return get_peft_model(
        student.model,
        LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", modules_to_save=_new_heads(student) or None
        ),
    )  # fmt: skip


def merged(model: Any) -> Any:
    """The model with its adapters added into its weights."""
    return model.merge_and_unload()


def _new_heads(student: Student) -> list[str]:
    """The names of the layers that were drawn anew: RoBERTa's whole classifier, BERT's last layer."""
    return ["classifier"] if student.labels else []
