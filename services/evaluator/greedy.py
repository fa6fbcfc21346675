"""Greedy decoding that lets go of the rows that are finished.

`generate` of transformers goes on with a whole batch until its longest output has ended. Handed to it as
`custom_generate`, `greedy` writes the same tokens, and once a quarter of the rows have ended it takes them out of the
batch and out of the cache, so that a step costs what the rows that are still being written cost.

    model.generate(..., custom_generate=greedy) ── prepares inputs, encoder, cache, processors and stopping criteria
    greedy ── narrowed                             the loop, and what it carries on for fewer rows
"""

from __future__ import annotations

from typing import Any

from services.evaluator.products import few_rows

# Taking rows out copies the cache of the others, so it waits until it is worth that.
_SHARE_FINISHED = 0.25


def greedy(
    model: Any,
    input_ids: Any,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    synced_gpus: bool = False,
    **carried: Any,
) -> Any:
    """The tokens (rows, length) that `generate` gives with do_sample=False and num_beams=1, padded at the end."""
    import torch

    pad = generation_config._pad_token_tensor.to(input_ids.device)
    going = torch.arange(len(input_ids), device=input_ids.device)  # the rows of the batch that the model still has
    ended = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
    outputs = model._prefill(input_ids, generation_config, carried)
    while True:
        carried = model._update_model_kwargs_for_generation(
            outputs, carried, is_encoder_decoder=model.config.is_encoder_decoder
        )
        scores = outputs.logits[:, -1].to(copy=True, dtype=torch.float32)
        del outputs  # the first step's logits may be large
        if len(logits_processor):
            # Some keep a state for each row, so they are shown the whole batch.
            whole = scores.new_zeros((len(input_ids), scores.shape[-1]))
            whole[going] = scores
            scores = logits_processor(input_ids, whole)[going]
        tokens = pad.repeat(len(input_ids))
        tokens[going] = torch.argmax(scores, dim=-1)
        input_ids = torch.cat([input_ids, torch.where(ended, pad, tokens)[:, None]], dim=-1)
        ended = ended | stopping_criteria(input_ids, None)
        if bool(ended.all()):
            return input_ids
        left = (~ended[going]).nonzero()[:, 0]
        if len(left) <= (1 - _SHARE_FINISHED) * len(going) and _can_narrow(carried):
            carried = narrowed(carried, left, len(going))
            going = going[left]
        inputs = model.prepare_inputs_for_generation(
            input_ids[going], next_sequence_length=1 if carried["use_cache"] else None, **carried
        )
        with few_rows():
            outputs = model(**inputs, return_dict=True)


def _can_narrow(carried: dict[str, Any]) -> bool:
    """Whether rows can be taken out of the cache: not where its size is fixed beforehand, which few models ask for."""
    from transformers import DynamicCache, EncoderDecoderCache

    cache = carried.get("past_key_values")
    if isinstance(cache, EncoderDecoderCache):
        return isinstance(cache.self_attention_cache, DynamicCache)
    return cache is None or isinstance(cache, DynamicCache)


def narrowed(carried: dict[str, Any], going: Any, rows: int) -> dict[str, Any]:
    """What `generate` carries from step to step, for the rows `going` of `rows` alone."""
    import torch

    def some(value: Any) -> Any:
        if hasattr(value, "batch_select_indices"):  # a cache: narrowed in place
            value.batch_select_indices(going)
            return value
        if isinstance(value, torch.Tensor):
            return value[going] if value.dim() and len(value) == rows else value
        if isinstance(value, dict):  # the encoder's outputs
            return type(value)(**{name: some(one) for name, one in value.items()})
        return tuple(map(some, value)) if isinstance(value, tuple) else value

    return {name: some(value) for name, value in carried.items()}
