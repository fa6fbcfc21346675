"""Messages and dataclasses carry the same values."""

from __future__ import annotations

import enum
import importlib
import math
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass
from datetime import datetime
from functools import cache
from typing import Any

import p2m
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from p2m.common.v1 import common_pb2
from p2m.generator.v1 import generator_pb2
from p2m.trainer.v1 import trainer_pb2

from services.kit import values
from services.kit.errors import InvalidArgument
from services.kit.wire import from_json, from_message, to_json, to_message

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
count = st.integers(0, 2**63 - 1)
number = st.floats(allow_nan=False)
maybe_count, maybe_number = st.none() | count, st.none() | number
ledgers = st.builds(values.Ledger, count, count, count, number, count, count)
demonstrations = st.builds(values.Demonstration, text, text)
SHARED = {
    values.Artifact: st.builds(values.Artifact, text, text, count, text),
    values.Demonstration: demonstrations,
    values.PromptSpec: st.builds(
        values.PromptSpec, text, st.lists(demonstrations, max_size=3).map(tuple), st.sampled_from(["en", "de"]), text
    ),
    values.Allowance: st.builds(values.Allowance, maybe_count, maybe_count, maybe_number, maybe_count, maybe_count),
    values.Ledger: ledgers,
    values.Metric: st.builds(values.Metric, text, number),
    values.Progress: st.builds(
        values.Progress, number, number, text, text,
        st.lists(st.builds(values.Metric, text, number), max_size=3).map(tuple), st.none() | ledgers,
    ),
    values.ScorePart: st.builds(values.ScorePart, text, number),
}  # fmt: skip


def all_messages() -> Iterator[type[Message]]:
    """Every message class of every proto of ours."""
    for module in pkgutil.walk_packages(p2m.__path__, "p2m."):
        if module.name.endswith("_pb2"):
            for descriptor in importlib.import_module(module.name).DESCRIPTOR.message_types_by_name.values():
                yield GetMessageClass(descriptor)


@pytest.mark.parametrize("cls", SHARED, ids=lambda cls: cls.__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_shared_values_survive_both_ways(cls: type[Any], data: st.DataObject) -> None:
    """A shared value is the same after a trip through its message's bytes, and through a worker's JSON line."""
    value = data.draw(SHARED[cls])
    message_type: type[Message] = getattr(common_pb2, cls.__name__)
    sent = to_message(value, message_type).SerializeToString()
    assert from_message(message_type.FromString(sent), cls) == value
    line = to_json(value)
    assert "\n" not in line
    assert from_json(line, cls) == value


@pytest.mark.parametrize("cls", SHARED, ids=lambda cls: cls.__name__)
def test_shared_values_have_the_fields_of_their_messages(cls: type[Any]) -> None:
    """Each shared dataclass has its message's fields, no more and no fewer."""
    descriptor: Descriptor = getattr(common_pb2, cls.__name__).DESCRIPTOR
    assert [own.name for own in fields(cls)] == [proto.name for proto in descriptor.fields]


@pytest.mark.parametrize("cls", all_messages(), ids=lambda cls: cls.DESCRIPTOR.full_name)
def test_every_message_survives(cls: type[Message]) -> None:
    """Every message of every proto, all fields set and none set, is the same after a trip through plain values."""
    plain = dataclass_of(cls.DESCRIPTOR)
    for message in (filled(cls.DESCRIPTOR), cls()):
        value = from_message(message, plain)
        assert to_message(value, cls) == message
        assert from_json(to_json(value), plain) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_reported(value: float) -> None:
    """NaN and the infinities, as a diverged training reports them, survive the message and the worker's line."""
    progress = values.Progress(metrics=(values.Metric("train_loss", value),))
    by_message = from_message(to_message(progress, common_pb2.Progress), values.Progress)
    by_line = from_json(to_json(progress), values.Progress)
    for survived in (by_message.metrics[0].value, by_line.metrics[0].value):
        assert survived == value or (math.isnan(value) and math.isnan(survived))


@dataclass(frozen=True)
class Hyper:
    learning_rate: float | None = None
    patience: int | None = None
    lora: bool | None = None


def test_unset_differs_from_zero() -> None:
    """An optional field that is unset is None, and one that was set to zero is zero, both ways."""
    assert from_message(trainer_pb2.HyperParameters(), Hyper) == Hyper()
    assert from_message(trainer_pb2.HyperParameters(patience=0, lora=False), Hyper) == Hyper(patience=0, lora=False)
    assert not to_message(Hyper(), trainer_pb2.HyperParameters).HasField("patience")
    assert to_message(Hyper(patience=0), trainer_pb2.HyperParameters).HasField("patience")


class StopReason(enum.IntEnum):
    UNSPECIFIED = 0
    NUMBER = 1


@dataclass(frozen=True)
class Result:
    dropped: dict[str, int] = field(default_factory=dict)
    stop_reason: StopReason = StopReason.UNSPECIFIED


def test_enums_and_maps() -> None:
    """Enums are their numbers and maps are dictionaries, 64-bit counts included."""
    result = Result({"duplicate": 2**40}, StopReason.NUMBER)
    message = to_message(result, generator_pb2.GenerateResult)
    assert message.stop_reason == generator_pb2.STOP_REASON_NUMBER and message.dropped["duplicate"] == 2**40
    assert from_message(message, Result) == result


def test_an_unknown_enum_value_is_the_callers_error() -> None:
    """A number that the enum does not have is InvalidArgument and names the field: no bug of the service."""
    with pytest.raises(InvalidArgument, match=r"GenerateResult\.stop_reason is 77") as raised:
        from_message(generator_pb2.GenerateResult(stop_reason=77), Result)  # type: ignore[arg-type]
    assert raised.value.field == "stop_reason"


@cache
def dataclass_of(descriptor: Descriptor) -> type[Any]:
    """A dataclass with the message's fields, as an implementation would write it."""
    if descriptor.full_name == "google.protobuf.Timestamp":
        return datetime
    return make_dataclass(descriptor.name, [_member(one) for one in descriptor.fields], frozen=True)


def _member(one: FieldDescriptor) -> tuple[str, Any, Any]:
    if one.message_type and one.message_type.GetOptions().map_entry:
        return one.name, dict[str, int], field(default_factory=dict)
    kinds = {one.CPPTYPE_STRING: str, one.CPPTYPE_BOOL: bool, one.CPPTYPE_DOUBLE: float, one.CPPTYPE_FLOAT: float}
    kind = dataclass_of(one.message_type) if one.message_type else kinds.get(one.cpp_type, int)
    if one.is_repeated:
        return one.name, tuple[kind, ...], ()
    if one.has_presence:
        return one.name, kind | None, None
    return one.name, kind, kind()


def filled(descriptor: Descriptor) -> Message:
    """A message with every field set (of a oneof, the last), recursively."""
    message = GetMessageClass(descriptor)()
    for one in descriptor.fields:
        if one.message_type and one.message_type.full_name == "google.protobuf.Timestamp":
            getattr(message, one.name).FromSeconds(1_800_000_000)
        elif one.message_type and one.message_type.GetOptions().map_entry:
            getattr(message, one.name)["some key"] = 7
        elif one.message_type and one.is_repeated:
            getattr(message, one.name).extend([filled(one.message_type), filled(one.message_type)])
        elif one.message_type:
            getattr(message, one.name).CopyFrom(filled(one.message_type))
        elif one.is_repeated:
            getattr(message, one.name).extend([_scalar(one), _scalar(one)])
        else:
            setattr(message, one.name, _scalar(one))
    return message


def _scalar(one: FieldDescriptor) -> Any:
    if one.enum_type:
        return one.enum_type.values[-1].number
    kinds = {one.CPPTYPE_STRING: "text ä\n", one.CPPTYPE_BOOL: True, one.CPPTYPE_DOUBLE: 0.1, one.CPPTYPE_FLOAT: 0.5}
    return kinds.get(one.cpp_type, 2**31 - 1)
