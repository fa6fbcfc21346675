"""Texts to embeddings of length 1, in a child process: it needs torch.

    Encoder       kept loaded to answer queries; warm in two seconds
    encode_file   a catalogue's texts, once, by sentence-transformers

Importing sentence-transformers takes longer than a service may take to start, so for queries the plain encoders (a
transformer, then mean or [CLS] pooling), which is nearly all of them, run on transformers alone. The vectors are the
same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.kit import locations
from services.kit.settings import Settings
from services.kit.values import Progress
from services.kit.worker import WorkerContext

_CHUNK = 256
# What sentence-transformers names its modules in modules.json, old and new.
_PLAIN = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Texts:
    """What to encode; nothing: only tell which encoder it is."""

    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vectors:
    """One vector of length 1 for each text, and the encoder's digest."""

    vectors: tuple[tuple[float, ...], ...] = ()
    encoder: str = ""


@dataclass(frozen=True)
class TextFile:
    """`texts`: a file of JSON strings, one a line; `vectors`: where the array [lines, dimension] goes (.npy)."""

    texts: str = ""
    vectors: str = ""


class Encoder:
    """The encoder that `settings.encoder` names, in memory."""

    def __init__(self, settings: Settings) -> None:
        folder = locations.resolve(settings.encoder, settings)
        _limit_threads(settings)
        self._digest = digest(folder)
        self._encode = _plain(folder) if _is_plain(folder) else _by_sentence_transformers(folder)

    def answer(self, request: Texts) -> Vectors:
        """The vectors of a few texts."""
        if not request.texts:
            return Vectors((), self._digest)
        return Vectors(tuple(tuple(vector) for vector in self._encode(request.texts).tolist()), self._digest)


def encode_file(request: TextFile, context: WorkerContext) -> Vectors:
    """Encodes a file of texts into an array; only the encoder's digest is in the answer."""
    folder = locations.resolve(context.settings.encoder, context.settings)
    _limit_threads(context.settings)
    encode = _by_sentence_transformers(folder)
    with Path(request.texts).open() as file:
        number = sum(1 for _ in file)
        file.seek(0)
        shape = (number, encode([""]).shape[1])
        vectors = np.lib.format.open_memmap(request.vectors, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, number, _CHUNK):
            context.raise_if_stopping()
            context.report(Progress(start, number, "entries", "Encoding the catalogue"))
            texts = [json.loads(line) for line in itertools.islice(file, _CHUNK)]
            vectors[start : start + _CHUNK] = encode(texts)
        vectors.flush()
    return Vectors((), digest(folder))


def digest(folder: Path) -> str:
    """SHA-256 over an encoder's weights: another encoder's vectors mean something else."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def _limit_threads(settings: Settings) -> None:
    import torch

    if settings.threads:
        torch.set_num_threads(settings.threads)


def _by_sentence_transformers(folder: Path) -> Encode:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"use_safetensors": True}
    )

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors: npt.NDArray[np.float32] = model.encode(
            list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors

    return encode


def _is_plain(folder: Path) -> bool:
    """Whether `_plain` does what the folder's modules say."""
    modules = _json(folder / "modules.json") or []
    pooling = _json(folder / "1_Pooling" / "config.json") or {}
    modes = {name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True}
    return (
        all(module["type"].rpartition(".")[2] in _PLAIN for module in modules)
        and (not modules or len(modes) == 1)
        and modes <= {"pooling_mode_mean_tokens", "pooling_mode_cls_token"}
    )


def _plain(folder: Path) -> Encode:
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    limit = (_json(folder / "sentence_bert_config.json") or {}).get("max_seq_length") or tokenizer.model_max_length
    limit = min(limit, getattr(model.config, "max_position_embeddings", limit))
    first = (_json(folder / "1_Pooling" / "config.json") or {}).get("pooling_mode_cls_token", False)

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
            pooled = states[:, 0] if first else (states * mask).sum(1) / mask.sum(1)
            vectors: npt.NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).float().numpy()
            return vectors

    return encode


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else None
