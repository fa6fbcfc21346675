"""Writes with the ONNX graphs of an exported model, greedily, by onnxruntime; neither torch nor transformers is needed.

    OnnxRuntime(folder, described, threads)
    ├── generate(rows) -> rows      encoder-decoder: encoder.onnx once, then decoder.onnx a token at a time
    │                               decoder-only: decoder.onnx, the prompts first, then a token at a time
    └── classify(rows) -> labels' numbers

The graphs' inputs and outputs are those that the trainer's `export_onnx` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Tokens = list[list[int]]


class OnnxRuntime:
    """The graphs in `folder`, loaded. `described` is export.json."""

    def __init__(self, folder: Path, described: dict[str, Any], threads: int) -> None:
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._described = described
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._graphs = {
            path.stem: onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for path in sorted(folder.glob("*.onnx"))
        }

    def generate(self, rows: Sequence[list[int]]) -> Tokens:
        """The tokens written for each row of tokens, without the end token. A row that has ended is taken out."""
        past: dict[str, Any]
        if self._described["kind"] == "encoder-decoder":
            ids, mask = _padded(rows, self._described["pad"], left=False)
            read = self._run("encoder", {"input_ids": ids, "attention_mask": mask})
            given: dict[str, Any] = {**read, "attention_mask": mask}
            tokens = np.full((len(rows), 1), self._described["start"], np.int64)
        else:
            tokens, mask = _padded(rows, self._described["pad"], left=True)
            given = {"attention_mask": mask}
        past = self._no_past(len(rows))
        forced = self._described.get("forced_first")
        written: Tokens = [[] for _ in rows]
        going = np.arange(len(rows))
        for step in range(self._described["max_new_tokens"]):
            found = self._run("decoder", {**given, **past, "input_ids": tokens})
            chosen = found.pop("logits").argmax(-1)
            if forced is not None and step == 0:
                chosen[:] = forced
            past = {name.replace("present", "past"): part for name, part in found.items()}
            ended = np.isin(chosen, self._described["eos"])
            for number, token in zip(going[~ended], chosen[~ended], strict=True):
                written[number].append(int(token))
            if ended.all():
                break
            if ended.any():
                going, chosen = going[~ended], chosen[~ended]
                given = {name: part[~ended] for name, part in given.items()}
                past = {name: part[~ended] for name, part in past.items()}
            tokens = chosen[:, None].astype(np.int64)
            if "start" not in self._described or self._described["start"] is None:
                one = np.ones((len(going), 1), np.int64)
                given["attention_mask"] = np.concatenate([given["attention_mask"], one], axis=1)
        return written

    def classify(self, rows: Sequence[list[int]]) -> list[int]:
        """The number of the likeliest label of each row of tokens."""
        ids, mask = _padded(rows, self._described["pad"], left=False)
        found = self._run("classifier", {"input_ids": ids, "attention_mask": mask})
        return [int(number) for number in found["logits"].argmax(-1)]

    def _run(self, graph: str, given: dict[str, Any]) -> dict[str, Any]:
        session = self._graphs[graph]
        names = [output.name for output in session.get_outputs()]
        wanted = {one.name for one in session.get_inputs()}
        found = session.run(names, {name: part for name, part in given.items() if name in wanted})
        return dict(zip(names, found, strict=True))

    def _no_past(self, rows: int) -> dict[str, Any]:
        """Keys and values of no token yet: (rows, heads, 0, size of a head) each."""
        return {
            one.name: np.zeros((rows, one.shape[1], 0, one.shape[3]), np.float32)
            for one in self._graphs["decoder"].get_inputs()
            if one.name.startswith("past.")
        }


def _padded(rows: Sequence[list[int]], pad: int, left: bool) -> tuple[Any, Any]:
    """Tokens (rows, longest) and which of them are real."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        where = slice(width - len(row), None) if left else slice(len(row))
        ids[number, where], mask[number, where] = row, 1
    return ids, mask
