"""How a task's text becomes a model's tokens, the same in training and in use.

    encode_inputs     encoder-decoder:  <prefix> instruction "\\n" input <suffix>
    encode_prompts    decoder-only:     <prefix> instruction "\\n" input "\\n"        then the output and EOS follow
    encode_alone      with a head for labels:  <prefix> input <suffix>; every input would have the same instruction
    encode_outputs    what the decoder is to write:  <prefix> output <EOS>
    decode, read_back tokens -> text; what is left of a text after the tokenizer's round trip
    ceiling           percent of rows with an answer that can be written at all

Where a text is too long the instruction is cut first, from its end, then the input from its end: an instruction is the
same for every row and the input is what the row is about. A trained model's tokenizer has the limit of its inputs as
`model_max_length`. Works on any tokenizer object of transformers and imports neither it nor torch. Special tokens
written out in a text ("</s>") are text.

A WordPiece tokenizer forgets where a text had no space: "2024-05-01" comes back as "2024 - 05 - 01". Where its decoder
knows the glue token (the trainer gives it one, see `with_glue`), outputs are written with it between such tokens and
come back as they were; case and accents are still lost where the vocabulary has none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from services.kit.values import PromptSpec

SEPARATOR = "\n"
GLUE = "[unused0]"  # in BERT's vocabulary, and never in a text


def encode_inputs(tokenizer: Any, spec: PromptSpec, inputs: Sequence[str], max_tokens: int) -> list[list[int]]:
    """An encoder's tokens for each input: at most `max_tokens`, the tokenizer's own special tokens included."""
    prefix, suffix = special_tokens(tokenizer)
    return _encode(tokenizer, spec, inputs, max_tokens, prefix, suffix)


def encode_prompts(tokenizer: Any, spec: PromptSpec, inputs: Sequence[str], max_tokens: int) -> list[list[int]]:
    """A decoder's tokens before the output, for each input: at most `max_tokens`. They end in the separator."""
    prefix, _ = special_tokens(tokenizer)
    return _encode(tokenizer, spec, inputs, max_tokens, prefix, _tokens(tokenizer, [SEPARATOR])[0])


def encode_alone(tokenizer: Any, inputs: Sequence[str], max_tokens: int) -> list[list[int]]:
    """The tokens of each input without an instruction, for a model that picks a label: at most `max_tokens`."""
    return encode_inputs(tokenizer, PromptSpec(), inputs, max_tokens)


def labels_of(config: Any) -> tuple[str, ...]:
    """The labels in a transformers config, in the order of the logits; () for a model that writes text."""
    picks = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    return tuple(str(config.id2label[number]) for number in range(len(config.id2label))) if picks else ()


def encode_outputs(
    tokenizer: Any, outputs: Sequence[str], max_tokens: int, *, eos: int, prefix: Sequence[int] = ()
) -> list[list[int]]:
    """The tokens of each output, `prefix` before and `eos` after them: at most `max_tokens`, `eos` always the last."""
    room = max(0, max_tokens - len(prefix) - 1)
    return [[*prefix, *tokens[:room], eos] for tokens in _output_tokens(tokenizer, outputs)]


def decode(tokenizer: Any, tokens: Sequence[Sequence[int]]) -> list[str]:
    """The texts of what a model wrote, without special tokens and outer white space."""
    return [str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip() for ids in tokens]


def read_back(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """Each text after encoding and decoding. One that comes back changed can never be matched exactly."""
    return decode(tokenizer, _output_tokens(tokenizer, texts))


def ceiling(tokenizer: Any, answers: Sequence[Sequence[str]], max_tokens: int) -> float:
    """Percent of rows of which some right answer can be written: it survives the tokenizer and has room.

    `answers`: each row's right ones; `max_tokens`: the most that the model writes, its end included.
    """
    texts = sorted({text for right in answers for text in right})
    written = dict(zip(texts, _output_tokens(tokenizer, texts), strict=True))
    back = dict(zip(texts, decode(tokenizer, list(written.values())), strict=True))
    right_rows = sum(any(back[text] == text and len(written[text]) < max_tokens for text in right) for right in answers)
    return 100.0 * right_rows / max(1, len(answers))


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The tokens that the tokenizer puts before and after a text: ([CLS], [SEP]) for BERT, ((), </s>) for T5."""
    framed = list(tokenizer("a")["input_ids"])
    bare = _tokens(tokenizer, ["a"])[0]
    for start in range(len(framed) - len(bare) + 1):
        if framed[start : start + len(bare)] == bare:
            return framed[:start], framed[start + len(bare) :]
    return [], []


def _encode(
    tokenizer: Any, spec: PromptSpec, inputs: Sequence[str], max_tokens: int, prefix: list[int], suffix: list[int]
) -> list[list[int]]:
    instruction = separator = list[int]()
    if spec.own_instruction:
        instruction, separator = _tokens(tokenizer, [spec.own_instruction, SEPARATOR])
    encoded = []
    for tokens in _tokens(tokenizer, inputs):
        room = max(0, max_tokens - len(prefix) - len(separator) - len(suffix))
        kept = tokens[:room]
        encoded.append([*prefix, *instruction[: room - len(kept)], *separator, *kept, *suffix])
    return encoded


def with_glue(tokenizer: Any) -> str | None:
    """The serialised backend of a WordPiece tokenizer with a decoder that knows the glue token; None for any other.

    Load it with `PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(...))`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    plain = json.loads(backend.to_str()) if backend is not None else {}
    model = plain.get("model", {})
    if model.get("type") != "WordPiece" or GLUE not in model["vocab"]:
        return None
    plain["decoder"] = {
        "type": "Sequence",
        "decoders": [
            {"type": "WordPiece", "prefix": model["continuing_subword_prefix"], "cleanup": False},
            {"type": "Fuse"},
            {"type": "Replace", "pattern": {"String": f" {GLUE} "}, "content": ""},
        ],
    }
    return json.dumps(plain | {"truncation": None, "padding": None})


def _output_tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of outputs: with the glue token between neighbours that no space parts, where the decoder knows it."""
    plain = _tokens(tokenizer, texts)
    glue = tokenizer.convert_tokens_to_ids(GLUE)
    word = next((tokens[0] for tokens in plain if tokens), None)
    if glue is None or glue == tokenizer.unk_token_id or word is None:
        return plain
    if " " in decode(tokenizer, [[word, glue, word]])[0]:
        return plain  # another meaning, or none, in this tokenizer
    return [_glued(tokenizer, text, glue) for text in texts]


def _glued(tokenizer: Any, text: str, glue: int) -> list[int]:
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
    )
    tokens: list[int] = []
    end_before = -1
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if start == end_before and not tokenizer.convert_ids_to_tokens(token).startswith("##"):
            tokens.append(glue)
        tokens.append(token)
        end_before = end
    return tokens


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    # verbose=False: the tokenizer would warn of texts that are longer than the model takes; they are cut here.
    encoded = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)
    return [list(ids) for ids in encoded["input_ids"]]
