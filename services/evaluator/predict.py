"""A trained model answers inputs; runs in a child process.

    answer(job, context)     all inputs once: a contestant
    Predictor                a model that stays loaded: the demo
    Model ── answer          greedy, in batches of like length; a finished row leaves its batch (`greedy`)
    loaded(folder, ...)      that, a `classifier.Classifier` where the folder's model picks a label, or an
                             `exported.Exported` where it is ONNX or CTranslate2

Any other model is a folder that plain transformers loads. Answers depend on nothing but the model and the inputs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.evaluator.classifier import Classifier
from services.evaluator.exported import Exported, is_exported
from services.evaluator.greedy import greedy
from services.evaluator.products import many_rows
from services.kit import encoding
from services.kit.errors import FailedPrecondition, P2MError
from services.kit.settings import Settings
from services.kit.values import Progress, PromptSpec
from services.kit.worker import WorkerContext

# The trainer's defaults, for a model that names no limits of its own.
MAX_INPUT_TOKENS = 512
MAX_OUTPUT_TOKENS = 128
BATCH_SIZE = 64


@dataclass(frozen=True)
class AnswerJob:
    """Inputs for the model in `folder`. `answers`: the right ones of each row, to find the ceiling; () to skip that."""

    name: str
    folder: str
    spec: PromptSpec
    inputs: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Answers:
    """Outputs in the order of the inputs. `ceiling`: percent of rows with an answer that the tokenizer can write."""

    outputs: tuple[str, ...] = ()
    ceiling: float = 0.0
    seconds: float = 0.0


def answer(job: AnswerJob, context: WorkerContext) -> Answers:
    """Answers the job's inputs. Raises FailedPrecondition for a folder that holds no model."""
    model = loaded(Path(job.folder), context.settings)
    began = time.monotonic()

    def after_batch(done: int) -> None:
        context.raise_if_stopping()
        context.report(Progress(done, len(job.inputs), "rows", f"{job.name} answers"))

    outputs = model.answer(job.spec, job.inputs, after_batch=after_batch)
    return Answers(tuple(outputs), model.ceiling(job.answers), time.monotonic() - began)


class Predictor:
    """Keeps the model that it answered with last."""

    def __init__(self, settings: Settings) -> None:
        import transformers  # noqa: F401  the first answer should not wait for it

        self._settings = settings
        self._folder = ""
        self._model: Model | Classifier | Exported | None = None

    def answer(self, request: AnswerJob) -> Answers:
        """The outputs for the request's inputs; loads its model where another one is loaded."""
        if self._model is None or self._folder != request.folder:
            self._model = loaded(Path(request.folder), self._settings)
            self._folder = request.folder
        began = time.monotonic()
        outputs = self._model.answer(request.spec, request.inputs)
        return Answers(tuple(outputs), 0.0, time.monotonic() - began)


def loaded(folder: Path, settings: Settings) -> Model | Classifier | Exported:
    """The model in `folder`. Raises FailedPrecondition (BAD_MODEL) where none can be loaded."""
    try:
        return _loaded(folder, settings)
    except (P2MError, MemoryError):
        raise
    except Exception as error:  # there is no end to what a damaged model makes its libraries raise
        raise _bad_model(error) from error


def _loaded(folder: Path, settings: Settings) -> Model | Classifier | Exported:
    if is_exported(folder):
        return Exported(folder, settings)
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if not encoding.labels_of(config):
        return Model(folder, settings)
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    return Classifier(folder, config, "cuda" if torch.cuda.is_available() else "cpu")


def _bad_model(error: Exception) -> FailedPrecondition:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return FailedPrecondition("BAD_MODEL", f"The model cannot be loaded by transformers: {first_line[:300]}")


class Model:
    """A sequence-to-sequence or decoder-only model with its tokenizer, ready to answer."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

        torch.set_num_threads(settings.threads or os.cpu_count() or 1)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            self.decoder_only = not config.is_encoder_decoder
            kind = AutoModelForCausalLM if self.decoder_only else AutoModelForSeq2SeqLM
            self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model = kind.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise _bad_model(error) from error
        self.model = model.to(self.device).eval()
        generation = self.model.generation_config
        generation.update(do_sample=False, num_beams=1, max_new_tokens=generation.max_new_tokens or MAX_OUTPUT_TOKENS)
        self.pad = next(
            token
            for token in (self.tokenizer.pad_token_id, generation.pad_token_id, generation.eos_token_id, 0)
            if isinstance(token, int)
        )
        self.max_input_tokens = self._most_input_tokens()

    def answer(
        self,
        spec: PromptSpec,
        inputs: tuple[str, ...],
        batch_size: int = BATCH_SIZE,
        after_batch: Callable[[int], None] = lambda done: None,
    ) -> list[str]:
        """One output for each input, in their order; `after_batch` is told how many are done."""
        encode = encoding.encode_prompts if self.decoder_only else encoding.encode_inputs
        encoded = encode(self.tokenizer, spec, inputs, self.max_input_tokens)
        # Rows of like length together, so that little is padding; the longest first, so that memory fails at once.
        order = sorted(range(len(encoded)), key=lambda number: -len(encoded[number]))
        outputs = [""] * len(encoded)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for number, output in zip(chosen, self._generate([encoded[number] for number in chosen]), strict=True):
                outputs[number] = output
            after_batch(start + len(chosen))
        return outputs

    def ceiling(self, answers: tuple[tuple[str, ...], ...]) -> float:
        """Percent of rows of which some answer comes back unchanged from the tokenizer and is not too long."""
        return encoding.ceiling(self.tokenizer, answers, self.model.generation_config.max_new_tokens)

    def _generate(self, rows: list[list[int]]) -> list[str]:
        import torch

        width = max(map(len, rows))
        padding = [[self.pad] * (width - len(row)) for row in rows]
        # A decoder goes on at the right end, so its padding is on the left.
        tokens = [pad + row if self.decoder_only else row + pad for pad, row in zip(padding, rows, strict=True)]
        read = [[0] * len(pad) + [1] * len(row) for pad, row in zip(padding, rows, strict=True)]
        mask = torch.tensor(read if self.decoder_only else [row[::-1] for row in read], device=self.device)
        with torch.inference_mode(), many_rows():
            written: Any = self.model.generate(
                input_ids=torch.tensor(tokens, device=self.device), attention_mask=mask, pad_token_id=self.pad,
                custom_generate=greedy,
            )  # fmt: skip
        return encoding.decode(self.tokenizer, written[:, width if self.decoder_only else 0 :].tolist())

    def _most_input_tokens(self) -> int:
        config = self.model.config
        reader = getattr(config, "encoder", config)
        positions = getattr(reader, "max_position_embeddings", None) or MAX_INPUT_TOKENS
        if "roberta" in reader.model_type:
            positions -= 2  # its positions begin after the padding token's
        if self.decoder_only:
            positions -= self.model.generation_config.max_new_tokens  # both share the positions
        return max(1, min(MAX_INPUT_TOKENS, int(positions), int(self.tokenizer.model_max_length)))
