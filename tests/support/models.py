"""Tiny models with random weights, made on the spot, and a task that they learn in seconds.

    tiny_t5(folder)        encoder-decoder, T5: its loss falls, but it is too small to find the first word
    tiny_encoder(folder)   encoder alone, BERT: the trainer makes an encoder-decoder of it, which copies without a
                           mistake after 10 epochs of 400 rows (learning rate 3e-3, 512 tokens a batch; 2 s)
    tiny_gpt2(folder)      decoder alone, GPT-2: likewise after 20 epochs (5e-3; 5 s)
    tiny_llama, tiny_bart, tiny_mt5, tiny_umt5, tiny_pair, tiny_roberta     the other families, as small
    tiny_gguf(folder)      a Llama in a GGUF file, as llama.cpp reads it, its tokenizer inside
    copy_rows(number)      the task: "word3 word7 word1" -> "word3"

Their vocabulary has the words "word0" ... "word19", the letters, digits and marks, so that any ASCII text has tokens.
"""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

from services.kit.values import Row

WORDS = 20
_BERT = {
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
    "mask_token": "[MASK]",
}
_LETTERS = string.ascii_lowercase + string.digits + string.punctuation


def copy_rows(number: int, seed: int = 0, source: str = "toy") -> list[Row]:
    """`number` distinct rows: three words in, the first of them out."""
    rng = random.Random(seed)
    inputs: dict[str, None] = {}
    while len(inputs) < number:
        inputs[" ".join(f"word{rng.randrange(WORDS)}" for _ in range(3))] = None
    return [Row(text, text.split()[0], source) for text in inputs]


def tiny_t5(folder: Path) -> Path:
    """A T5 of 0.1 M parameters; returns the folder."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = _tokenizer({"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, "$A </s>")
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4, dropout_rate=0.0,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
        )
    )  # fmt: skip
    return _save(model, tokenizer, folder)


def tiny_encoder(folder: Path) -> Path:
    """A BERT of 0.1 M parameters without a head; returns the folder."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = _tokenizer(_BERT, "[CLS] $A [SEP]", extra=("[unused0]",))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=128, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
    )  # fmt: skip
    return _save(BertModel(config), tokenizer, folder)


def tiny_gpt2(folder: Path) -> Path:
    """A GPT-2 of 0.1 M parameters; its tokenizer has no padding token, like the real one's. Returns the folder."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _tokenizer({"eos_token": "<|endoftext|>", "unk_token": "<unk>"}, None)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=64, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return _save(GPT2LMHeadModel(config), tokenizer, folder)


def tiny_llama(folder: Path) -> Path:
    """A Llama of 0.1 M parameters, embeddings tied as SmolLM2's are; returns the folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = _tokenizer(special, "<s> $A")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip
    return _save(LlamaForCausalLM(config), tokenizer, folder)


def tiny_gguf(folder: Path) -> Path:
    """A Llama as one GGUF file: byte-level tokens, one merge ("a" and "b"), some matrices packed in 8 bits."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "ab"]
    width, heads, hidden, layers = 64, 4, 128, 2
    folder.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(folder / "tiny.gguf", "llama")
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])  # 3: control tokens
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    rng = np.random.default_rng(0)

    def matrix(name: str, rows: int, columns: int, packed: bool = False) -> None:
        numbers = rng.normal(0, 0.02, (rows, columns)).astype(np.float32)
        kind = GGMLQuantizationType.Q8_0 if packed else GGMLQuantizationType.F32
        writer.add_tensor(f"{name}.weight", quantize(numbers, kind) if packed else numbers, raw_dtype=kind)

    matrix("token_embd", len(tokens), width)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(width, np.float32))
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{layer}.{name}", width, width, packed=True)
        matrix(f"blk.{layer}.ffn_gate", hidden, width)
        matrix(f"blk.{layer}.ffn_up", hidden, width)
        matrix(f"blk.{layer}.ffn_down", width, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


def tiny_bart(folder: Path) -> Path:
    """A BART of 0.1 M parameters: its outputs begin with <s> after the decoder's start token </s>."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = _tokenizer(special, "<s> $A </s>")
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=128, dropout=0.0,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    return _save(BartForConditionalGeneration(config), tokenizer, folder)


def tiny_mt5(folder: Path) -> Path:
    """An mT5: gated, its output head apart from the embeddings."""
    from transformers import MT5Config, MT5ForConditionalGeneration

    return _t5_like(MT5ForConditionalGeneration, MT5Config, folder)


def tiny_umt5(folder: Path) -> Path:
    """A umT5: as mT5, with position biases in every layer."""
    from transformers import UMT5Config, UMT5ForConditionalGeneration

    return _t5_like(UMT5ForConditionalGeneration, UMT5Config, folder)


def tiny_pair(folder: Path) -> Path:
    """An EncoderDecoderModel of two BERTs, as transformers saves one."""
    import torch
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

    tokenizer = _tokenizer(_BERT, "[CLS] $A [SEP]")
    torch.manual_seed(0)
    half = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
        "intermediate_size": 128, "max_position_embeddings": 128, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    model = EncoderDecoderModel(
        EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**half), BertConfig(**half))
    )
    model.config.decoder_start_token_id, model.config.eos_token_id, model.config.pad_token_id = 1, 2, 0
    return _save(model, tokenizer, folder)


def tiny_roberta(folder: Path) -> Path:
    """A RoBERTa without a head: its positions begin after the padding token's."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    special = {
        "cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
    }  # fmt: skip
    tokenizer = _tokenizer(special | {"bos_token": "<s>", "eos_token": "</s>"}, "<s> $A </s>")
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=130, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, bos_token_id=0,
        pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return _save(RobertaModel(config), tokenizer, folder)


def _t5_like(model: Any, config: Any, folder: Path) -> Path:
    import torch

    tokenizer = _tokenizer({"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, "$A </s>")
    torch.manual_seed(0)
    made = config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=1, num_heads=4, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    return _save(model(made), tokenizer, folder)


def _tokenizer(special: dict[str, str], frame: str | None, extra: tuple[str, ...] = ()) -> Any:
    """A WordPiece tokenizer over the words and single characters; `frame` is its template, "[CLS] $A [SEP]"."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*dict.fromkeys(special.values()), *extra, *(f"word{n}" for n in range(WORDS))]
    pieces += [*_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=True)
    if frame:
        framing = [(name, vocabulary[name]) for name in frame.split() if name in vocabulary]
        backend.post_processor = processors.TemplateProcessing(single=frame, special_tokens=framing)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **special)


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
