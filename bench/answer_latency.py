"""How long models of several sizes take to answer on one CPU: what services/model_retriever/latency.py is fitted to.

    python -m bench.answer_latency

An answer is 8 tokens written greedily after 64 read, one at a time, in 32 bits, by one thread. Weights are drawn at
random, which changes nothing of the time. Keys of the JSON line: models (name, parameters and ms, the processor time of
the fastest of three answers), token_ms and token_ms_per_million (least squares in proportion), factor (how far off the
fit is at worst).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from services.model_retriever.latency import TOKENS_READ, TOKENS_WRITTEN

_REPEATS = 3


def main() -> int:
    """Prints one JSON line."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    measured = []
    for name, make in _models():
        model = make().eval()
        parameters = sum(weights.numel() for weights in model.parameters())
        measured.append({"name": name, "parameters": parameters, "ms": round(_answer_ms(model), 1)})
        print(measured[-1], file=sys.stderr)
        del model
    print(json.dumps({"models": measured, **_fit(measured)}))
    return 0


def _answer_ms(model: Any) -> float:
    import torch

    read = torch.randint(5, 1000, (1, TOKENS_READ))
    options = {"max_new_tokens": TOKENS_WRITTEN, "min_new_tokens": TOKENS_WRITTEN, "do_sample": False, "num_beams": 1}
    spent = []
    with torch.inference_mode():
        for _ in range(_REPEATS + 1):
            began = time.process_time()
            model.generate(read, attention_mask=torch.ones_like(read), pad_token_id=0, **options)
            spent.append(time.process_time() - began)
    return 1000 * min(spent[1:])


def _fit(measured: list[dict[str, Any]]) -> dict[str, float]:
    millions = np.asarray([one["parameters"] / 1e6 for one in measured])
    tokens = np.asarray([one["ms"] for one in measured]) / TOKENS_WRITTEN
    design = np.stack([np.ones_like(millions), millions], axis=1) / tokens[:, None]
    token_ms, per_million = np.linalg.lstsq(design, np.ones_like(tokens), rcond=None)[0]
    ratio = (token_ms + per_million * millions) / tokens
    return {
        "token_ms": round(float(token_ms), 2),
        "token_ms_per_million": round(float(per_million), 4),
        "factor": round(float(np.exp(np.abs(np.log(ratio)).max())), 2),
    }


def _models() -> Iterator[tuple[str, Callable[[], Any]]]:
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        GPT2Config,
        GPT2LMHeadModel,
        T5Config,
        T5ForConditionalGeneration,
    )

    def t5(width: int, inner: int, layers: int, heads: int) -> Callable[[], Any]:
        config = T5Config(
            d_model=width, d_ff=inner, num_layers=layers, num_heads=heads, d_kv=64, decoder_start_token_id=0
        )
        return lambda: T5ForConditionalGeneration(config)

    def bart(width: int, inner: int, layers: int, heads: int) -> Callable[[], Any]:
        half = {"layers": layers, "attention_heads": heads, "ffn_dim": inner}
        halves = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in half.items()}
        return lambda: BartForConditionalGeneration(BartConfig(d_model=width, **halves))

    yield "t5-efficient-tiny", t5(256, 1024, 4, 4)
    yield "t5-small", t5(512, 2048, 6, 8)
    yield "bart-base", bart(768, 3072, 6, 12)
    yield "gpt2", lambda: GPT2LMHeadModel(GPT2Config())
    yield "t5-base", t5(768, 3072, 12, 12)
    yield "gpt2-medium", lambda: GPT2LMHeadModel(GPT2Config(n_embd=1024, n_layer=24, n_head=16))
    yield "bart-large", bart(1024, 4096, 12, 16)
    yield "t5-large", t5(1024, 4096, 24, 16)


if __name__ == "__main__":
    sys.exit(main())
