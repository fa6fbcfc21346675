"""What the trainer's calls take and give: plain values with the proto's field names.

    PrepareRequest ── TrainingSource, LockedSplits    PrepareResult ── SourceCount, Leak ── LeakExample, LabelCount
    SearchRequest ── SearchCandidate        SearchResult ── Trial
    TrainRequest ── HyperParameters         TrainResult ── HistoryPoint
    ExportRequest                           ExportResult

Nothing here imports torch, so that the service answers at once and loads it in its children only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from services.kit.artifacts import Artifacts
from services.kit.values import Artifact, PromptSpec


class DatasetKind(IntEnum):
    """Where a dataset came from; the proto's numbers."""

    UNSPECIFIED = 0
    RETRIEVED = 1
    GENERATED = 2
    USER = 3
    ADAPTED = 4


@dataclass(frozen=True)
class TrainingSource:
    """One dataset to train on."""

    dataset: Artifact = field(default_factory=Artifact)
    kind: DatasetKind = DatasetKind.UNSPECIFIED


@dataclass(frozen=True)
class SourceCount:
    """Rows of one source in one split."""

    source: str = ""
    kind: DatasetKind = DatasetKind.UNSPECIFIED
    split: str = ""
    rows: int = 0


@dataclass(frozen=True)
class LockedSplits:
    """The splits of an earlier Prepare."""

    train: Artifact = field(default_factory=Artifact)
    validation: Artifact = field(default_factory=Artifact)
    test: Artifact = field(default_factory=Artifact)
    counts: tuple[SourceCount, ...] = ()


@dataclass(frozen=True)
class PrepareRequest:
    """What to split; `max_rows_per_source` 0 is the default. `caps` and `mix` are by kind or by source's name."""

    request_id: str = ""
    sources: tuple[TrainingSource, ...] = ()
    test: Artifact | None = None
    spec: PromptSpec = field(default_factory=PromptSpec)
    seed: int = 0
    max_rows_per_source: int = 0
    caps: dict[str, int] = field(default_factory=dict)
    mix: dict[str, float] = field(default_factory=dict)
    keep_near_duplicates: bool = False
    locked: LockedSplits | None = None


@dataclass(frozen=True)
class LeakExample:
    """A removed row's input, and the input of the row that it repeated."""

    input: str = ""
    other: str = ""


@dataclass(frozen=True)
class Leak:
    """Rows of `source`, drawn for `split`, that repeat the test or the validation split, or a demonstration."""

    source: str = ""
    kind: DatasetKind = DatasetKind.UNSPECIFIED
    split: str = ""
    repeats: str = ""
    near: bool = False
    rows: int = 0
    examples: tuple[LeakExample, ...] = ()


@dataclass(frozen=True)
class LabelCount:
    """Rows with one output."""

    label: str = ""
    train: int = 0
    validation: int = 0
    test: int = 0


@dataclass(frozen=True)
class PrepareResult:
    """The locked splits, what is in them, and what was taken out and why."""

    train: Artifact = field(default_factory=Artifact)
    validation: Artifact = field(default_factory=Artifact)
    test: Artifact = field(default_factory=Artifact)
    counts: tuple[SourceCount, ...] = ()
    removed: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()
    labels: tuple[LabelCount, ...] = ()


@dataclass(frozen=True)
class HyperParameters:
    """How to train. None takes the default; see the proto for units."""

    learning_rate: float | None = None
    epochs: float | None = None
    batch_tokens: int | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    checkpoint_steps: int | None = None
    patience: int | None = None
    lora: bool | None = None
    max_seconds: float | None = None
    head: str = ""
    qlora: bool | None = None
    micro_batch_tokens: int | None = None
    label_smoothing: float | None = None
    replaced_share: float | None = None


@dataclass(frozen=True)
class TrainRequest:
    """What to train, on what, from which model."""

    request_id: str = ""
    train: Artifact = field(default_factory=Artifact)
    validation: Artifact = field(default_factory=Artifact)
    spec: PromptSpec = field(default_factory=PromptSpec)
    model: str = ""
    hyper_parameters: HyperParameters = field(default_factory=HyperParameters)
    seed: int = 0
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchCandidate:
    """A model to try, and what it is usually trained with."""

    model: str = ""
    start: HyperParameters = field(default_factory=HyperParameters)
    cpu_latency_ms: float = 0.0


@dataclass(frozen=True)
class SearchRequest:
    """What to try, on what, for how long."""

    request_id: str = ""
    train: Artifact = field(default_factory=Artifact)
    validation: Artifact = field(default_factory=Artifact)
    spec: PromptSpec = field(default_factory=PromptSpec)
    candidates: tuple[SearchCandidate, ...] = ()
    hyper_parameters: HyperParameters = field(default_factory=HyperParameters)
    budget_seconds: float = 0.0
    seed: int = 0


class TrialState(IntEnum):
    """What became of a trial; the proto's numbers."""

    UNSPECIFIED = 0
    COMPLETE = 1
    PRUNED = 2
    OUT_OF_TIME = 3
    FAILED = 4


@dataclass(frozen=True)
class Trial:
    """One trial; `validation_exact_match` is a percentage, `parameters` 0 where the model was not loaded."""

    number: int = 0
    model: str = ""
    hyper_parameters: HyperParameters = field(default_factory=HyperParameters)
    state: TrialState = TrialState.UNSPECIFIED
    validation_exact_match: float | None = None
    validation_loss: float | None = None
    seconds: float = 0.0
    parameters: int = 0
    size_bytes: int = 0
    cpu_latency_ms: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class SearchResult:
    """All trials, the number of the best, and the numbers of those on the Pareto front."""

    trials: tuple[Trial, ...] = ()
    best: int | None = None
    pareto: tuple[int, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HistoryPoint:
    """One point of the history; losses are means per output token, `validation_exact_match` is a percentage."""

    step: int = 0
    epoch: float = 0.0
    train_loss: float = 0.0
    validation_loss: float | None = None
    validation_exact_match: float | None = None


@dataclass(frozen=True)
class TrainResult:
    """A trained model and the same before training."""

    model: Artifact = field(default_factory=Artifact)
    base: Artifact = field(default_factory=Artifact)
    history: tuple[HistoryPoint, ...] = ()
    best_step: int = 0
    parameters: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    weights_sha256: str = ""
    labels: tuple[str, ...] = ()


class ExportFormat(IntEnum):
    """A format to write; the proto's numbers."""

    UNSPECIFIED = 0
    SAFETENSORS = 1
    SAFETENSORS_BF16 = 2
    ONNX = 3
    ONNX_INT8 = 4
    CTRANSLATE2_INT8 = 5


@dataclass(frozen=True)
class ExportRequest:
    """Which model, in which format."""

    request_id: str = ""
    model: Artifact = field(default_factory=Artifact)
    format: ExportFormat = ExportFormat.UNSPECIFIED


@dataclass(frozen=True)
class ExportResult:
    """The exported folder."""

    model: Artifact = field(default_factory=Artifact)


def checkpoint_prefix(artifacts: Artifacts, request_id: str) -> str:
    """The key under which a training's two checkpoint slots are, or a search's finished trials."""
    return f"{artifacts.service}/checkpoints/{request_id}"
