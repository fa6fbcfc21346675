"""A trained model as ONNX graphs, which onnxruntime runs without torch or transformers' own code.

    export(folder, out, int8)      writes out/*.onnx and out/export.json

    encoder-decoder    encoder.onnx   input_ids, attention_mask -> cross.<layer>.key, .value: what the decoder reads
                       decoder.onnx   input_ids (one token each), attention_mask (the encoder's), past.*, cross.*
                                      -> logits (of the last token), present.*
    decoder-only       decoder.onnx   input_ids, attention_mask (past and new), past.* -> logits (the last's), present.*
    classifier         classifier.onnx   input_ids, attention_mask -> logits

Keys and values of past tokens go in and come out, so that each step reads one token; a first step has pasts of length
0. The encoder's graph has the decoder's projections of what it read too: they are the same in every step.

8 bits: weights by channel, activations when they come (dynamic quantisation), in 7 bits of the weights' 8, since
processors without VNNI add two products in 16 bits and would overflow.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.export import Dim
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DynamicCache,
    EncoderDecoderCache,
)

from services.kit import encoding
from services.kit.errors import FailedPrecondition

DESCRIPTION = "export.json"
# A file of protobuf cannot be larger than 2 GB; weights beyond go into a file beside it.
_MOST_IN_ONE_FILE = 1_500_000_000
_MOST_INPUT_TOKENS = 512
_MOST_OUTPUT_TOKENS = 128
# Shapes to trace with: more than one of each, so that none is taken for a constant.
_BATCH, _READ, _WRITTEN = 2, 7, 3


def export(folder: Path, out: Path, int8: bool, after_graph: Callable[[int, int, str], None]) -> None:
    """Writes the graphs and the description to `out`; `after_graph` is told how many of how many are done.

    Raises FailedPrecondition (EXPORT_UNSUPPORTED) for a model that cannot be traced.
    """
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    kind = kind_of(folder)
    model = _load(folder, kind)
    traced = {"classifier": _classifier, "encoder-decoder": _encoder_decoder, "decoder-only": _decoder_only}[kind]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="p2m-onnx-") as temporary, torch.inference_mode(False), torch.no_grad():
        graphs = traced(model)
        for done, (name, (module, arguments, shapes, inputs, outputs)) in enumerate(graphs.items()):
            after_graph(done, len(graphs), f"writing {name}.onnx")
            whole = (Path(temporary) if int8 else out) / f"{name}.onnx"
            _trace(module, arguments, shapes, inputs, outputs, whole)
            if int8:
                _quantise(whole, out / whole.name)
    described = describe(folder, kind, "onnx-int8" if int8 else "onnx")
    (out / DESCRIPTION).write_text(json.dumps(described, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def kind_of(folder: Path) -> str:
    """What the model does: "encoder-decoder", "decoder-only" or "classifier"."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if encoding.labels_of(config):
        return "classifier"
    return "encoder-decoder" if config.is_encoder_decoder else "decoder-only"


def describe(folder: Path, kind: str, written_as: str) -> dict[str, Any]:
    """What answering needs to know beside the weights and the tokenizer."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    limit = int(tokenizer.model_max_length)
    known = {
        "format": written_as,
        "kind": kind,
        "max_input_tokens": limit if limit < 1 << 20 else _MOST_INPUT_TOKENS,
    }
    if kind == "classifier":
        return known | {"pad": tokenizer.pad_token_id, "labels": list(encoding.labels_of(config))}
    generation = transformers.GenerationConfig.from_pretrained(folder)
    eos = generation.eos_token_id if generation.eos_token_id is not None else tokenizer.eos_token_id
    return known | {
        "max_new_tokens": generation.max_new_tokens or _MOST_OUTPUT_TOKENS,
        "eos": eos if isinstance(eos, list) else [eos],
        "pad": next(x for x in (tokenizer.pad_token_id, generation.pad_token_id, eos, 0) if isinstance(x, int)),
        "start": generation.decoder_start_token_id if kind == "encoder-decoder" else None,
        "forced_first": generation.forced_bos_token_id if kind == "encoder-decoder" else None,
    }


def _load(folder: Path, kind: str) -> Any:
    classes = {
        "classifier": AutoModelForSequenceClassification,
        "encoder-decoder": AutoModelForSeq2SeqLM,
        "decoder-only": AutoModelForCausalLM,
    }
    # Plain matrix products: what ONNX has, and what can be quantised.
    options = {"use_safetensors": True, "trust_remote_code": False, "dtype": torch.float32}
    return classes[kind].from_pretrained(folder, attn_implementation="eager", **options).eval()


def _trace(module: Any, arguments: tuple[Any, ...], shapes: Any, inputs: Any, outputs: Any, path: Path) -> None:
    size = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(), arguments, dynamo=True, dynamic_shapes=shapes, input_names=inputs, output_names=outputs,
                verbose=False,
            )  # fmt: skip
        program.save(path, external_data=size > _MOST_IN_ONE_FILE)
    except Exception as error:  # the exporter raises whatever stopped it, of no common kind
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise FailedPrecondition(
            "EXPORT_UNSUPPORTED", f"The model cannot be written as ONNX: {first_line} Keep it as safetensors."
        ) from error


def _quantise(path: Path, to: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    large = sum(part.stat().st_size for part in path.parent.glob(path.name + "*")) > 4 * _MOST_IN_ONE_FILE
    quantize_dynamic(
        path, to, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8, use_external_data_format=large
    )


# -- the three kinds: {file: (module, arguments, dynamic shapes, input names, output names)}


def _classifier(model: Any) -> dict[str, Any]:
    ids, mask = _read_text()
    axes = {0: Dim("batch"), 1: Dim("read")}
    return {"classifier": (_Classifier(model), (ids, mask), (axes, axes), ["input_ids", "attention_mask"], ["logits"])}


def _encoder_decoder(model: Any) -> dict[str, Any]:
    ids, mask = _read_text()
    reader = _Reader(model)
    cross = reader(ids, mask)
    batch, read, written = Dim("batch"), Dim("read"), Dim("written")
    past = [torch.zeros(_BATCH, part.shape[1], _WRITTEN, part.shape[3]) for part in cross]
    both = {0: batch, 1: read}
    return {
        "encoder": (
            reader, (ids, mask), (both, both), ["input_ids", "attention_mask"], _names("cross", cross),
        ),
        "decoder": (
            _Writer(model), (ids[:, :1], mask, past, cross),
            ({0: batch}, both, [{0: batch, 2: written} for _ in past], [{0: batch, 2: read} for _ in cross]),
            ["input_ids", "attention_mask", *_names("past", past), *_names("cross", cross)],
            ["logits", *_names("present", past)],
        ),
    }  # fmt: skip


def _decoder_only(model: Any) -> dict[str, Any]:
    ids, _ = _read_text()
    found = model(input_ids=ids, use_cache=True).past_key_values
    past = [torch.zeros(_BATCH, part.shape[1], _WRITTEN, part.shape[3]) for part in _flat(found)]
    mask = torch.ones(_BATCH, _WRITTEN + _READ, dtype=torch.long)
    batch, new, written = Dim("batch"), Dim("new"), Dim("written")
    return {
        "decoder": (
            _Continuer(model), (ids, mask, past),
            ({0: batch, 1: new}, {0: batch, 1: Dim.DYNAMIC}, [{0: batch, 2: written} for _ in past]),
            ["input_ids", "attention_mask", *_names("past", past)], ["logits", *_names("present", past)],
        )
    }  # fmt: skip


class _Classifier(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


class _Reader(torch.nn.Module):  # type: ignore[misc]
    """The encoder, and the decoder's keys and values of what it read. What else the decoder does falls away."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        read = self.model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        start = self.model.generation_config.decoder_start_token_id
        first = torch.full((input_ids.shape[0], 1), start, dtype=torch.long)
        written = self.model(
            encoder_outputs=(read,), attention_mask=attention_mask, decoder_input_ids=first, use_cache=True
        )
        return _flat(written.past_key_values.cross_attention_cache)


class _Writer(torch.nn.Module):  # type: ignore[misc]
    """One step of the decoder. The encoder's own output is not looked at, since its keys and values are given."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.width = model.get_encoder().config.hidden_size

    def forward(self, input_ids: Any, attention_mask: Any, past: list[Any], cross: list[Any]) -> Any:
        read = torch.zeros(input_ids.shape[0], attention_mask.shape[1], self.width)
        written = self.model(
            encoder_outputs=(read,), attention_mask=attention_mask, decoder_input_ids=input_ids,
            past_key_values=EncoderDecoderCache(_cache(past), _cache(cross)), use_cache=True,
        )  # fmt: skip
        return written.logits[:, -1], _flat(written.past_key_values.self_attention_cache)


class _Continuer(torch.nn.Module):  # type: ignore[misc]
    """New tokens of a decoder after its past. The padding is on the left, and positions do not count it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Any, attention_mask: Any, past: list[Any]) -> Any:
        positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        written = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, past_key_values=_cache(past),
            use_cache=True,
        )  # fmt: skip
        return written.logits[:, -1], _flat(written.past_key_values)


def _read_text() -> tuple[Any, Any]:
    ids = torch.arange(1, _BATCH * _READ + 1).reshape(_BATCH, _READ)
    mask = torch.ones_like(ids)
    mask[-1, -1] = 0
    return ids, mask


def _cache(parts: list[Any]) -> Any:
    return DynamicCache(list(zip(parts[0::2], parts[1::2], strict=True)))


def _flat(cache: Any) -> list[Any]:
    return [part for layer in cache.layers for part in (layer.keys, layer.values)]


def _names(prefix: str, parts: list[Any]) -> list[str]:
    return [f"{prefix}.{number // 2}.{('key', 'value')[number % 2]}" for number in range(len(parts))]
