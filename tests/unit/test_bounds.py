"""Every field of every request has a bound, and what exceeds it is refused by its name."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from p2m.generator.v1 import generator_pb2 as generator
from p2m.generator.v1 import generator_pb2_grpc
from p2m.run.v1 import run_pb2

from services.kit.bounds import BOUNDS, Items, Number, Text, check
from services.kit.channel import dial
from services.kit.errors import InvalidArgument
from services.kit.settings import SERVICES, Settings
from services.kit.status import from_rpc_error
from tests.support.toy import Toy, hosted

BOUNDLESS = (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM)


def requests() -> list[Descriptor]:
    """The request of every call of the seven services."""
    found = []
    for service in (*SERVICES, "run"):
        module = importlib.import_module(f"p2m.{service}.v1.{service}_pb2")
        for described in module.DESCRIPTOR.services_by_name.values():
            found += [method.input_type for method in described.methods]
    return found


def held(descriptor: Descriptor, seen: dict[str, Descriptor]) -> dict[str, Descriptor]:
    """The message and all that it can hold, by name."""
    if descriptor.full_name not in seen:
        seen[descriptor.full_name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None:
                held(field.message_type, seen)
    return seen


def messages() -> dict[str, Descriptor]:
    """Every message that a request can hold, by name."""
    seen: dict[str, Descriptor] = {}
    for descriptor in requests():
        held(descriptor, seen)
    return seen


def bounded() -> list[FieldDescriptor]:
    """Every field that can hold too much."""
    return [
        field
        for descriptor in messages().values()
        for field in descriptor.fields
        if field.is_repeated or (field.message_type is None and field.type not in BOUNDLESS)
    ]


@pytest.mark.parametrize("field", bounded(), ids=lambda field: field.full_name)
def test_every_field_has_a_bound_that_is_kept(field: FieldDescriptor) -> None:
    """One character, item or step more than the bound is INVALID_ARGUMENT, and the field is named; the bound is not."""
    assert field.containing_type is not None
    bound = BOUNDS.get(field.containing_type.full_name, {}).get(field.name)
    assert bound is not None, f"{field.full_name} has no bound in services/kit/bounds.py"
    if field.containing_type.GetOptions().map_entry:
        return  # by its map, below
    for value in within(field, bound):
        check(holding(field, value))
    for value in beyond(field, bound):
        with pytest.raises(InvalidArgument) as raised:
            check(holding(field, value))
        assert raised.value.field.startswith(field.name)
        assert field.name in raised.value.message


def test_no_bound_is_of_a_field_that_is_gone() -> None:
    """The table has the fields of the protos and no others."""
    known = messages()
    assert not [
        f"{name}.{field}"
        for name, fields in BOUNDS.items()
        for field in fields
        if name not in known or field not in known[name].fields_by_name
    ]


def test_a_map_s_keys_and_values_are_bounded() -> None:
    """A key that is too long, or a value out of its range, is refused by the map's name."""
    for mix in ({"x" * 1_001: 1.0}, {"user": 11.0}, {"user": float("nan")}, {"user": -0.1}):
        with pytest.raises(InvalidArgument, match="mix") as raised:
            check(run_pb2.RunOptions(mix=mix))
        assert raised.value.field.startswith("mix")


def test_what_lies_deep_is_named_by_its_way() -> None:
    """A field of a list's item of a message in the request is named so that it can be found."""
    request = generator.GenerateRequest()
    request.spec.demonstrations.add(input="a", output="b")
    request.spec.demonstrations.add(output="x" * 200_001)
    with pytest.raises(InvalidArgument, match="200,001 characters") as raised:
        check(request)
    assert raised.value.field == "spec.demonstrations[1].output"


def test_an_enum_s_number_must_be_known() -> None:
    """A number that the enum does not have is refused, and its names are told."""
    with pytest.raises(InvalidArgument, match="PREFER_COST"):
        check(generator.GenerateRequest(prefer=17))  # type: ignore[arg-type]


async def test_a_server_checks_before_it_works(settings: Settings) -> None:
    """A request out of bounds comes back as INVALID_ARGUMENT with the field, and no work was begun."""
    toy = Toy(settings)
    async with hosted(toy) as server, dial(f"127.0.0.1:{server.port}", settings) as channel:
        stub: Any = generator_pb2_grpc.GeneratorServiceStub(channel)
        with pytest.raises(Exception) as raised:
            await stub.Generate(generator.GenerateRequest(request_id="r/g", number=1_000_001), timeout=30).read()
        error = from_rpc_error(raised.value)  # type: ignore[arg-type]
        assert isinstance(error, InvalidArgument) and error.field == "number" and toy.worked == 0


def holding(field: FieldDescriptor, value: Any) -> Any:
    """A message with nothing but this field."""
    assert field.containing_type is not None
    message = message_factory.GetMessageClass(field.containing_type)()
    if field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name).update(value)
    elif field.is_repeated and field.message_type is not None:
        for _ in range(value):
            getattr(message, field.name).add()
    elif field.is_repeated:
        getattr(message, field.name).extend(value)
    else:
        setattr(message, field.name, value)
    return message


def within(field: FieldDescriptor, bound: Any) -> list[Any]:
    """Values as large as they may be."""
    if isinstance(bound, Text):
        return ["ä" * bound.most]
    if isinstance(bound, Number):
        return [number(field, bound.low), number(field, bound.high)]
    return [items(field, bound.most, bound.characters)]


def beyond(field: FieldDescriptor, bound: Any) -> list[Any]:
    """Values that are just too large."""
    if isinstance(bound, Text):
        return ["ä" * (bound.most + 1)]
    if isinstance(bound, Number) and field.type == FieldDescriptor.TYPE_DOUBLE:
        return [float("nan"), float("inf"), float("-inf"), bound.low - 0.001, bound.high * 1.01]
    if isinstance(bound, Number):
        too_many = [] if bound.high >= 2**63 - 1 else [int(bound.high) + 1]
        return [int(bound.low) - 1, *too_many]
    assert isinstance(bound, Items)
    long = [["x" * (bound.characters + 1)]] if field.type == FieldDescriptor.TYPE_STRING else []
    return [items(field, bound.most + 1, 1), *long]


def number(field: FieldDescriptor, value: float) -> float:
    return value if field.type == FieldDescriptor.TYPE_DOUBLE else int(value)


def items(field: FieldDescriptor, count: int, characters: int) -> Any:
    """So many items: texts, a map's entries, or how many messages."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return ["x" * min(characters, 1_000)] * count
    assert field.message_type is not None
    return {f"{one}": 1 for one in range(count)} if field.message_type.GetOptions().map_entry else count
