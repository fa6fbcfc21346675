"""The model card's code: how the model is loaded, as trained and as exported, with public libraries alone.

    usage(record)      Markdown: "Use", and a part for each export
    ├── as trained             transformers
    ├── onnx, onnx-int8        onnxruntime and a tokenizer; torch is not needed
    └── ctranslate2-int8       ctranslate2 and a tokenizer

Each snippet is whole, runs in the run's folder and defines `answer(text)`.
"""

from __future__ import annotations

from string import Template
from typing import Any

_DECODER_ONLY = "decoder-only"

_PIPELINE = """
from transformers import pipeline

# It reads the input alone, without the instruction, and picks one of its labels.
classify = pipeline("text-classification", model="model")

def answer(text: str) -> str:
    return classify(text, truncation=True)[0]["label"]

print(answer($shown))
"""

_TRANSFORMERS = """
from transformers import AutoTokenizer, $auto

tokenizer = AutoTokenizer.from_pretrained("model")
model = $auto.from_pretrained("model")

INSTRUCTION = $instruction

def answer(text: str) -> str:
    # The instruction stands before every input, as in training.
    batch = tokenizer(f"{INSTRUCTION}\\n{text}$end", return_tensors="pt", truncation=True)
    output = model.generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    return tokenizer.decode(output[0]$after, skip_special_tokens=True).strip()

print(answer($shown))
"""

_ONNX_HEAD = """
import json

import numpy as np
import onnxruntime
from transformers import AutoTokenizer

FOLDER = $folder
about = json.load(open(f"{FOLDER}/onnx/export.json"))
tokenizer = AutoTokenizer.from_pretrained(FOLDER)

def graph(name: str):
    session = onnxruntime.InferenceSession(f"{FOLDER}/onnx/{name}.onnx")
    wanted, names = {i.name for i in session.get_inputs()}, [o.name for o in session.get_outputs()]
    return session, lambda given: dict(zip(names, session.run(names, {k: v for k, v in given.items() if k in wanted})))

def read(text: str) -> dict:
    batch = tokenizer(text, return_tensors="np", truncation=True, max_length=about["max_input_tokens"])
    return {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
"""

_ONNX_CLASSIFIER = """
_, classifier = graph("classifier")

def answer(text: str) -> str:
    # It reads the input alone, without the instruction.
    return about["labels"][int(classifier(read(text))["logits"][0].argmax())]

print(answer($shown))
"""

_ONNX_GENERATE = """
$graphs

INSTRUCTION = $instruction

def answer(text: str) -> str:
    batch = read(f"{INSTRUCTION}\\n{text}$end")
    given = $given
    past = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32)
            for i in session.get_inputs() if i.name.startswith("past.")}
    tokens, written = $start, []
    for step in range(about["max_new_tokens"]):
        found = decoder({**given, **past, "input_ids": tokens})
        token = int(found.pop("logits")[0].argmax())
        if step == 0 and about["forced_first"] is not None:
            token = about["forced_first"]
        if token in about["eos"]:
            break
        written.append(token)
        tokens, past = np.array([[token]]), {name.replace("present", "past"): part for name, part in found.items()}
        $longer
    return tokenizer.decode(written, skip_special_tokens=True).strip()

print(answer($shown))
"""

_CTRANSLATE2 = """
import json

import ctranslate2
from transformers import AutoTokenizer

FOLDER = $folder
about = json.load(open(f"{FOLDER}/ctranslate2/export.json"))
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = ctranslate2.$runtime(f"{FOLDER}/ctranslate2")

INSTRUCTION = $instruction

def answer(text: str) -> str:
    read = tokenizer(f"{INSTRUCTION}\\n{text}$end", truncation=True, max_length=about["max_input_tokens"]).input_ids
    $write
    return tokenizer.decode(written, skip_special_tokens=True).strip()

print(answer($shown))
"""

_TRANSLATE = """forced = about["forced_first"]
    first = None if forced is None else [[tokenizer.convert_ids_to_tokens(forced)]]
    found = model.translate_batch(
        [tokenizer.convert_ids_to_tokens(read)], target_prefix=first, beam_size=1,
        max_decoding_length=about["max_new_tokens"], end_token=about["eos"],
    )
    written = tokenizer.convert_tokens_to_ids(found[0].hypotheses[0])"""
_GENERATE = """found = model.generate_batch(
        [tokenizer.convert_ids_to_tokens(read)], beam_size=1, max_length=about["max_new_tokens"],
        end_token=about["eos"], include_prompt_in_result=False,
    )
    written = found[0].sequences_ids[0]"""


def usage(record: dict[str, Any]) -> str:
    """The card's part on use."""
    parts = [_fenced(snippet(record), "python", "## Use\n")]
    for row in (record.get("exports") or {}).get("formats", []):
        if row.get("measured") and row["format"] != "safetensors-bf16":
            needs = "onnxruntime" if row["format"].startswith("onnx") else "ctranslate2"
            title = f"### As {row['format']}\n\n`pip install {needs} transformers numpy`; torch is not needed.\n"
            parts.append(_fenced(snippet(record, row["format"]), "python", title))
    parts.append(_fenced("pip install 'p2m[serve]'\np2m serve .", "sh", "### As a service, over HTTP\n"))
    return "\n\n".join(parts)


def snippet(record: dict[str, Any], written_as: str = "") -> str:
    """The code for one format, "" for the model as trained."""
    labels = bool((record.get("training") or {}).get("labels"))
    decoder_only = ((record.get("chosen") or {}).get("model") or {}).get("architecture") == _DECODER_ONLY
    demonstrations = (record.get("spec") or {}).get("demonstrations") or []
    facts = {
        "shown": repr(demonstrations[0]["input"] if demonstrations else "your input"),
        "instruction": repr(_instruction(record)),
        "end": "\\n" if decoder_only else "",
        "folder": repr(f"exports/{written_as}"),
    }
    if written_as.startswith("onnx"):
        return Template(_ONNX_HEAD + (_ONNX_CLASSIFIER if labels else _ONNX_GENERATE)).substitute(
            facts | _onnx_facts(decoder_only)
        )
    if written_as.startswith("ctranslate2"):
        return Template(_CTRANSLATE2).substitute(
            facts,
            runtime="Generator" if decoder_only else "Translator",
            write=_GENERATE if decoder_only else _TRANSLATE,
        )
    if labels:
        return Template(_PIPELINE).substitute(facts)
    return Template(_TRANSFORMERS).substitute(
        facts,
        auto="AutoModelForCausalLM" if decoder_only else "AutoModelForSeq2SeqLM",
        after="[batch.input_ids.shape[1] :]" if decoder_only else "",
    )


def _onnx_facts(decoder_only: bool) -> dict[str, str]:
    if decoder_only:
        return {
            "graphs": 'session, decoder = graph("decoder")',
            "given": '{"attention_mask": batch["attention_mask"]}',
            "start": 'batch["input_ids"]',
            "longer": 'given["attention_mask"] = np.ones((1, given["attention_mask"].shape[1] + 1), np.int64)',
        }
    return {
        "graphs": '_, encoder = graph("encoder")\nsession, decoder = graph("decoder")',
        "given": '{**encoder(batch), "attention_mask": batch["attention_mask"]}',
        "start": 'np.array([[about["start"]]])',
        "longer": "",
    }


def _instruction(record: dict[str, Any]) -> str:
    spec = record.get("spec") or {}
    return str(spec.get("original_instruction") or spec.get("instruction") or record.get("prompt", ""))


def _fenced(code: str, language: str, before: str) -> str:
    fence = "```"
    while fence in code:
        fence += "`"
    lines = "\n".join(line.rstrip() for line in code.strip().splitlines())
    return f"{before}\n{fence}{language}\n{lines}\n{fence}"
