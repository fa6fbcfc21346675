"""Writes with an exported model by CTranslate2, greedily.

    CTranslate2Runtime(folder, described, threads, tokenizer)
    └── generate(rows) -> rows

CTranslate2 takes and gives tokens as words of its vocabulary, which is the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

Tokens = list[list[int]]


class CTranslate2Runtime:
    """The model in `folder`, loaded. `described` is export.json."""

    def __init__(self, folder: Path, described: dict[str, Any], threads: int, tokenizer: Any) -> None:
        import ctranslate2

        self.name = f"ctranslate2 {ctranslate2.__version__}"
        self._described = described
        self._tokenizer = tokenizer
        self._reads_and_writes = described["kind"] == "encoder-decoder"
        kind = ctranslate2.Translator if self._reads_and_writes else ctranslate2.Generator
        self._model = kind(str(folder), device="cpu", inter_threads=1, intra_threads=threads)

    def generate(self, rows: Sequence[list[int]]) -> Tokens:
        """The tokens written for each row of tokens, without the end token."""
        words = [self._tokenizer.convert_ids_to_tokens(row) for row in rows]
        longest, end = self._described["max_new_tokens"], self._described["eos"]
        if self._reads_and_writes:
            forced = self._described.get("forced_first")
            first = None if forced is None else [[self._tokenizer.convert_ids_to_tokens(forced)]] * len(rows)
            found = self._model.translate_batch(
                words, target_prefix=first, beam_size=1, max_input_length=0, max_decoding_length=longest, end_token=end
            )
            return [self._tokenizer.convert_tokens_to_ids(one.hypotheses[0]) for one in found]
        found = self._model.generate_batch(
            words, beam_size=1, max_length=longest, end_token=end, include_prompt_in_result=False
        )
        return [list(one.sequences_ids[0]) for one in found]
