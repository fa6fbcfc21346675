"""What each field of a request may hold at most, checked before a service sees the message.

    check(message)      InvalidArgument that names the first field that holds too much

Every field that a request can carry has a line here: text in characters, lists in items (and the characters of each),
numbers by their range. What is right within the bounds is each service's own to say. A whole message has at most 16 MiB
(`server.MAX_MESSAGE_BYTES`); what is larger travels as an artifact, whose size is checked where it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from services.kit.errors import InvalidArgument

MAX_TEXT = 200_000
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Text:
    """At most so many characters."""

    most: int


@dataclass(frozen=True)
class Items:
    """At most so many items; of texts (and of a map's keys), each of at most so many characters."""

    most: int
    characters: int = 0


@dataclass(frozen=True)
class Number:
    """From `low` to `high`, both included; of a map, each of its values. Never NaN or an infinity."""

    low: float
    high: float


Bound = Text | Items | Number

# A prompt of more than 200,000 characters is refused with a reason of its own (`text.check_prompt`).
_PROMPT = Text(4_000_000)
_ID, _NAME, _LANGUAGE = Text(500), Text(1_000), Text(400)
_COUNT = Number(0, _LARGEST)
_SEED = Number(0, 2**31 - 1)
_RATE = Number(0, 1e15)
_LANGUAGES = Items(100, 100)

BOUNDS: dict[str, dict[str, Bound]] = {
    "p2m.common.v1.Artifact": {"uri": Text(300), "sha256": Text(64), "size_bytes": _COUNT, "media_type": Text(200)},
    "p2m.common.v1.Demonstration": {"input": Text(MAX_TEXT), "output": Text(MAX_TEXT)},
    "p2m.common.v1.PromptSpec": {
        "instruction": Text(MAX_TEXT), "demonstrations": Items(10_000), "language": _LANGUAGE,
        "original_instruction": Text(MAX_TEXT),
    },
    "p2m.common.v1.Allowance": {
        "requests": _COUNT, "tokens": _COUNT, "dollars": _RATE, "requests_per_minute": _COUNT,
        "tokens_per_minute": _COUNT,
    },
    "p2m.parser.v1.ParseRequest": {"request_id": _ID, "prompt": _PROMPT},
    "p2m.dataset_retriever.v1.SearchRequest": {"request_id": _ID, "k": Number(0, 1_000)},
    "p2m.dataset_retriever.v1.Filters": {
        "languages": _LANGUAGES, "licence": _NAME, "max_size_bytes": _COUNT, "task": _NAME,
    },
    "p2m.dataset_retriever.v1.InspectRequest": {"request_id": _ID, "dataset": _NAME, "config": _NAME},
    "p2m.dataset_retriever.v1.RetrieveRequest": {
        "request_id": _ID, "dataset": _NAME, "config": _NAME, "input_columns": Items(300, 1_000),
        "output_column": _NAME, "max_rows": Number(0, 1_000_000), "revision": _NAME, "max_bytes": _COUNT,
        "max_seconds": Number(0, 1e9),
    },
    "p2m.dataset_retriever.v1.AdaptRequest": {"request_id": _ID, "max_rows": Number(0, 1_000_000)},
    "p2m.generator.v1.GenerateRequest": {
        "request_id": _ID, "number": Number(0, 1_000_000), "part": Number(0, 10_000), "parts": Number(0, 10_000),
        "seed": _SEED, "initial_temperature": Number(0, 2), "max_temperature": Number(0, 2), "exclude": Items(1_000),
    },
    "p2m.generator.v1.Attributes": {
        "topics": Items(1_000, 2_000), "lengths": Items(1_000, 2_000), "difficulties": Items(1_000, 2_000),
        "labels": Items(1_000, 2_000),
    },
    "p2m.generator.v1.ProposeRequest": {"request_id": _ID, "seed": _SEED},
    "p2m.generator.v1.SalvageRequest": {"request_id": _ID, "exclude": Items(1_000)},
    "p2m.model_retriever.v1.SearchRequest": {"request_id": _ID, "k": Number(0, 1_000)},
    "p2m.model_retriever.v1.Constraints": {
        "max_size_bytes": _COUNT, "model": _NAME, "cpu_latency_ms": Number(0, 1e9), "licence": _NAME,
        "languages": _LANGUAGES,
    },
    "p2m.trainer.v1.PrepareRequest": {
        "request_id": _ID, "sources": Items(1_000), "seed": _SEED, "max_rows_per_source": _COUNT,
        "caps": Items(1_000, 1_000), "mix": Items(1_000, 1_000),
    },
    "p2m.trainer.v1.PrepareRequest.CapsEntry": {"key": _NAME, "value": Number(1, _LARGEST)},
    "p2m.trainer.v1.PrepareRequest.MixEntry": {"key": _NAME, "value": Number(0, 10)},
    "p2m.trainer.v1.LockedSplits": {"counts": Items(10_000)},
    "p2m.trainer.v1.SourceCount": {"source": _NAME, "split": _NAME, "rows": _COUNT},
    "p2m.trainer.v1.SearchRequest": {
        "request_id": _ID, "candidates": Items(20), "budget_seconds": Number(0, 604_800), "seed": _SEED,
    },
    "p2m.trainer.v1.SearchCandidate": {"model": _NAME, "cpu_latency_ms": Number(0, 1e9)},
    "p2m.trainer.v1.HyperParameters": {
        "learning_rate": Number(0, 10), "epochs": Number(0, 10_000), "batch_tokens": Number(0, 10_000_000),
        "max_input_tokens": Number(0, 1_000_000), "max_output_tokens": Number(0, 1_000_000),
        "checkpoint_steps": Number(0, 1_000_000_000), "patience": Number(0, 1_000_000_000),
        "max_seconds": Number(0, 1e9), "head": Text(40), "micro_batch_tokens": Number(0, 10_000_000),
        "label_smoothing": Number(0, 1), "replaced_share": Number(0, 1),
    },
    "p2m.trainer.v1.TrainRequest": {"request_id": _ID, "model": _NAME, "seed": _SEED, "leave_out": Items(1_000, 1_000)},
    "p2m.trainer.v1.ExportRequest": {"request_id": _ID},
    "p2m.evaluator.v1.EvaluateRequest": {
        "request_id": _ID, "contestants": Items(50), "seed": _SEED, "margin": Number(0, 100),
        "slices": Items(1_000, 2_000),
    },
    "p2m.evaluator.v1.Contestant": {"name": Text(100)},
    "p2m.evaluator.v1.Teacher": {"max_rows": _COUNT},
    "p2m.evaluator.v1.PredictRequest": {"inputs": Items(1_000, MAX_TEXT)},
    "p2m.evaluator.v1.MeasureRequest": {
        "request_id": _ID, "name": Text(100), "seed": _SEED, "timed_inputs": Number(0, 1_000_000),
        "timed_seconds": Number(0, 86_400),
    },
    "p2m.run.v1.StartRequest": {"name": _NAME, "prompt": _PROMPT},
    "p2m.run.v1.RunOptions": {
        "number": Number(0, 1_000_000), "parts": Number(0, 100), "dataset": _NAME, "data": Items(1_000), "model": _NAME,
        "max_model_bytes": Number(0, 1e15), "learning_rate": Number(0, 10), "epochs": Number(0, 10_000),
        "batch_tokens": Number(0, 10_000_000), "max_train_seconds": Number(0, 1e9), "seed": _SEED,
        "teacher_rows": Number(0, 1_000_000), "max_rows_per_source": Number(0, 1_000_000_000),
        "checkpoint_steps": Number(0, 1_000_000_000), "max_cpu_latency_ms": Number(0, 1e9), "licence": _NAME,
        "languages": _LANGUAGES, "max_dataset_bytes": Number(0, 1e15), "dataset_task": _NAME,
        "export_formats": Items(20, 40), "head": Text(40), "mix": Items(1_000, 1_000), "caps": Items(1_000, 1_000),
        "improve": _NAME, "search_seconds": Number(0, 604_800), "attribution_seconds": Number(0, 604_800),
    },
    "p2m.run.v1.RunOptions.MixEntry": {"key": _NAME, "value": Number(0, 10)},
    "p2m.run.v1.RunOptions.CapsEntry": {"key": _NAME, "value": Number(1, _LARGEST)},
    "p2m.run.v1.GetRequest": {"name": _NAME},
    "p2m.run.v1.WatchRequest": {"name": _NAME, "after": _COUNT},
    "p2m.run.v1.CancelRequest": {"name": _NAME},
    "p2m.run.v1.ListRequest": {"page_size": Number(0, 1_000), "page_token": Text(1_000)},
    "p2m.run.v1.ChooseRequest": {"name": _NAME, "question": _NAME, "value": Text(MAX_TEXT)},
    "p2m.run.v1.DataRequest": {"name": _NAME},
}  # fmt: skip


def check(message: Message, where: str = "") -> None:
    """InvalidArgument, reason OUT_OF_BOUNDS, where a field of `message` or of what it holds is out of its bounds."""
    bounds = BOUNDS.get(message.DESCRIPTOR.full_name, {})
    for field, value in message.ListFields():
        name, bound = f"{where}{field.name}", bounds.get(field.name)
        if field.type == FieldDescriptor.TYPE_ENUM:
            _check_enum(field, value, name)
        elif isinstance(bound, Number):
            _check_number(value, bound, name)
        elif isinstance(bound, Text):
            _check_length(value, bound.most, name)
        elif isinstance(bound, Items):
            _check_items(field, value, bound, name)
        for part, at in _messages(field, value, name):
            check(part, f"{at}.")


def _messages(field: FieldDescriptor, value: Any, name: str) -> Iterator[tuple[Message, str]]:
    """The messages that a field holds, with how each is called."""
    if field.message_type is None or field.message_type.GetOptions().map_entry:
        return
    if not field.is_repeated:
        yield value, name
        return
    for place, part in enumerate(value):
        yield part, f"{name}[{place}]"


def _check_items(field: FieldDescriptor, value: Any, bound: Items, name: str) -> None:
    if len(value) > bound.most:
        raise _out_of_bounds(name, f"has {len(value):,} items; wanted at most {bound.most:,}")
    if field.type == FieldDescriptor.TYPE_STRING:
        for place, text in enumerate(value):
            _check_length(text, bound.characters, f"{name}[{place}]")
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_entry = BOUNDS.get(field.message_type.full_name, {}).get("value")
        for key, held in value.items():
            _check_length(key, bound.characters, f"{name}'s key")
            if isinstance(of_entry, Number):
                _check_number(held, of_entry, f"{name}[{key[:80]!r}]")


def _check_length(text: str, most: int, name: str) -> None:
    if len(text) > most:
        raise _out_of_bounds(name, f"has {len(text):,} characters; wanted at most {most:,}")


def _check_number(value: float, bound: Number, name: str) -> None:
    if not (math.isfinite(value) and bound.low <= value <= bound.high):
        raise _out_of_bounds(name, f"is {value:g}; wanted {bound.low:,.15g} to {bound.high:,.15g}")


def _check_enum(field: FieldDescriptor, value: int, name: str) -> None:
    assert field.enum_type is not None
    if value not in field.enum_type.values_by_number:
        raise _out_of_bounds(name, f"is {value}; wanted one of {', '.join(field.enum_type.values_by_name)}")


def _out_of_bounds(name: str, said: str) -> InvalidArgument:
    return InvalidArgument("OUT_OF_BOUNDS", f"{name} {said}.", field=name)
