"""Low-rank adapters (LoRA; Hu et al., 2021): few weights are trained beside the frozen ones, and merged at the end.

with_lora(student) ── the model to train          merged(model) ── a plain model of the same architecture
with_qlora(student, ...) ── likewise, the frozen weights in 4 bits (QLoRA; Dettmers et al., 2023), on CUDA alone
                                                  merged_into(model, whole) ── the whole weights with the adapters
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import torch

from services.kit.errors import FailedPrecondition
from services.trainer import pretrained
from services.trainer.pretrained import Student

RANK, ALPHA = 16, 32


def with_lora(student: Student) -> Any:
    """The student's model with adapters on all its linear layers but the output; a head for labels is trained whole."""
    from peft import get_peft_model

    return get_peft_model(student.model, _config(student))


def merged(model: Any) -> Any:
    """The model with its adapters added into its weights."""
    return model.merge_and_unload()


def check_qlora() -> None:
    """FailedPrecondition (NO_CUDA, NO_BITSANDBYTES) where weights in 4 bits cannot be computed with."""
    if not torch.cuda.is_available():
        raise FailedPrecondition(
            "NO_CUDA", "QLoRA needs an NVIDIA GPU with CUDA, and torch finds none here. Take --lora instead."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise FailedPrecondition(
            "NO_BITSANDBYTES", "QLoRA needs the Python package bitsandbytes: pip install bitsandbytes, or take --lora."
        )


def with_qlora(student: Student, folder: Path, device: str = "cuda") -> Any:
    """A copy of the student's model with its weights in 4 bits (NF4) and adapters on them; `folder` is for its files.

    The student's own model stays whole, on the CPU, for `merged_into`.
    """
    from peft import get_peft_model, prepare_model_for_kbit_training
    from transformers import BitsAndBytesConfig

    packing = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as name:
        pretrained.save(student, Path(name))
        packed = type(student.model).from_pretrained(
            name, quantization_config=packing, device_map={"": device}, use_safetensors=True
        )
    packed = prepare_model_for_kbit_training(packed, use_gradient_checkpointing=False)
    return get_peft_model(packed, _config(student))


def merged_into(model: Any, whole: Student) -> Any:
    """The whole weights with the adapters that were trained beside their copy in fewer bits."""
    learned = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    adapted = with_lora(whole)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                weight.copy_(learned[name])
    return merged(adapted)


def _config(student: Student) -> Any:
    from peft import LoraConfig

    # "all-linear" leaves out the output embeddings, takes GPT-2's Conv1D for linear, and knows both halves of a pair.
    # A head for labels was drawn anew: it goes by this name in all encoders.
    heads = ["classifier"] if student.labels else None
    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", modules_to_save=heads)
