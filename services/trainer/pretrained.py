"""Pretrained models made ready to be trained on text to text.

    load(folder, seed, ...) ── Student       the model, its tokenizer, and how texts become its tokens
    save(student, folder)                    what plain `transformers` loads: safetensors, config, tokenizer, generation

    encoder-decoder (T5, BART, ...)          as it is
    decoder-only (GPT-2, Llama, ...)         as it is
    encoder alone (BERT, RoBERTa, ...)       becomes an encoder-decoder: both halves start from it, and the decoder's
                                             attention to the encoder starts as a copy of its attention to itself: from
                                             a random start (Rothe et al., 2020) a small one does not learn
    encoder alone, outputs that are labels   gets a head that picks one: see `classify`

Only safetensors and GGUF are read and a model's own code is never run. A GGUF file's numbers are mostly packed in a
few bits; training needs them whole, so what is saved is larger than what was read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    EncoderDecoderModel,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from services.kit import encoding
from services.kit.errors import FailedPrecondition, P2MError
from services.kit.locations import gguf_file
from services.kit.values import PromptSpec
from services.trainer import classify

# Encoders of which transformers has a decoder with cross-attention.
ENCODERS = ("bert", "camembert", "electra", "ernie", "megatron-bert", "rembert", "roberta", "xlm-roberta")
# Their positions begin after the padding token's.
_OFFSET_POSITIONS = ("camembert", "roberta", "xlm-roberta")
_RELATIVE_POSITIONS = ("t5", "mt5", "umt5", "longt5", "switch_transformers")

DEFAULT_INPUT_TOKENS = 512
DEFAULT_OUTPUT_TOKENS = 128
# Every model must be able to read at least this much, whatever its outputs take.
_LEAST_INPUT_TOKENS = 8
# More than the longest training output, so that a somewhat longer answer is not cut.
_LEAST_MARGIN = 8


@dataclass
class Student:
    """A model in training. `start` is the decoder's first token, None for a decoder-only model.

    With `labels` it writes no text but picks one of them: then a row's output is the label's number. `new_decoder`: its
    decoder was never trained to write from what is read.
    """

    model: Any
    tokenizer: Any
    decoder_only: bool
    eos: int
    pad: int
    start: int | None
    max_input_tokens: int
    max_output_tokens: int
    labels: tuple[str, ...] = ()
    new_decoder: bool = False

    def encode(
        self, spec: PromptSpec, inputs: Sequence[str], outputs: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """Each row's tokens: what is read, and what is to be written after it."""
        read = self.encode_inputs(spec, inputs, self.max_input_tokens)
        if self.labels:
            numbers = {label: number for number, label in enumerate(self.labels)}
            return [(tokens, [numbers[output.strip()]]) for tokens, output in zip(read, outputs, strict=True)]
        prefix: list[int] = []
        if not self.decoder_only:
            # BART's outputs begin with <s>; BERT's [CLS] is the decoder's start token, which is put there anyway.
            prefix = [token for token in encoding.special_tokens(self.tokenizer)[0] if token != self.start]
        written = encoding.encode_outputs(self.tokenizer, outputs, self.max_output_tokens, eos=self.eos, prefix=prefix)
        return list(zip(read, written, strict=True))

    def encode_inputs(self, spec: PromptSpec, inputs: Sequence[str], max_tokens: int) -> list[list[int]]:
        """What the model reads for each input, at most `max_tokens` tokens."""
        if self.labels:
            return encoding.encode_alone(self.tokenizer, inputs, max_tokens)
        encode = encoding.encode_prompts if self.decoder_only else encoding.encode_inputs
        return encode(self.tokenizer, spec, inputs, max_tokens)


def load(
    folder: Path,
    seed: int,
    max_input_tokens: int | None = None,
    max_output_tokens: int | None = None,
    labels: Mapping[str, float] | None = None,
) -> Student:
    """The student in `folder`, in 32 bits, on the CPU. `seed` draws the weights that it lacks.

    `labels`, each with its share of the training rows, are for an encoder, which then gets a head for them; any other
    model writes them as text. The limits are cut to what the model can take. FailedPrecondition:
    UNSUPPORTED_ARCHITECTURE, BAD_MODEL.
    """
    transformers.logging.set_verbosity_error()  # of an encoder-decoder made here it reports every new weight
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(seed)
    try:
        if gguf := gguf_file(folder):
            model, tokenizer = _from_gguf(folder, gguf)
            return _ready(folder, model, tokenizer, max_input_tokens, max_output_tokens)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if labels and _is_encoder(config):
            return _with_labels(folder, config, tokenizer, labels, max_input_tokens)
        model = _model(folder, config, tokenizer)
    except (P2MError, MemoryError):
        raise
    except Exception as error:  # there is no end to what a damaged model makes its libraries raise
        raise FailedPrecondition(
            "BAD_MODEL", f"The model in {folder} cannot be loaded: {_first_line(error)} Take another model."
        ) from error
    student = _ready(folder, model, tokenizer, max_input_tokens, max_output_tokens)
    student.new_decoder = _is_encoder(config)
    return student


def _ready(
    folder: Path, model: Any, tokenizer: Any, max_input_tokens: int | None, max_output_tokens: int | None
) -> Student:
    """The student of a loaded model: its special tokens, its limits, how it generates."""
    decoder_only = not model.config.is_encoder_decoder
    if not decoder_only and (glued := encoding.with_glue(tokenizer)):
        tokenizer = _rebuilt(tokenizer, glued)
    eos = _first(model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id)
    if eos is None:
        raise FailedPrecondition(
            "BAD_MODEL", f"The model in {folder} has no end-of-sequence token. Take another model."
        )
    pad = _first(tokenizer.pad_token_id, model.config.pad_token_id)
    if pad is None:
        pad = eos
    start = (
        None
        if decoder_only
        else _first(model.generation_config.decoder_start_token_id, model.config.decoder_start_token_id)
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    if decoder_only:
        tokenizer.padding_side = "left"  # generation goes on at the right end
    most_read, most_written = _limits(model, max_input_tokens, max_output_tokens)
    _set_generation(model, eos, pad, start, most_written)
    model.float().train()
    return Student(model, tokenizer, decoder_only, eos, pad, start, most_read, most_written)


def limit_answers(student: Student, longest: int) -> str:
    """Has the model write at most half as much again as the `longest` training output; one sentence, "" of labels.

    `longest` is in tokens, the end included. A model that never learned to stop, the untuned base above all, would
    else write up to its limit after every row: most of the time of an evaluation.
    """
    if student.labels:
        return ""
    generation = student.model.generation_config
    most = min(student.max_output_tokens, longest + max(_LEAST_MARGIN, longest // 2))
    if most < generation.max_new_tokens:
        generation.max_new_tokens = most
    return (
        f"Base and student write at most {generation.max_new_tokens} tokens; the longest training output has "
        f"{longest}. A right answer that needs more cannot be matched."
    )


def save(student: Student, folder: Path) -> None:
    """Writes the model, its tokenizer and its generation config; transformers loads the folder with nothing of ours.

    The tokenizer's `model_max_length` is the most tokens of an input, so that whoever uses the model cuts where
    training did.
    """
    student.tokenizer.model_max_length = student.max_input_tokens
    student.model.save_pretrained(folder, max_shard_size="1TB")
    student.tokenizer.save_pretrained(folder)
    # How this machine found the tokenizer says nothing of the model, and would change its digest.
    written = folder / "tokenizer_config.json"
    config = json.loads(written.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in ("local_files_only", "is_local")}
    written.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _model(folder: Path, config: Any, tokenizer: Any) -> Any:
    if config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return _complete(AutoModelForSeq2SeqLM, folder)
    if _is_encoder(config):
        return _from_encoder(folder, tokenizer)
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return _complete(AutoModelForCausalLM, folder)
    raise FailedPrecondition(
        "UNSUPPORTED_ARCHITECTURE",
        f"The model in {folder} is of the kind {config.model_type!r}, which writes no text. Wanted an encoder-decoder, "
        f"a decoder, or one of the encoders {', '.join(ENCODERS)}.",
    )


def _is_encoder(config: Any) -> bool:
    generates = any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or ())
    return config.model_type in ENCODERS and not generates


def _with_labels(
    folder: Path, config: Any, tokenizer: Any, labels: Mapping[str, float], max_input_tokens: int | None
) -> Student:
    model = classify.load(folder, tuple(labels), tuple(labels.values()), config, tokenizer)
    most_read = min(max_input_tokens or DEFAULT_INPUT_TOKENS, _positions(config))
    pad = int(tokenizer.pad_token_id)
    return Student(model.float().train(), tokenizer, False, pad, pad, None, most_read, 1, tuple(labels))


def _from_gguf(folder: Path, name: str) -> tuple[Any, Any]:
    """The decoder and its tokenizer in a GGUF file, its weights as 32-bit numbers whatever they were packed in."""
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    unpacked = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # transformers holds the unpacked model for a quantized one for ever: a new one takes over its weights.
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, gguf_file=name), dtype=torch.float32)
    model.load_state_dict(unpacked.state_dict())
    return model, tokenizer


def _complete(auto_class: Any, folder: Path) -> Any:
    """The model, all of whose weights must be in the files."""
    model, info = auto_class.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise FailedPrecondition(
            "BAD_MODEL", f"The files in {folder} lack {len(info['missing_keys'])} weights of the model: {missing}, ..."
        )
    return model


def _from_encoder(folder: Path, tokenizer: Any) -> Any:
    """An encoder-decoder both halves of which are the encoder in `folder`, without dropout.

    Such a pair first has to find out that its decoder can look at the input. Dropout hides that from it: on dates, with
    one seed, the loss left its plateau (2.3) after about 50 steps without, and after about 150 with a tenth of it.
    """
    safe = {
        "use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    encoder = AutoModel.from_pretrained(folder, **safe)
    decoder, info = AutoModelForCausalLM.from_pretrained(
        folder, is_decoder=True, add_cross_attention=True, output_loading_info=True, **safe
    )
    for layer in decoder.modules():
        if hasattr(layer, "crossattention"):
            layer.crossattention.load_state_dict(layer.attention.state_dict())
    _pass_through(decoder, set(info["missing_keys"]))
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = _first(tokenizer.cls_token_id, tokenizer.bos_token_id)
    model.config.eos_token_id = _first(tokenizer.sep_token_id, tokenizer.eos_token_id)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.vocab_size = model.config.decoder.vocab_size
    return model


def _pass_through(decoder: Any, missing: set[str]) -> None:
    """Makes the output head's own layer, where the files lack it, the identity.

    Drawn at random it hides the layers below from the word embeddings above: with the identity the loss on dates was
    0.5 after 75 steps, where it stood at 2.4.
    """
    for name, layer in decoder.named_modules():
        square = isinstance(layer, torch.nn.Linear) and layer.in_features == layer.out_features
        if square and f"{name}.weight" in missing and "crossattention" not in name:
            torch.nn.init.eye_(layer.weight)
            torch.nn.init.zeros_(layer.bias)


def _rebuilt(tokenizer: Any, serialised: str) -> Any:
    """The tokenizer with another backend. Its own class would build its usual one again on loading."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(serialised),
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
        **tokenizer.special_tokens_map,
    )


def _limits(model: Any, max_input_tokens: int | None, max_output_tokens: int | None) -> tuple[int, int]:
    """The most tokens to read and to write: what was asked for, else the defaults, within the model's positions."""
    config = model.config
    reads = _positions(getattr(config, "encoder", config))
    writes = _positions(getattr(config, "decoder", config))
    output = min(max_output_tokens or min(DEFAULT_OUTPUT_TOKENS, writes // 4), writes - _LEAST_INPUT_TOKENS)
    if not config.is_encoder_decoder:
        reads -= output  # both share the positions
    return min(max_input_tokens or DEFAULT_INPUT_TOKENS, reads), output


def _positions(config: Any) -> int:
    """How many tokens a half can take; very many where its positions are relative."""
    if config.model_type in _RELATIVE_POSITIONS:
        return 1 << 30
    positions = int(getattr(config, "max_position_embeddings", None) or 1 << 30)
    return positions - 2 if config.model_type in _OFFSET_POSITIONS else positions


def _set_generation(model: Any, eos: int, pad: int, start: int | None, max_new_tokens: int) -> None:
    """Greedy, up to `max_new_tokens`. What the model brought for its own task (least lengths, beams) goes."""
    before = model.generation_config
    model.config.pad_token_id = pad
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens, num_beams=1, do_sample=False, eos_token_id=eos, pad_token_id=pad,
        bos_token_id=before.bos_token_id, decoder_start_token_id=start, forced_bos_token_id=before.forced_bos_token_id,
    )  # fmt: skip


def _first(*values: Any) -> int | None:
    """The first that is set; of a list its first."""
    for value in values:
        if isinstance(value, list) and value:
            return int(value[0])
        if isinstance(value, int):
            return value
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
