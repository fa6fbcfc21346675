"""Checkpoints of a training in progress: two slots in the store, written in turn, so that one is always whole.

    <service>/checkpoints/<request_id>/<0 or 1>/
        weights.safetensors         what is trained
        step.safetensors            AdamW's state: steps taken by each weight, and its two moments
        exp_avg.safetensors
        exp_avg_sq.safetensors
        best.safetensors            the best weights so far, where they are not those above
        manifest.json               written last: the digests of the others, the progress, what the training is of

A slot without a manifest, or with a file that is not what the manifest says, is no checkpoint: the other one is taken.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from services.kit.artifacts import Artifacts
from services.kit.errors import DiskFull, NotFound
from services.kit.wire import from_json, to_json
from services.trainer.calls import HistoryPoint, checkpoint_prefix

log = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
ADAMW_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """How far a training is: all of its state but tensors. `stale` counts validations without improvement, `watched`
    the rows that each of them looks at (0: not known yet)."""

    step: int = 0
    best_step: int = 0
    best_loss: float | None = None
    best_exact_match: float = 0.0
    stale: int = 0
    watched: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    loss_tokens: int = 0
    history: list[HistoryPoint] = field(default_factory=list)


class Keeper(Protocol):
    """What the loop hands its progress to whenever it has taken stock. `best` is the file of the best weights."""

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, best: Path) -> Progress: ...

    def save(
        self, progress: Progress, model: torch.nn.Module, optimizer: torch.optim.Optimizer, best: Path
    ) -> None: ...


class Checkpoints:
    """The two slots of one request. `content` names what is trained: a checkpoint of other content is not used."""

    def __init__(self, artifacts: Artifacts, request_id: str, content: str, folder: Path) -> None:
        self._store = artifacts.store
        self._prefix = checkpoint_prefix(artifacts, request_id)
        self._content = content
        self._folder = folder
        self._next = 0

    def save(self, progress: Progress, model: torch.nn.Module, optimizer: torch.optim.Optimizer, best: Path) -> None:
        """Writes a checkpoint. `best` is the file of the best weights, written here where they are the current ones.

        DiskFull where there is no space: the other slot is still whole.
        """
        slot = f"{self._prefix}/{self._next}"
        self._store.delete(f"{slot}/manifest.json")
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        digests = {"weights": self._put(f"{slot}/weights.safetensors", plain(trained), best, progress)}
        if progress.best_step not in (0, progress.step):
            digests["best"] = self._put_file(f"{slot}/best.safetensors", best)
        # What no batch has used so far (an encoder's pooler, an expert) has no state.
        stepped = {name: optimizer.state[weight] for name, weight in trained.items() if optimizer.state.get(weight)}
        for part in ADAMW_STATE:
            state = {name: of_weight[part] for name, of_weight in stepped.items()}
            digests[part] = self._put(f"{slot}/{part}.safetensors", plain(state))
        manifest = {"content": self._content, "digests": digests, "progress": json.loads(to_json(progress))}
        self._store.put(f"{slot}/manifest.json", json.dumps(manifest).encode())
        self._next = 1 - self._next

    def restore(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, best: Path) -> Progress:
        """Puts the newest whole checkpoint back in place and returns its progress; step 0 where there is none."""
        for slot, manifest in self._newest_first():
            files = {name: self._folder / f"{name}.restored" for name in manifest["digests"]}
            try:
                if not all(
                    self._fetch(slot, name, digest, files[name]) for name, digest in manifest["digests"].items()
                ):
                    log.warning("the checkpoint in slot %d is damaged; trying the other", slot)
                    continue
                progress = from_json(json.dumps(manifest["progress"]), Progress)
                _put_back(files, model, optimizer)
                if progress.best_step:
                    files["weights" if progress.best_step == progress.step else "best"].replace(best)
            finally:
                for path in files.values():
                    path.unlink(missing_ok=True)
            self._next = 1 - slot
            return progress
        return Progress()

    def _newest_first(self) -> list[tuple[int, dict[str, Any]]]:
        found = []
        for slot in (0, 1):
            try:
                manifest = json.loads(self._store.get(f"{self._prefix}/{slot}/manifest.json"))
                if manifest["content"] == self._content:
                    found.append((slot, manifest))
            except NotFound:
                continue
            except (ValueError, KeyError, TypeError):
                log.warning("the manifest of checkpoint slot %d is damaged; trying the other", slot)
        return sorted(found, key=lambda pair: -int(pair[1]["progress"]["step"]))

    def _fetch(self, slot: int, name: str, digest: str, into: Path) -> bool:
        try:
            self._store.get_file(f"{self._prefix}/{slot}/{name}.safetensors", into)
        except NotFound:
            return False
        return _digest(into) == digest

    def _put(self, key: str, tensors: Tensors, best: Path | None = None, progress: Progress | None = None) -> str:
        """Stores tensors by way of a file; that file becomes `best` where these are the best weights."""
        path = self._folder / "writing.safetensors"
        try:
            write(tensors, path)
            digest = self._put_file(key, path)
            if best and progress and progress.best_step == progress.step:
                path.replace(best)
            return digest
        finally:
            path.unlink(missing_ok=True)

    def _put_file(self, key: str, path: Path) -> str:
        self._store.put_file(key, path)
        return _digest(path)


def write(tensors: Tensors, path: Path) -> None:
    """Writes safetensors. DiskFull where there is no space."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        if "os error 28" in str(error) or "os error 122" in str(error):  # ENOSPC, EDQUOT
            raise DiskFull(
                f"Writing a checkpoint to {path.parent}: no space left. Free some space and run the same command again."
            ) from error
        raise


def plain(tensors: dict[str, Any]) -> Tensors:
    """The tensors on the CPU, contiguous, without their gradients."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Puts the weights in a checkpoint's file into the model."""
    weights = load_file(path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(weights[name])


def _put_back(files: dict[str, Path], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    load_weights(model, files["weights"])
    # A fused AdamW keeps the count of steps beside the weight.
    state = {part: load_file(files[part]) for part in ADAMW_STATE}
    for name, weight in model.named_parameters():
        if name in state["step"]:
            optimizer.state[weight] = {part: state[part][name].to(weight.device) for part in ADAMW_STATE}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
